"""What clients add to the scores of groups: laws of the estimate, and its power."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from hansa.core.standing import GroupLikeness
from hansa.defend import (
    REFUSED,
    GroupScore,
    GroupScores,
    Score,
    Sign,
    Standings,
    State,
    Transition,
    group_scores,
    scores_of,
)
from hansa.defend.groups import (
    LIMIT,
    PATIENCE,
    QUARANTINE_AT,
    WATCH_AT,
    WINDOW,
    Evidence,
    estimates,
    inferred,
)
from hansa.defend.replay import Decision, Entry, History, Observation, decided, replay
from hansa.defend.standing import Standing
from hansa.defend.text import scores_of_words, scores_words, standing_of, standing_words
from hansa.errors import HansaError


def score(total: float) -> Score:
    return Score(norm=Sign(1.0, total))


def scores(*groups: tuple[str, float]) -> GroupScores:
    """Members as letters, with the total of their group."""
    return GroupScores(tuple(GroupScore(tuple(names), score(total)) for names, total in groups))


def evidence(number: int, *groups: tuple[str, float]) -> Evidence:
    return Evidence(number, tuple((tuple(names), excess) for names, excess in groups))


def drawn(clients: int, groups: int, rounds: int, seed: int) -> list[list[tuple[str, ...]]]:
    rng = np.random.default_rng(seed)
    names = [f"c{i:03d}" for i in range(clients)]
    return [
        [tuple(names[i] for i in sorted(part)) for part in np.array_split(order, groups)]
        for order in (rng.permutation(clients) for _ in range(rounds))
    ]


def by_solver(rounds: Sequence[Evidence]) -> Mapping[str, float]:
    """The normal equations, dense, by NumPy: an oracle of its own."""
    groups = [group for each in rounds for group in each.groups]
    clients = sorted({name for members, _ in groups for name in members})
    design = np.array([[name in members for name in clients] for members, _ in groups], float)
    right = design.T @ np.array([excess for _, excess in groups])
    found = np.linalg.solve(design.T @ design + PATIENCE * np.eye(len(clients)), right)
    return dict(zip(clients, found, strict=True))


# ------------------------------------------------------------------ the estimate


def test_it_is_the_solution_of_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    rounds = [
        Evidence(n, tuple((members, round(float(rng.normal()), 4)) for members in groups))
        for n, groups in enumerate(drawn(30, 7, 40, 0))
    ]
    found, expected = estimates(rounds, {}), by_solver(rounds)
    assert found.keys() == expected.keys()
    assert max(abs(found[c] - expected[c]) for c in expected) <= 0.5e-4 + 1e-9


def test_no_evidence_is_no_estimate_and_usual_groups_give_zero() -> None:
    assert estimates([], {}) == {}
    assert estimates([evidence(0)], {}) == {}
    assert estimates([evidence(0, ("ab", 0.0), ("cd", 0.0))], {}) == dict.fromkeys("abcd", 0.0)


@pytest.mark.parametrize("rounds", [1, 5, 10, 50])
def test_alone_in_k_groups_it_is_the_mean_with_patience(rounds: int) -> None:
    found = estimates([evidence(n, ("a", 2.0)) for n in range(rounds)], {})
    assert found["a"] == pytest.approx(2.0 * rounds / (rounds + PATIENCE), abs=1e-4)


def test_the_order_of_rounds_groups_and_members_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    rounds = [
        Evidence(n, tuple((members, round(float(rng.normal()), 4)) for members in groups))
        for n, groups in enumerate(drawn(20, 6, 25, 1))
    ]
    mixed = [
        Evidence(each.round, tuple(reversed(each.groups)))
        for each in (rounds[i] for i in rng.permutation(len(rounds)))
    ]
    assert estimates(mixed, {}) == estimates(rounds, {})


def test_names_are_names_only() -> None:
    rounds = [evidence(0, ("ab", 1.0), ("cd", -0.5)), evidence(1, ("ac", 2.0), ("bd", 0.0))]
    other = str.maketrans("abcd", "dacb")
    renamed = [
        evidence(e.round, *(("".join(m).translate(other), x) for m, x in e.groups)) for e in rounds
    ]
    found, again = estimates(rounds, {}), estimates(renamed, {})
    assert {name.translate(other): a for name, a in found.items()} == again


def test_more_excess_of_its_groups_is_never_less_for_a_client() -> None:
    before = [evidence(n, ("ab", 0.5), ("cd", 0.1)) for n in range(3)]
    last = [estimates([*before, evidence(3, ("ac", x), ("bd", 0.0))], {})["a"] for x in (0, 1, 2)]
    assert last[0] < last[1] < last[2]


def test_a_bad_client_explains_the_groups_of_its_companions() -> None:
    """b was in a bad group as often as not; c and d never."""
    rounds = [evidence(n, ("ab", 2.0), ("cd", 0.0)) for n in range(10)]
    rounds += [evidence(n, ("ac", 2.0), ("bd", 0.0)) for n in range(10, 20)]
    rounds += [evidence(n, ("ad", 2.0), ("bc", 0.0)) for n in range(20, 30)]
    found = estimates(rounds, {})
    assert found["a"] > 1.0
    assert max(found[c] for c in "bcd") < 0.35  # a mean of its groups would be 0.67 * 0.75


def test_a_pair_that_is_always_together_shares() -> None:
    found = estimates([evidence(n, ("ab", 2.0), ("cd", 0.0)) for n in range(30)], {})
    assert found["a"] == found["b"]
    assert found["a"] + found["b"] == pytest.approx(2.0 * 60 / (60 + PATIENCE), abs=2e-4)


def test_what_a_person_forgave_is_forgotten_of_its_companions_too() -> None:
    rounds = [evidence(n, ("ab", 2.0), ("cd", 0.5)) for n in range(10)]
    later = evidence(10, ("ab", 1.0), ("cd", 0.5))
    kept = estimates([*rounds, later], {"a": 10})
    assert kept["a"] == estimates([later], {})["a"]
    assert kept["b"] == kept["a"]
    assert kept["c"] == estimates([*rounds, later], {})["c"]


# ------------------------------------------------------------------ scores of groups


def test_groups_are_scored_as_clients_are() -> None:
    rows = np.random.default_rng(2).normal(size=(6, 50)) + 1
    rows[3] *= -4
    groups = tuple((f"{i}b", f"{i}a") for i in range(6))
    found = group_scores(GroupLikeness(groups, rows @ rows.T))
    alone = scores_of([str(i) for i in range(6)], rows @ rows.T)
    assert [g.members for g in found.groups] == [(f"{i}a", f"{i}b") for i in range(6)]
    assert [g.score for g in found.groups] == [alone[str(i)] for i in range(6)]
    assert found["3a"] == found["3b"] == alone["3"]
    assert found["3a"].total > 4
    assert len(found) == 12


def test_the_order_of_groups_and_members_changes_no_score() -> None:
    rows = np.random.default_rng(3).normal(size=(7, 40)) + 0.5
    groups = tuple((f"{i}a", f"{i}b") for i in range(7))
    order = np.array([3, 1, 6, 0, 2, 5, 4])
    mixed = tuple(tuple(reversed(groups[i])) for i in order)
    gram = rows @ rows.T
    assert group_scores(GroupLikeness(groups, gram)) == group_scores(
        GroupLikeness(mixed, gram[np.ix_(order, order)])
    )


def test_fewer_than_five_groups_have_no_scores_but_the_refused() -> None:
    rows = np.eye(4)
    groups = tuple((f"{i}a", f"{i}b") for i in range(4))
    found = group_scores(GroupLikeness(groups, rows, (("y", "x"),)), ["eve"])
    assert found.groups == (GroupScore(("eve",), REFUSED), GroupScore(("x", "y"), REFUSED))
    assert group_scores(None).groups == ()
    assert group_scores(None, ["eve"])["eve"] == REFUSED


def test_fail_products_that_fit_no_groups() -> None:
    groups = tuple((str(i),) for i in range(5))
    with pytest.raises(HansaError, match="products of 5 clients"):
        group_scores(GroupLikeness(groups, np.full((5, 5), np.nan)))


def test_evidence_is_the_excess_over_the_median_up_to_a_limit() -> None:
    told = Evidence.of(7, scores(("ab", 1.0), ("cd", 1.5), ("ef", 9.0), ("gh", 0.25), ("ij", 2.0)))
    assert told == evidence(7, ("ab", -0.5), ("cd", 0.0), ("ef", LIMIT), ("gh", -1.25), ("ij", 0.5))
    refused = GroupScores((GroupScore(("x",), REFUSED), *scores(("ab", 1.0), ("cd", 1.0)).groups))
    assert Evidence.of(0, refused) == evidence(0, ("x", LIMIT), ("ab", 0.0), ("cd", 0.0))
    assert Evidence.of(0, GroupScores((GroupScore(("x",), REFUSED),))) == evidence(0, ("x", LIMIT))


# ------------------------------------------------------------------ standing


def test_steps_of_a_standing() -> None:
    watched = inferred(Standing(), WATCH_AT, quarantine=True)
    assert (watched.state, watched.weight, watched.mean) == (State.WATCH, 1.0, WATCH_AT)
    assert inferred(Standing(), WATCH_AT - 1e-4, quarantine=True).state is State.TRUSTED
    gone = inferred(watched, QUARANTINE_AT, quarantine=True)
    assert (gone.state, gone.weight) == (State.QUARANTINED, 0.0)
    assert inferred(watched, LIMIT, quarantine=False).state is State.WATCH
    assert inferred(gone, 0.0, quarantine=True) == gone


def test_ten_rounds_below_clear_a_watched_client() -> None:
    standing = inferred(Standing(), WATCH_AT, quarantine=True)
    states = []
    for _ in range(10):
        standing = inferred(standing, WATCH_AT / 2, quarantine=True)
        states.append(standing.state)
    assert states == [State.WATCH] * 9 + [State.TRUSTED]


def test_clients_without_an_estimate_are_as_they_were() -> None:
    assert "estimate" not in standing_words(Standing(State.WATCH))
    assert Standing(State.WATCH).weight == 0.5
    standing = Standing(State.WATCH, 3, (1.0, 2.0, 1.5), estimate=1.5, since=4)
    assert standing_of(json.loads(json.dumps(standing_words(standing)))) == standing


def test_scores_of_groups_are_read_as_they_were_written() -> None:
    told = GroupScores((GroupScore(("a", "b"), score(1.5)), GroupScore(("c",), REFUSED)))
    again = scores_of_words(json.loads(json.dumps(scores_words(told))))
    assert again == told
    plain = {"groups": score(2.0)}  # a client of this name
    assert dict(scores_of_words(json.loads(json.dumps(scores_words(plain))))) == plain


def observed(
    rounds: int, bad: frozenset[str], shift: float, seed: int, clients: int = 20, groups: int = 10
) -> tuple[Standings, list[Transition], list[GroupScores]]:
    """Standings in the loop: groups with a bad member score `shift` more, honest ones vary."""
    rng = np.random.default_rng([seed, 7])
    standings, changes, seen = Standings.of(clients, clients // 2 + 1), list[Transition](), []
    names = np.array([f"c{i:03d}" for i in range(clients)])
    for number in range(rounds):
        asked = np.array([c for c in names if standings.weight(c) > 0])
        parts = np.array_split(rng.permutation(asked), groups)
        found = [
            GroupScore(
                tuple(sorted(map(str, part))),
                score(round(rng.gamma(1.0, 0.5) + shift * bool(bad & set(part)), 4)),
            )
            for part in parts
        ]
        seen.append(GroupScores(tuple(sorted(found, key=lambda group: group.members))))
        standings, new = standings.observe(number, seen[-1])
        changes += new
    return standings, changes, seen


BAD = frozenset({"c004", "c011", "c013", "c019"})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shift", [2.5, 6.0])
def test_bad_clients_are_found_and_no_honest_one(seed: int, shift: float) -> None:
    standings, changes, _ = observed(60, BAD, shift, seed)
    assert standings.quarantined == BAD
    first = min(c.round for c in changes if c.after is State.QUARANTINED)
    assert first >= 8  # one bad round, or a few, are no reason


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_five_find_five_of_a_hundred(seed: int) -> None:
    bad = frozenset(f"c{i:03d}" for i in range(95, 100))
    standings, _, _ = observed(60, bad, 3.0, seed, clients=100, groups=20)
    assert standings.quarantined == bad


@pytest.mark.parametrize("seed", range(5))
def test_without_bad_clients_nobody_is_even_watched(seed: int) -> None:
    _, changes, _ = observed(100, frozenset(), 0.0, seed)
    assert changes == []


def test_colluders_that_the_rule_bears_cannot_have_an_honest_client_quarantined() -> None:
    """They know the groups, and spoil a round only if the victim is in theirs."""
    clients, groups, bad = 20, 5, {"c018", "c019"}
    for seed in range(4):
        standings = Standings.of(clients, 11)
        for number, parts in enumerate(drawn(clients, groups, 60, seed)):
            found = tuple(
                GroupScore(part, score(10.0 if "c000" in part and bad & set(part) else 0.5))
                for part in sorted(parts)
            )
            standings, _ = standings.observe(number, GroupScores(found))
        assert standings["c000"].mean < QUARANTINE_AT
        assert "c000" not in standings.quarantined


def test_memory_has_a_bound() -> None:
    standings, _, _ = observed(WINDOW + 20, frozenset(), 0.0, 0)
    assert [each.round for each in standings.evidence] == list(range(20, WINDOW + 20))
    assert max(len(s.recent) for s in standings.clients.values()) == 10


def test_no_more_than_a_minority_goes_and_the_worst_first() -> None:
    standings = Standings(most=1)
    for number in range(20):
        standings, _ = standings.observe(
            number, scores(("a", 9.0), ("b", 2.6), ("c", 0.0), ("d", 0.0), ("e", 0.0), ("f", 0.0))
        )
    assert standings.quarantined == {"a"}
    assert standings["b"].state is State.WATCH


def test_the_reason_says_what_was_estimated() -> None:
    _, changes, seen = observed(60, BAD, 4.0, 0)
    change = next(c for c in changes if c.after is State.QUARANTINED)
    assert change.reason.startswith("being in a group added 1.")
    assert "estimated from" in change.reason
    assert change.score == seen[change.round][change.client]
    assert change.recent[-1] >= QUARANTINE_AT


# ------------------------------------------------------------------ replay


def history() -> History:
    """Sixty rounds with a release in the middle."""
    _, _, seen = observed(60, BAD, 4.0, 1)
    standings, entries, changes = Standings.of(20, 11), list[Entry](), list[Transition]()
    for number, found in enumerate(seen):
        again = scores_of_words(json.loads(json.dumps(scores_words(found))))
        entries.append(Observation(number, again))
        standings, new = standings.observe(number, again)
        changes += new
        if number == 40:
            decision = Decision("c004", 41, State.WATCH, "repaired")
            entries.append(decision)
            standings, change = decided(standings, decision)
            changes.append(change)
    return History(entries, changes, standings)


def test_what_was_recorded_follows_from_the_scores_of_groups() -> None:
    recorded = history()
    assert replay(recorded).differences == ()
    released = [c for c in recorded.changes if c.reason == "repaired"]
    assert [(c.before, c.after) for c in released] == [(State.QUARANTINED, State.WATCH)]
    found = recorded.standings["c004"]
    assert (found.state, found.since, found.weight) == (State.WATCH, 41, 1.0)


def test_fail_a_changed_score_of_a_group_shows() -> None:
    recorded = history()
    first = recorded.entries[3]
    assert isinstance(first, Observation)
    assert isinstance(first.scores, GroupScores)
    milder = tuple(GroupScore(g.members, score(0.0)) for g in first.scores.groups)
    entries = [*recorded.entries[:3], Observation(3, GroupScores(milder)), *recorded.entries[4:]]
    assert replay(History(entries, recorded.changes, recorded.standings)).differences
