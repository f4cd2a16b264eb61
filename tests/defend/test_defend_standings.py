"""The standings of all clients: who may be quarantined at a time, decisions by people, order."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hansa.defend import Score, Sign, Standings, State, Transition
from hansa.defend.standings import names
from hansa.errors import HansaError


def scores(**totals: float) -> dict[str, Score]:
    return {name: Score(norm=Sign(1.0, total)) for name, total in totals.items()}


def observed(
    standings: Standings, rounds: int, given: Mapping[str, Score]
) -> tuple[Standings, list[Transition]]:
    changes: list[Transition] = []
    for number in range(rounds):
        standings, new = standings.observe(number, given)
        changes += new
    return standings, changes


@pytest.mark.parametrize(
    ("population", "quorum", "most"),
    [(20, 11, 9), (20, 16, 4), (20, 5, 9), (10, 6, 4), (5, 5, 0), (5, 3, 2), (4, 3, 1), (1, 1, 0)],
)
def test_a_majority_and_the_quorum_always_remain(population: int, quorum: int, most: int) -> None:
    assert Standings.of(population, quorum).most == most


def test_bad_clients_are_watched_then_quarantined_with_their_evidence() -> None:
    after, changes = observed(Standings.of(20, 11), 8, scores(a=1, b=1, eve=6, c=1))
    assert [(c.client, c.round, c.before, c.after) for c in changes] == [
        ("eve", 2, State.TRUSTED, State.WATCH),
        ("eve", 4, State.WATCH, State.QUARANTINED),
    ]
    assert changes[1].recent == (6.0,) * 5
    assert changes[1].score == scores(eve=6)["eve"]
    assert changes[1].reason == (
        "5 of its last 5 rounds speak against it, and its mean score is 6.0"
    )
    assert after.quarantined == {"eve"}
    assert (after.weight("eve"), after.weight("a"), after.weight("stranger")) == (0, 1, 1)


def test_the_worst_go_first_where_not_all_may_and_the_rest_stay_watched() -> None:
    after, _ = observed(Standings(most=2), 9, scores(a=6, b=7, c=6, d=9, e=1))
    assert after.quarantined == {"b", "d"}
    assert names(after, State.WATCH) == ["a", "c"]
    assert after.watched == {"a", "c"}


def test_of_equals_the_first_by_name_goes() -> None:
    for order in ("abc", "cba"):
        after, _ = observed(Standings(most=1), 6, scores(**dict.fromkeys(order, 6.0)))
        assert after.quarantined == {"a"}


def test_a_place_that_is_free_again_is_used() -> None:
    after, _ = observed(Standings(most=1), 6, scores(a=6, b=7))
    assert after.quarantined == {"b"}
    after, _ = after.release("b", 6, "its disk was full")
    after, _ = after.observe(7, scores(a=6))
    assert after.quarantined == {"a"}


def test_the_order_of_the_scores_changes_nothing() -> None:
    one, changes = observed(Standings.of(9, 5), 12, scores(a=6, b=1, c=7, d=3.9))
    other, same = observed(Standings.of(9, 5), 12, scores(d=3.9, c=7, b=1, a=6))
    assert one == other
    assert changes == same


def test_a_round_without_a_client_changes_nothing_for_it() -> None:
    before, _ = observed(Standings.of(9, 5), 2, scores(a=6, b=1))
    after, _ = before.observe(2, scores(b=1))
    assert after["a"] == before["a"]


def test_a_person_releases_and_the_client_is_watched() -> None:
    before, _ = observed(Standings.of(9, 5), 5, scores(a=6))
    after, change = before.release("a", 5, "a faulty scanner, repaired")
    assert (change.before, change.after) == (State.QUARANTINED, State.WATCH)
    assert change.reason == "a faulty scanner, repaired"
    assert change.recent == (6.0,) * 5
    assert after["a"].recent == ()
    assert before.quarantined == {"a"}  # nothing is changed in place


def test_a_person_expels_and_nothing_brings_the_client_back() -> None:
    before, _ = observed(Standings.of(9, 5), 5, scores(a=6))
    after, change = before.expel("a", 5, "it lies")
    assert (change.after, after.weight("a")) == (State.EXPELLED, 0)
    assert after.quarantined == {"a"}
    with pytest.raises(HansaError, match="expelled, not quarantined"):
        after.release("a", 6, "why not")


@pytest.mark.parametrize("decide", ["release", "expel"])
@pytest.mark.parametrize("rounds", [0, 3])
def test_fail_decisions_about_who_is_not_quarantined(decide: str, rounds: int) -> None:
    standings, _ = observed(Standings.of(9, 5), rounds, scores(a=6))
    with pytest.raises(HansaError, match="not quarantined") as caught:
        getattr(standings, decide)("a", 3, "because")
    assert caught.value.fix


def test_readings_of_a_drift_are_told() -> None:
    _, changes = observed(Standings.of(9, 5), 30, scores(a=3.8))
    assert [(c.after, c.reason) for c in changes] == [
        (State.WATCH, "its scores have stayed high: 15.2 so far")
    ]
