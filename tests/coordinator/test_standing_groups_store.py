"""Scores of groups in the store: the evidence of the last rounds is read from them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import update

from hansa.coordinator import schema
from hansa.coordinator.store import Store
from hansa.coordinator.store_standing import decision_of
from hansa.core.round import RoundRecord
from hansa.defend import GroupScore, GroupScores, Score, Sign, Standings, State
from hansa.defend.groups import WINDOW, Evidence
from hansa.defend.judge import Judged
from hansa.defend.replay import replay
from hansa.errors import StoreError
from tests.support.store_rows import INITIAL, name_of, opening, record, start, state

MOST = 1
PAIRS = (("bremen", "kiel"), ("lund", "riga"), ("bergen", "visby"), ("narva", "reval"))


@pytest.fixture
def running(store: Store) -> Store:
    """A store with one job that runs."""
    start(store)
    return store


def scores(number: int) -> GroupScores:
    """Kiel's groups stand out, whoever is with it."""
    seen = []
    for at, (first, second) in enumerate(PAIRS):
        other = PAIRS[(at + number) % len(PAIRS)][1] if number else second
        total = 6.0 if other == "kiel" else 0.5 + at / 8
        seen.append(GroupScore(tuple(sorted((first, other))), Score(norm=Sign(2.0, total))))
    return GroupScores(tuple(sorted(seen, key=lambda group: group.members)))


def close(store: Store, number: int, **changes: Any) -> RoundRecord:
    """Opens a round, everybody counts, and closes it with what its groups showed."""
    last = store.state("j1")
    attempt = 0 if last is None else last.attempt
    model = INITIAL if last is None else last.model_sha256
    begun = store.open_round("j1", opening(number, attempt, model=model), 20.0)
    done = record(begun, **changes)
    judged = Judged(Standings(MOST), (), number, attempt, scores(number))
    receipts = {} if done.void else {client: name_of(client) for client in done.members}
    store.close_round("j1", done, state(done), 21.0, receipts, judged)
    return done


def test_standings_are_those_of_the_pure_functions(running: Store) -> None:
    expected = Standings(MOST)
    for number in range(14):
        close(running, number)
        expected, _ = expected.observe(number, scores(number))
        assert running.standings("j1", MOST) == expected
    assert expected.quarantined == {"kiel"}
    assert replay(running.standing_history("j1", MOST)).differences == ()


def test_a_round_is_evidence_once_however_often_it_is_closed(running: Store) -> None:
    done = close(running, 0)
    judged = Judged(Standings(MOST), (), 0, 0, scores(0))
    before = running.standings("j1", MOST)
    for _ in range(3):
        running.close_round("j1", done, state(done), 30.0, {}, judged)
    assert running.standings("j1", MOST) == before
    assert before.evidence == (Evidence.of(0, scores(0)),)
    assert before["kiel"].rounds == 1


def test_void_rounds_are_evidence_in_their_order(running: Store) -> None:
    close(running, 0, void=True, members=(), model=INITIAL)
    close(running, 0)
    close(running, 1)
    assert [each.round for each in running.standings("j1", MOST).evidence] == [0, 0, 1]
    assert replay(running.standing_history("j1", MOST)).differences == ()


def test_only_the_last_rounds_are_remembered(running: Store) -> None:
    for number in range(WINDOW + 3):
        close(running, number)
    evidence = running.standings("j1", MOST).evidence
    assert [each.round for each in evidence] == list(range(3, WINDOW + 3))
    assert replay(running.standing_history("j1", MOST)).differences == ()


def test_a_release_forgets_what_was_held_against_it(running: Store) -> None:
    for number in range(14):
        close(running, number)
    assert running.standings("j1", MOST)["kiel"].state is State.QUARANTINED
    running.decide_standing(
        "j1", MOST, decision_of("kiel", 14, State.WATCH, "repaired"), "anna", 2.0
    )
    close(running, 14)
    found = running.standings("j1", MOST)["kiel"]
    assert (found.state, found.since, found.rounds) == (State.WATCH, 14, 1)
    assert found.mean < 0.5  # one round, not fifteen
    assert replay(running.standing_history("j1", MOST)).differences == ()


def test_the_audit_chain_names_the_scores_and_holds_none(running: Store) -> None:
    close(running, 0)
    observed = [e.body for e in running.events("j1") if e.kind == "standing.observed"]
    assert [o["clients"] for o in observed] == [8]
    assert "members" not in json.dumps(observed)


def test_fail_a_changed_score_of_a_group_shows(running: Store) -> None:
    for number in range(3):
        close(running, number)
    table = schema.standing_scores
    changed = update(table).where(table.c.round == 1).values(scores_json='{"groups":[]}')
    running.database.write(lambda c: c.execute(changed))
    with pytest.raises(StoreError, match="scores of round 1, attempt 0"):
        running.standing_history("j1", MOST)


def test_scores_of_a_client_called_groups_are_no_groups(running: Store) -> None:
    begun = running.open_round("j1", opening(), 20.0)
    done = record(begun)
    plain = {"groups": Score(norm=Sign(1.0, 6.0))}
    judged = Judged(Standings(MOST), (), 0, 0, plain)
    receipts = {client: name_of(client) for client in done.members}
    running.close_round("j1", done, state(done), 21.0, receipts, judged)
    found = running.standings("j1", MOST)
    assert found.evidence == ()
    assert found["groups"].recent == (6.0,)
