"""Attacks as ordinary behaviours of clients: on updates, on training data, on the form of updates.

They are for one's own jobs: `hansa redteam JOB` runs them in simulation. `docs/red-team.md` says
which there are, what each knows, and what came of them.
"""

from hansa.attacks.adaptive import adaptive_alie, adaptive_ipm, adaptive_min_max
from hansa.attacks.data import Backdoor, LabelFlip, Poison, Relabelled, Trigger, edge_case, semantic
from hansa.attacks.history import rop
from hansa.attacks.malformed import LIES
from hansa.attacks.updates import (
    alie,
    alie_z,
    free_rider,
    gaussian,
    ipm,
    mimic,
    min_max,
    min_sum,
    model_replacement,
    replay,
    scaling,
    sign_flip,
    sybils,
)

__all__ = [
    "LIES",
    "Backdoor",
    "LabelFlip",
    "Poison",
    "Relabelled",
    "Trigger",
    "adaptive_alie",
    "adaptive_ipm",
    "adaptive_min_max",
    "alie",
    "alie_z",
    "edge_case",
    "free_rider",
    "gaussian",
    "ipm",
    "mimic",
    "min_max",
    "min_sum",
    "model_replacement",
    "replay",
    "rop",
    "scaling",
    "semantic",
    "sign_flip",
    "sybils",
]
