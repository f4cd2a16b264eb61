"""A coordinator that lies about who survived, or shows everybody something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from hansa.secagg import (
    Answer,
    Fault,
    Floor,
    Roster,
    Survivors,
    Vote,
    Votes,
)
from hansa.secagg.messages import as_set
from tests.secagg.lies import (
    FOLK,
    ME,
    RULE,
    context,
    crowd,
    number,
    others,
    refused,
    seated,
    tell,
    voted,
)
from tests.support.cohort import Table, people, session, table


@dataclass(frozen=True)
class Lists:
    """The honest lists and who may be put where. One of the six vanished before it shared."""

    me: int
    alive: int
    gone: int
    near: list[int]

    def moved(self, *places: int) -> Survivors:
        """These are dropped and not alive."""
        return Survivors(self.alive & ~as_set(places), as_set(places))


LISTS: dict[str, tuple[Callable[[Lists], Survivors], Fault]] = {
    "one in both lists": (lambda t: Survivors(t.alive, 1 << t.near[0]), Fault.OVERLAP),
    "all in both lists": (lambda t: Survivors(t.alive, t.alive), Fault.OVERLAP),
    "myself in both lists": (lambda t: Survivors(t.alive, 1 << t.me), Fault.OVERLAP),
    "myself dropped": (lambda t: t.moved(t.me), Fault.NOT_SURVIVING),
    "myself nowhere": (lambda t: Survivors(t.alive & ~(1 << t.me), 0), Fault.NOT_SURVIVING),
    "a survivor who never shared": (
        lambda t: Survivors(t.alive | 1 << t.gone, 0),
        Fault.UNKNOWN_CLIENT,
    ),
    "a dropped one who never shared": (
        lambda t: Survivors(t.alive, 1 << t.gone),
        Fault.UNKNOWN_CLIENT,
    ),
    "a survivor beyond the cohort": (
        lambda t: Survivors(t.alive | 1 << 6, 0),
        Fault.UNKNOWN_CLIENT,
    ),
    "a dropped one beyond the cohort": (
        lambda t: Survivors(t.alive, 1 << 6),
        Fault.UNKNOWN_CLIENT,
    ),
    "survivors without end": (lambda t: Survivors(-1, 0), Fault.UNKNOWN_CLIENT),
    "dropped without end": (lambda t: Survivors(t.alive, ~t.alive), Fault.UNKNOWN_CLIENT),
    "one in neither list": (
        lambda t: Survivors(t.alive & ~(1 << t.near[0]), 0),
        Fault.MISSING_CLIENT,
    ),
    "nobody but me": (lambda t: t.moved(*t.near), Fault.COHORT),
    "two survivors": (lambda t: t.moved(*t.near[1:]), Fault.COHORT),
    "three survivors where four are the threshold": (
        lambda t: t.moved(*t.near[2:]),
        Fault.COHORT,
    ),
}


def lists(seats: Table, gone: str) -> Lists:
    honest = seats.due(ME, Survivors)
    near = [place for place in others(seats) if place != number(seats, gone)]
    assert honest == Survivors(as_set([*near, number(seats)]), 0)
    return Lists(number(seats), honest.alive, number(seats, gone), near)


def shared(floor: Floor | None = None, **words: Any) -> Table:
    """Up to the survivors, without one who sent an advert and nothing else."""
    return seated(floor=floor, **words).until(Roster).step(["c00005"]).until(Survivors)


@pytest.mark.parametrize("lie", LISTS)
def test_survivors_that_cannot_be_are_refused(lie):
    seats, (twist, fault) = shared(), LISTS[lie]
    tell(seats, twist(lists(seats, "c00005")), fault)


def test_a_threshold_of_survivors_is_enough():
    seats = shared()
    found = lists(seats, "c00005")
    assert isinstance(seats.clients[ME].send(found.moved(found.near[0])), Vote)


@pytest.mark.parametrize(("floor", "cohort"), [(Floor(cohort=5), 2), (Floor(), 5)])
def test_fewer_survivors_than_the_floor_are_refused(floor, cohort):
    """Four of five are left: a threshold, and less than the client or the session demands."""
    seats = shared(floor, cohort=cohort)
    found = lists(seats, "c00005")
    tell(seats, found.moved(found.near[0]), Fault.COHORT)


# ------------------------------------------------------------------ votes
def few_votes(count: int) -> Callable[[Table, Votes], Votes]:
    return lambda _, honest: Votes(dict(list(honest.signatures.items())[:count]))


def over_other_survivors(seats: Table, honest: Votes) -> Votes:
    """A split view: one client was shown other survivors than I, and signed that."""
    other = others(seats)[0]
    shown = seats.sent[Vote]
    (name,) = [name for name in seats.clients if number(seats, name) == other]
    if name not in shown:
        (name,) = [n for n in seats.clients if number(seats, n) == others(seats)[1]]
    split = Survivors(as_set(number(seats, n) for n in shown if n != ME), 0)
    signature = FOLK.signing[name].sign(split.signed(context(seats)))
    return Votes({number(seats, name): signature})


def forged(seats: Table, honest: Votes) -> Votes:
    return Votes(dict.fromkeys(honest.signatures, bytes(64)))


def under_exchanged_numbers(seats: Table, honest: Votes) -> Votes:
    one, other, *_ = honest.signatures
    return Votes({one: honest.signatures[other], other: honest.signatures[one]})


def my_own_vote_again(seats: Table, honest: Votes) -> Votes:
    """Two others and mine, which counts once."""
    some = dict(list(honest.signatures.items())[:2])
    return Votes({number(seats): seats.sent[Vote][ME].signature, **some})


def of_a_dropped_client(seats: Table, honest: Votes) -> Votes:
    """Its signature is good: the coordinator asked a client that it says is gone."""
    message = Survivors(
        as_set(number(seats, n) for n in seats.sent[Vote]), 1 << number(seats, "c00005")
    ).signed(context(seats))
    return Votes({number(seats, "c00005"): FOLK.signing["c00005"].sign(message)})


def of_nobody(seats: Table, honest: Votes) -> Votes:
    return Votes({99: next(iter(honest.signatures.values()))})


VOTES: dict[str, tuple[Callable[[Table, Votes], Votes], Fault]] = {
    "no votes": (few_votes(0), Fault.VOTES),
    "two votes, with mine three of four": (few_votes(2), Fault.VOTES),
    "my own vote a second time": (my_own_vote_again, Fault.VOTES),
    "forged votes": (forged, Fault.SPLIT_VIEW),
    "votes under exchanged numbers": (under_exchanged_numbers, Fault.SPLIT_VIEW),
    "a vote over other survivors": (over_other_survivors, Fault.SPLIT_VIEW),
    "a vote of a dropped client": (of_a_dropped_client, Fault.UNKNOWN_CLIENT),
    "a vote of nobody": (of_nobody, Fault.UNKNOWN_CLIENT),
}


@pytest.mark.parametrize("lie", VOTES)
def test_votes_that_prove_nothing_are_refused(lie):
    seats, (twist, fault) = voted(), VOTES[lie]
    tell(seats, twist(seats, seats.due(ME, Votes)), fault)


def test_votes_of_another_attempt_are_refused():
    """Numbers may differ between attempts; signatures of the same survivors do not fit either."""
    seats, again = voted(), voted(attempt=1)
    theirs = list(again.due(ME, Votes).signatures.values())
    places = seats.due(ME, Votes).signatures
    tell(seats, Votes(dict(zip(places, theirs, strict=True))), Fault.SPLIT_VIEW)


def test_a_threshold_of_votes_is_enough():
    seats = voted()
    answer = seats.clients[ME].send(few_votes(3)(seats, seats.due(ME, Votes)))
    assert isinstance(answer, Answer)


def test_on_a_sparse_graph_a_threshold_of_neighbours_must_vote():
    seats = crowd().until(Votes)
    tell(seats, few_votes(3)(seats, seats.due(ME, Votes)), Fault.VOTES)
    seats = crowd().until(Votes)
    answer = seats.clients[ME].send(few_votes(4)(seats, seats.due(ME, Votes)))
    assert isinstance(answer, Answer)


def test_a_vote_of_a_survivor_who_is_no_neighbour_is_refused():
    """Its signature is good, but it holds no share of what this client would reveal."""
    seats = crowd().until(Votes)
    honest = seats.due(ME, Votes)
    near = {place for place in range(64) if place in honest.signatures}
    name = next(
        n
        for n in seats.clients
        if n != ME and number(seats, n) not in near and n in seats.sent[Vote]
    )
    vote = seats.sent[Vote][name].signature
    tell(seats, Votes({number(seats, name): vote, **honest.signatures}), Fault.UNKNOWN_CLIENT)


def test_of_two_groups_that_are_shown_different_survivors_one_gets_no_answer():
    """Each is told that the rest of the other is gone; one client is in both, and signs once."""
    folk = people(7)
    seats = table(session(rule=RULE), folk).until(Survivors)
    names = list(folk.signing)
    places = {name: number(seats, name) for name in names}
    one, two, signatures = names[:4], names[3:], {}
    for name in names:
        view = as_set(places[other] for other in (one if name in one else two))
        vote = seats.clients[name].send(Survivors(view, as_set(places.values()) & ~view))
        assert isinstance(vote, Vote)
        signatures[name] = vote.signature

    def votes(group: list[str]) -> Votes:
        return Votes({places[name]: signatures[name] for name in group})

    assert isinstance(seats.clients[names[0]].send(votes(one)), Answer)
    with refused(Fault.VOTES):
        seats.clients[names[4]].send(votes(two[1:]))
    with refused(Fault.SPLIT_VIEW):
        seats.clients[names[5]].send(votes(two))
