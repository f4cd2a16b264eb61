"""Standings in the store: once per round, in its transaction, in the audit chain, replayable."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import Connection, update

from hansa.coordinator import schema, store_standing
from hansa.coordinator.store import Store
from hansa.coordinator.store_standing import decision_of
from hansa.core.contribute import Purpose
from hansa.core.round import RoundRecord
from hansa.defend import Score, Sign, Standings, State, Transition
from hansa.defend.judge import Judged
from hansa.defend.replay import replay
from hansa.errors import HansaError, StoreError
from tests.support.store_rows import COHORT, INITIAL, name_of, opening, record, start, state

MOST = 2
TOTALS = {"bremen": 1.0, "kiel": 6.5, "lund": 2.25, "riga": 0.1}


@pytest.fixture
def running(store: Store) -> Store:
    """A store with one job that runs."""
    start(store)
    return store


def seen(number: int, attempt: int = 0, **totals: float) -> Judged:
    scores = {c: Score(norm=Sign(3.3, t)) for c, t in {**TOTALS, **totals}.items()}
    return Judged(Standings(MOST), (), number, attempt, MappingProxyType(scores))


def close(store: Store, number: int, judged: Judged | None, **changes: Any) -> RoundRecord:
    """Opens a round, everybody counts, and closes it with what it showed."""
    last = store.state("j1")
    model = INITIAL if last is None else last.model_sha256
    begun = store.open_round(
        "j1", opening(number, 0 if last is None else last.attempt, model=model), 20.0
    )
    done = record(begun, **changes)
    after = state(done)
    receipts = {} if done.void else {client: name_of(client) for client in done.members}
    store.close_round("j1", done, after, 21.0, receipts, judged)
    return done


def quarantined(store: Store) -> None:
    """Five rounds in which kiel stands out."""
    for number in range(5):
        close(store, number, seen(number))


def events(store: Store, kind: str) -> list[Any]:
    return [event.body for event in store.events("j1") if event.kind == kind]


def test_rounds_without_standing_leave_no_trace(running: Store) -> None:
    close(running, 0, None)
    assert running.standings("j1", MOST).clients == {}
    assert events(running, "standing.observed") == []


def test_standings_and_transitions_are_those_of_the_pure_functions(running: Store) -> None:
    quarantined(running)
    expected, changes = Standings(MOST), list[Transition]()
    for number in range(5):
        expected, new = expected.observe(number, seen(number).scores)
        changes += new
    assert running.standings("j1", MOST) == expected
    assert [change.transition for change in running.standing_changes("j1")] == changes
    assert [c.after for c in changes] == [State.WATCH, State.QUARANTINED]
    assert running.standings("j1", MOST).quarantined == {"kiel"}


def test_each_transition_is_in_the_audit_chain_with_its_evidence(running: Store) -> None:
    quarantined(running)
    told = events(running, "standing.changed")
    assert [(t["client"], t["before"], t["after"], t["by"]) for t in told] == [
        ("kiel", "trusted", "watch", ""),
        ("kiel", "watch", "quarantined", ""),
    ]
    assert told[1]["recent"] == [6.5] * 5
    assert told[1]["score"] == {
        "total": 6.5,
        "norm": [3.3, 6.5],
        "cosine": [0.0, 0.0],
        "closest": [0.0, 0.0],
        "spectral": [0.0, 0.0],
    }
    observed = events(running, "standing.observed")
    assert [(o["round"], o["clients"]) for o in observed] == [(n, 4) for n in range(5)]
    assert "6.5" not in json.dumps(observed)  # the scores' hash, not the scores
    running.verify_events()


def test_a_round_is_observed_once_however_often_it_is_closed(running: Store) -> None:
    done = close(running, 0, seen(0))
    before = running.standings("j1", MOST)
    for _ in range(3):
        running.close_round("j1", done, state(done), 30.0, {}, seen(0))
    assert running.standings("j1", MOST) == before
    assert before["kiel"].rounds == 1
    assert len(events(running, "standing.observed")) == 1


def test_a_close_that_fails_half_way_observes_nothing(
    running: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last write of the transaction fails, as if the process had died before its commit."""

    def failing(connection: Connection, *_: Any) -> None:
        original(connection, *_)
        raise StoreError("the disk is gone", fix="wait")

    original = store_standing._write
    monkeypatch.setattr(store_standing, "_write", failing)
    with pytest.raises(StoreError, match="disk is gone"):
        close(running, 0, seen(0))
    monkeypatch.undo()
    assert running.state("j1") is None
    assert running.standings("j1", MOST).clients == {}
    assert events(running, "standing.observed") == []
    done = record(opening())
    receipts = {client: name_of(client) for client in done.members}
    running.close_round("j1", done, state(done), 21.0, receipts, seen(0))
    assert running.standings("j1", MOST)["kiel"].rounds == 1


