"""Secure aggregation: the coordinator learns a sum over the cohort and nothing else.

The protocol is that of Bonawitz et al. (CCS 2017, the variant for an active server) on a complete
graph, and that of Bell et al. (CCS 2020) on a sparse one: one code, two graphs. `client_flow` and
`server_flow` are generators over plain messages; they do no input or output of their own, so that
a test, a simulation and a federation drive the very same code.

    client                            server
    Advert     keys, signed       ─►  fixes who takes part
               ◄─ Roster              neighbours' adverts, the graph
    Shares     sealed, for others ─►
               ◄─ Inbox               what the neighbours sealed
    Masked     the update         ─►  adds it up
               ◄─ Survivors           whose updates are in the sum
    Vote       signed             ─►
               ◄─ Votes               that all saw the same survivors
    Answer     what cancels masks ─►  the sum
"""

from __future__ import annotations

from hansa.secagg.client import Member, client_flow
from hansa.secagg.drive import drive
from hansa.secagg.faults import Fault, Misuse
from hansa.secagg.floor import Floor, Memory
from hansa.secagg.messages import (
    Advert,
    Answer,
    Inbox,
    Masked,
    Roster,
    Shares,
    Survivors,
    Vote,
    Votes,
)
from hansa.secagg.parameters import Rule, Scheme
from hansa.secagg.server import Ask, Sum, server_flow
from hansa.secagg.session import Session

__all__ = [
    "Advert",
    "Answer",
    "Ask",
    "Fault",
    "Floor",
    "Inbox",
    "Masked",
    "Member",
    "Memory",
    "Misuse",
    "Roster",
    "Rule",
    "Scheme",
    "Session",
    "Shares",
    "Sum",
    "Survivors",
    "Vote",
    "Votes",
    "client_flow",
    "drive",
    "server_flow",
]
