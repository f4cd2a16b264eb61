"""Appeal by replay: what was recorded is counted again, and every change of it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import pytest

from hansa.defend import Score, Sign, Standings, State, Transition
from hansa.defend.replay import Decision, Entry, History, Observation, decided, replay, told

TOTALS = {"a": 1.0, "b": 2.0, "eve": 6.0, "mallory": 8.0}


def scores(**totals: float) -> dict[str, Score]:
    return {name: Score(norm=Sign(1.0, total)) for name, total in totals.items()}


def recorded() -> History:
    """Twelve rounds, a release after the fifth and an expulsion after the tenth."""
    standings, entries, changes = Standings(2), list[Entry](), list[Transition]()
    for number in range(12):
        seen = {c: s for c, s in scores(**TOTALS).items() if standings.weight(c) > 0}
        entries.append(Observation(number, seen))
        standings, new = standings.observe(number, seen)
        changes += new
        decision = {
            5: Decision("eve", 6, State.WATCH, "repaired"),
            10: Decision("mallory", 11, State.EXPELLED, "it lies"),
        }.get(number)
        if decision is not None:
            entries.append(decision)
            standings, change = decided(standings, decision)
            changes.append(change)
    return History(entries, changes, standings)


def test_what_was_recorded_follows() -> None:
    history = recorded()
    verdict = replay(history)
    assert verdict.differences == ()
    assert verdict.rounds == 12
    assert verdict.changes == tuple(history.changes)
    assert [(c.client, c.after.value) for c in history.changes] == [
        ("eve", "watch"),
        ("mallory", "watch"),
        ("eve", "quarantined"),
        ("mallory", "quarantined"),
        ("eve", "watch"),
        ("eve", "quarantined"),
        ("mallory", "expelled"),
    ]


def changed_score(history: History) -> History:
    first = history.entries[2]
    assert isinstance(first, Observation)
    milder = {**first.scores, **scores(eve=1.0)}
    return replace(
        history, entries=[*history.entries[:2], Observation(2, milder), *history.entries[3:]]
    )


def innocent(history: History) -> History:
    """Somebody who was never bad is recorded as quarantined."""
    victim = replace(history.standings["eve"], state=State.QUARANTINED)
    clients = MappingProxyType({**history.standings.clients, "a": victim})
    return replace(history, standings=replace(history.standings, clients=clients))


def nudged(history: History) -> History:
    clients = dict(history.standings.clients)
    clients["b"] = replace(clients["b"], drift=0.5)
    return replace(history, standings=replace(history.standings, clients=MappingProxyType(clients)))


CHANGED: dict[str, tuple[Callable[[History], History], str]] = {
    "a score was made milder": (changed_score, "recorded, and does not follow: round 2: eve"),
    "a transition was left out": (
        lambda h: replace(h, changes=h.changes[1:]),
        "follows, and is not recorded: round 2: eve trusted -> watch",
    ),
    "a transition was put in": (
        lambda h: replace(h, changes=[*h.changes, replace(h.changes[0], client="a")]),
        "recorded, and does not follow: round 2: a trusted -> watch",
    ),
    "a reason was changed": (
        lambda h: replace(h, changes=[replace(h.changes[0], reason="because"), *h.changes[1:]]),
        "because",
    ),
    "a decision about somebody trusted": (
        lambda h: replace(h, entries=[Decision("a", 0, State.EXPELLED, "why"), *h.entries]),
        "a decision cannot be: 'a' is trusted, not quarantined",
    ),
    "a round was left out": (lambda h: replace(h, entries=h.entries[1:]), "round 3"),
    "a standing that does not follow": (
        innocent,
        "'a' is recorded as quarantined and is trusted",
    ),
    "a number that does not follow": (nudged, "what is recorded of 'b' does not follow"),
}


@pytest.mark.parametrize(("change", "words"), CHANGED.values(), ids=CHANGED)
def test_fail_every_change_shows(change: Callable[[History], History], words: str) -> None:
    differences = replay(change(recorded())).differences
    assert any(words in difference for difference in differences), differences


def test_a_transition_is_told_with_its_reason() -> None:
    assert told(recorded().changes[0]) == (
        "round 2: eve trusted -> watch: 3 of its last 3 rounds speak against it"
    )
