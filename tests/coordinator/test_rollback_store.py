"""A model that is rejected, in the store: on SQLite and PostgreSQL, whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.coordinator import migrations
from hansa.coordinator.rows import AcceptedRow, StateRow
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.rollback import Rejected
from hansa.core.round import RoundRecord
from hansa.errors import StoreError
from tests.support.store_rows import COHORT, INITIAL, name_of, opening, record, start, state

FIRST = AcceptedRow(0, INITIAL, (), 1.5)
WHY = Rejected("loss", 3.5, 0.30000000000000004, 0.1, 0)


@pytest.fixture
def begun(store: Store) -> Store:
    """A job whose first round has ended, and whose second one is open."""
    start(store)
    where = opening()
    store.open_round("j1", where, 20.0)
    done = record(where)
    store.close_round("j1", done, state(done, accepted=FIRST, clip=2.5), 21.0)
    store.open_round("j1", opening(1), 22.0)
    return store


def rejecting(**changes: Any) -> tuple[RoundRecord, StateRow]:
    """Round 1 rejects its model: the first one is taken up again."""
    done = record(opening(1), rejected=WHY, model=INITIAL)
    after = StateRow(2, 0, INITIAL, (), 0.30000000000000004, 1, 1.5, FIRST)
    return done, replace(after, **changes)


def test_a_rejection_is_one_step_with_its_round(begun: Store) -> None:
    done, after = rejecting()
    begun.close_round("j1", done, after, 25.0)
    assert begun.state("j1") == after
    assert begun.records("j1")[-1] == done
    closed, rejected = begun.events("j1")[-2:]
    assert closed.kind == "round.closed"
    assert rejected.kind == "model.rejected"
    assert rejected.body == {
        "purpose": "train",
        "round": 1,
        "attempt": 0,
        "metric": "loss",
        "value": 3.5,
        "best": 0.30000000000000004,
        "tolerance": 0.1,
        "back": 0,
        "rejected": name_of("model", 1),
        "model": INITIAL,
    }
    begun.verify_events()
    head = begun.events_head()
    begun.close_round("j1", replace(done, seconds=9.0), after, 26.0)  # after a lost answer
    assert begun.events_head() == head
    begun.open_round("j1", opening(2, model=INITIAL), 27.0)


def test_it_is_there_after_opening_again(place: Any) -> None:
    with place.open(lead=True) as store:
        start(store)
        where = opening()
        store.open_round("j1", where, 20.0)
        done = record(where)
        row = state(done, accepted=replace(FIRST, server_sha256s=(name_of("a"), name_of("b"))))
        store.close_round("j1", done, row, 21.0)
    with place.open() as store:
        assert store.state("j1") == row


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_values_that_json_cannot_hold_come_back(begun: Store, value: float) -> None:
    done, after = rejecting(best=None)
    done = replace(done, rejected=replace(WHY, value=value, best=None))
    begun.close_round("j1", done, after, 25.0)
    assert begun.records("j1")[-1] == done
    assert begun.events("j1")[-1].body["value"] == str(value)


def test_the_last_measurement_can_take_the_model_back(store: Store) -> None:
    start(store)
    where = opening()
    store.open_round("j1", where, 20.0)
    done = record(where)
    store.close_round("j1", done, state(done, accepted=FIRST), 21.0)
    last = opening(1, purpose=Purpose.EVALUATE)
    store.open_round("j1", last, 22.0)
    said = record(last, rejected=WHY, model=INITIAL)
    after = StateRow(1, 0, INITIAL, (), None, 1, 1.5, FIRST)
    store.close_round("j1", said, after, 23.0)
    assert store.state("j1") == after
    assert store.last_record("j1") == said


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another model": (
        {"model": name_of("x")},
        {"model_sha256": name_of("x")},
        "another model than the last accepted",
    ),
    "another optimizer": ({}, {"server_sha256s": (name_of("m"),)}, "another model than the last"),
    "another norm bound": ({}, {"clip": 2.5}, "another model than the last"),
    "the same number": ({}, {"round": 1}, "round 2, attempt 0 is due"),
    "accepts meanwhile": (
        {},
        {"accepted": replace(FIRST, round=1)},
        "rejects a model accepts one, too",
    ),
    "a void round": (
        {"void": True, "members": ()},
        {"round": 1, "attempt": 1},
        "has measured none",
    ),
}


@pytest.mark.parametrize(("of_record", "of_state", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_way_back_is_refused_and_changes_nothing(
    begun: Store, of_record: dict[str, Any], of_state: dict[str, Any], words: str
) -> None:
    done, after = rejecting(**of_state)
    before, head = begun.state("j1"), begun.events_head()
    with pytest.raises(StoreError, match=words):
        begun.close_round("j1", replace(done, **of_record), after, 25.0)
    assert begun.state("j1") == before
    assert begun.events_head() == head


ACCEPTED: dict[str, tuple[AcceptedRow | None, str]] = {
    "a model of another round": (AcceptedRow(1, name_of("x"), (), 1.5), "did not start from"),
    "none any more": (None, "has lost its accepted model"),
}


@pytest.mark.parametrize(("accepted", "words"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_round_accepts_the_model_that_it_started_from_or_none(
    begun: Store, accepted: AcceptedRow | None, words: str
) -> None:
    done = record(opening(1))
    with pytest.raises(StoreError, match=words):
        begun.close_round("j1", done, state(done, accepted=accepted), 25.0)
    begun.close_round("j1", done, state(done, accepted=FIRST), 25.0)
    third = record(begun.open_round("j1", opening(2), 26.0))
    judged = AcceptedRow(2, name_of("model", 2), (name_of("momentum"),), None)
    begun.close_round("j1", third, state(third, accepted=judged), 27.0)
    stored = begun.state("j1")
    assert stored is not None
    assert stored.accepted == judged


def test_a_job_that_judges_no_models_rejects_none(store: Store) -> None:
    start(store)
    where = opening()
    store.open_round("j1", where, 20.0)
    done = record(where)
    store.close_round("j1", done, state(done), 21.0)
    store.open_round("j1", opening(1), 22.0)
    said, after = rejecting(accepted=None)
    with pytest.raises(StoreError, match="none to go back to"):
        store.close_round("j1", said, after, 23.0)
    late = record(opening(1))
    with pytest.raises(StoreError, match="did not start from"):
        store.close_round("j1", late, state(late, accepted=FIRST), 23.0)


def test_a_void_round_accepts_nothing(begun: Store) -> None:
    void = record(opening(1), ())
    before = begun.state("j1")
    assert before is not None
    after = replace(before, attempt=1, accepted=AcceptedRow(1, name_of("model", 1), (), 1.5))
    with pytest.raises(StoreError, match="changed what is known about the model"):
        begun.close_round("j1", void, after, 25.0)
    begun.close_round("j1", void, replace(before, attempt=1), 25.0)


def test_a_store_of_the_revision_before_goes_on(tmp_path: Path) -> None:
    """A job that is under way judges no models, and its next round is as due as it was."""
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        store.acquire_lease("me", 30.0)
        start(store)
        where = opening()
        store.open_round("j1", where, 20.0)
        done = record(where)
        store.close_round("j1", done, state(done), 21.0)
        before = store.state("j1")
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE states DROP COLUMN accepted_json")
        db.execute(f"UPDATE {migrations.TABLE} SET version_num = '0004'")
        db.commit()
    with Store.open(path) as store:
        assert store.state("j1") == before
        store.acquire_lease("me", 30.0)
        begun = store.open_round("j1", opening(1), 22.0)
        assert begun.cohort == COHORT
        done = record(begun)
        store.close_round("j1", done, state(done), 23.0)
        store.verify_events()