def test_a_void_round_and_its_next_attempt_are_two_observations(running: Store) -> None:
    close(running, 0, seen(0), void=True, members=(), model=INITIAL)
    close(running, 0, seen(0, 1))
    assert running.standings("j1", MOST)["kiel"].rounds == 2
    assert [(o["round"], o["attempt"]) for o in events(running, "standing.observed")] == [
        (0, 0),
        (0, 1),
    ]
    assert replay(running.standing_history("j1", MOST)).differences == ()


def test_what_a_person_decides_in_the_middle_of_a_round_holds(running: Store) -> None:
    """The round was begun, and judged in memory, before the release."""
    quarantined(running)
    decision = decision_of("kiel", 5, State.WATCH, "a faulty scanner, repaired")
    change = running.decide_standing("j1", MOST, decision, "anna", 22.0)
    assert (change.before, change.after) == (State.QUARANTINED, State.WATCH)
    close(running, 5, seen(5))
    found = running.standings("j1", MOST)["kiel"]
    assert (found.state, found.rounds, found.recent) == (State.WATCH, 1, (6.5,))
    assert events(running, "standing.changed")[-1]["by"] == "anna"
    assert replay(running.standing_history("j1", MOST)).differences == ()


def test_an_expulsion_is_kept_and_replayed(running: Store) -> None:
    quarantined(running)
    decision = decision_of("kiel", 5, State.EXPELLED, "it lies\0")
    running.decide_standing("j1", MOST, decision, "anna", 22.0)
    assert running.standings("j1", MOST)["kiel"].state is State.EXPELLED
    assert (
        running.standing_changes("j1")[-1].transition.reason == "it lies\N{REPLACEMENT CHARACTER}"
    )
    assert replay(running.standing_history("j1", MOST)).differences == ()


@pytest.mark.parametrize("client", ["bremen", "nobody"])
def test_fail_decisions_about_who_is_not_quarantined(running: Store, client: str) -> None:
    quarantined(running)
    with pytest.raises(HansaError, match="not quarantined"):
        running.decide_standing("j1", MOST, decision_of(client, 5, State.WATCH, "x"), "anna", 22.0)
    with pytest.raises(StoreError):
        running.decide_standing("j9", MOST, decision_of("kiel", 5, State.WATCH, "x"), "anna", 22.0)
    assert len(events(running, "standing.changed")) == 2


def test_jobs_have_standings_of_their_own(running: Store) -> None:
    quarantined(running)
    start(running, "j2")
    assert running.standings("j2", MOST).clients == {}


def test_standings_survive_a_restart(place: Any) -> None:
    with place.open(lead=True) as store:
        start(store)
        quarantined(store)
        before = store.standings("j1", MOST)
    with place.open() as store:
        assert store.standings("j1", MOST) == before


def tamper_scores(connection: Connection) -> None:
    table = schema.standing_scores
    text = '{"kiel":{"refused":true,"total":10.0}}'
    connection.execute(update(table).where(table.c.round == 2).values(scores_json=text))


def tamper_standing(connection: Connection) -> None:
    table = schema.standings
    row = connection.execute(table.select().where(table.c.client == "bremen")).one()
    words = json.loads(row.standing_json) | {"state": "quarantined"}
    change = update(table).where(table.c.client == "bremen")
    connection.execute(change.values(standing_json=json.dumps(words)))


def tamper_event(connection: Connection) -> None:
    table = schema.events
    rows = connection.execute(table.select()).all()
    row = next(r for r in rows if '"standing.changed"' in r.entry)
    changed = row.entry.replace("6.5", "2.5")
    connection.execute(update(table).where(table.c.seq == row.seq).values(entry=changed))


def test_fail_scores_that_were_changed_are_not_counted(running: Store) -> None:
    quarantined(running)
    running.database.write(tamper_scores)
    with pytest.raises(StoreError, match="scores of round 2, attempt 0"):
        running.standing_history("j1", MOST)


@pytest.mark.parametrize(
    ("tamper", "words"),
    [(tamper_standing, "'bremen' is recorded as quarantined"), (tamper_event, "does not follow")],
)
def test_fail_what_was_changed_shows_in_a_replay(
    running: Store, tamper: Callable[[Connection], None], words: str
) -> None:
    quarantined(running)
    running.database.write(tamper)
    differences = replay(running.standing_history("j1", MOST)).differences
    assert any(words in difference for difference in differences)
    if tamper is tamper_event:
        with pytest.raises(StoreError, match="broken"):
            running.verify_events()


def test_a_measurement_is_closed_without_an_observation(running: Store) -> None:
    close(running, 0, seen(0))
    last = running.state("j1")
    assert last is not None
    begun = opening(1, model=last.model_sha256, purpose=Purpose.EVALUATE)
    running.open_round("j1", begun, 30.0)
    done = record(begun, cohort=COHORT)
    receipts = {client: name_of(client) for client in done.members}
    running.close_round("j1", done, state(done), 31.0, receipts, None)
    assert len(events(running, "standing.observed")) == 1
