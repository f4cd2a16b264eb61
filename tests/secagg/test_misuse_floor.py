"""A client's own floor: what it demands of a session, whatever the coordinator says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from hansa.secagg import (
    Advert,
    Fault,
    Floor,
    Member,
    Misuse,
    Roster,
    Rule,
    Shares,
    client_flow,
)
from hansa.secagg.floor import InProcess
from hansa.secagg.parameters import Scheme
from tests.secagg.lies import (
    FOLK,
    ME,
    RULE,
    refused,
    seated,
    tell,
    zeros,
)
from tests.support.cohort import roster, session


def memory(member: Member) -> Mapping[Any, Any]:
    assert isinstance(member.memory, InProcess)
    return member.memory.begun


FLOORS: dict[str, tuple[Floor, dict[str, Any], Fault]] = {
    "no element": (Floor(), {"size": 0}, Fault.SIZE),
    "less than no element": (Floor(), {"size": -1}, Fault.SIZE),
    "one element more than allowed": (Floor(size=9), {"size": 10}, Fault.SIZE),
    "a modulus that is none of ours": (Floor(), {"bits": 8}, Fault.MODULUS),
    "a modulus that is too wide": (Floor(), {"bits": 64}, Fault.MODULUS),
    "a modulus that is not allowed": (Floor(bits=(32,)), {"bits": 16}, Fault.MODULUS),
    "fewer corrupt than allowed": (Floor(corrupt=0.2), {"rule": Rule(0.1)}, Fault.ASSUMPTIONS),
    "an honest coordinator": (Floor(), {"rule": Rule(active=False)}, Fault.ASSUMPTIONS),
}


@pytest.mark.parametrize("lie", FLOORS)
def test_a_session_below_the_floor_is_refused_before_anything_is_sent(lie):
    floor, words, fault = FLOORS[lie]
    member = FOLK.member(ME, floor)
    with refused(fault):
        client_flow(session(**words), member, zeros()).send(None)
    assert not memory(member), "it may be asked properly yet"


@pytest.mark.parametrize(
    ("floor", "words"),
    [
        (Floor(size=10), {"size": 10}),
        (Floor(bits=(16,)), {"bits": 16}),
        (Floor(corrupt=0.2), {"rule": Rule(0.2)}),
        (Floor(active=False), {"rule": Rule(active=False)}),
    ],
)
def test_a_session_at_the_floor_is_begun(floor, words):
    member = FOLK.member(ME, floor)
    assert isinstance(client_flow(session(**words), member, zeros()).send(None), Advert)
    assert memory(member) == {("job-1", "train", 3): 0}


@pytest.mark.parametrize(
    ("floor", "cohort", "fault"),
    [
        (Floor(cohort=7), 2, Fault.COHORT),
        (Floor(), 7, Fault.COHORT),
        (Floor(cohort=6, threshold=0.7), 2, Fault.THRESHOLD),
    ],
)
def test_a_cohort_below_the_floor_is_refused(floor, cohort, fault):
    """By the client: the coordinator that sends this roster does not care."""
    made = session(rule=RULE, cohort=cohort)
    clients = {name: client_flow(made, FOLK.member(name, floor), zeros()) for name in FOLK.signing}
    adverts = [advert for c in clients.values() if isinstance(advert := c.send(None), Advert)]
    with refused(fault):
        clients[ME].send(roster(made, adverts, ME))


@pytest.mark.parametrize(
    ("floor", "scheme"),
    [
        (Floor(), Scheme(6, 5, 3)),  # exactly half of the holders
        (Floor(), Scheme(100, 52, 26)),
        (Floor(threshold=0.0), Scheme(6, 5, 1)),
        (Floor(threshold=0.9), Scheme(10, 9, 9)),
    ],
)
def test_a_threshold_that_is_too_small_a_share_of_the_holders_is_refused(floor, scheme):
    with refused(Fault.THRESHOLD):
        floor.check_scheme(scheme)
    floor.check_scheme(replace(scheme, threshold=scheme.threshold + 1))


ONE_OWNER = dict.fromkeys(("c00000", "c00001", "c00002", "c00003", "c00004"), "clinic")


@pytest.mark.parametrize(
    ("floor", "owners", "fits"),
    [
        (Floor(), ONE_OWNER, False),  # six connections, two organisations, three demanded
        (Floor(), {"c00000": "clinic", "c00002": "clinic"}, True),
        (Floor(organisations=6), {"c00000": "clinic", "c00002": "clinic"}, False),
        (Floor(organisations=6), {}, True),
        (Floor(organisations=2), ONE_OWNER, True),
        (Floor(cohort=6), {"c00000": "clinic", "c00002": "clinic"}, False),
    ],
)
def test_what_counts_are_organisations_not_connections(floor, owners, fits):
    folk = replace(FOLK, directory=replace(FOLK.directory, organisations=owners))
    seats = seated(folk, floor).step()
    honest = seats.due(ME, Roster)
    if fits:
        assert isinstance(seats.clients[ME].send(honest), Shares)
    else:
        tell(seats, honest, Fault.ORGANISATIONS)


def test_where_everybody_can_be_seen_the_demanded_organisations_must_be_there() -> None:
    """A cohort of three cannot come from four organisations, and is refused for that."""
    floor = Floor(cohort=3, organisations=4)
    with pytest.raises(Misuse) as caught:
        floor.check_organisations(3, 3, everybody=True)
    assert caught.value.fault is Fault.ORGANISATIONS
    floor.check_organisations(3, 3, everybody=False)  # neighbours on a sparse graph: all different
