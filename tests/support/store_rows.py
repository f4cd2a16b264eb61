"""Rows for tests of the store: valid ones, to be changed where a test needs it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete

from hansa.coordinator.rows import Fold, Invite, JobRow, StateRow, Status
from hansa.coordinator.schema import metadata
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.parts import Dropout
from hansa.core.round import Opening, RoundRecord

COHORT = ("bremen", "kiel", "lund", "riga")


def name_of(*words: object) -> str:
    """A SHA-256 that stands for something."""
    return hashlib.sha256(repr(words).encode()).hexdigest()


INITIAL = name_of("initial")


def invite(site: str = "kiel", **changes: Any) -> Invite:
    """An invite that is good from 100 to 200."""
    row = Invite(name_of("token", site), site, "Uni Kiel", "site", 100.0, 200.0, name_of("ca"))
    return replace(row, **changes)


def job(identifier: str = "j1", **changes: Any) -> JobRow:
    """A job that was just submitted."""
    row = JobRow(
        id=identifier,
        name="heart",
        created=10.0,
        status=Status.SUBMITTED,
        words_json='{"name":"heart"}',
        facts_json="{}",
        plan_digest=name_of("plan"),
        bundle_sha256=name_of("bundle"),
        initial_sha256=INITIAL,
    )
    return replace(row, **changes)


def start(store: Store, identifier: str = "j1", **changes: Any) -> str:
    """A job that runs."""
    store.add_job(job(identifier, **changes))
    store.set_status(identifier, Status.OFFERED, "", 11.0)
    store.set_status(identifier, Status.RUNNING, "", 12.0)
    return identifier


def opening(number: int = 0, attempt: int = 0, **changes: Any) -> Opening:
    """The opening of a training round that starts from the model of the round before."""
    model = INITIAL if number == 0 else name_of("model", number)
    return replace(Opening(Purpose.TRAIN, number, attempt, COHORT, model), **changes)


def fold(generation: int, *members: str, **changes: Any) -> Fold:
    """A durable sum that adds members."""
    receipts = tuple(name_of("update", member) for member in members)
    row = Fold(generation, generation % 2, name_of("sum", generation), members, receipts)
    return replace(row, **changes)


def record(of: Opening, members: tuple[str, ...] = COHORT, **changes: Any) -> RoundRecord:
    """The record of a round; void without members."""
    void = not members
    train = of.purpose is Purpose.TRAIN
    row = RoundRecord(
        purpose=of.purpose,
        round=of.round,
        attempt=of.attempt,
        cohort=of.cohort,
        members=members,
        dropouts=tuple(Dropout(c, "late") for c in of.cohort if c not in members),
        void=void,
        metrics={} if void else {"loss": 0.1 + 0.2, "auroc": None},
        seconds=1.25,
        model=of.model if void or not train else name_of("model", of.round + 1),
    )
    return replace(row, **changes)


def state(after: RoundRecord, **changes: Any) -> StateRow:
    """What follows a round."""
    if after.void:
        number, attempt = after.round, after.attempt + 1
    else:
        number, attempt = after.round + (after.purpose is Purpose.TRAIN), 0
    row = StateRow(number, attempt, after.model, (name_of("momentum"),), None, 0)
    return replace(row, **changes)


def run_round(store: Store, identifier: str, number: int, attempt: int = 0) -> RoundRecord:
    """One whole round with everybody in it."""
    begun = store.open_round(identifier, opening(number, attempt), 20.0)
    store.commit_fold(identifier, begun, fold(1, *COHORT))
    done = record(begun)
    store.close_round(identifier, done, state(done), 21.0)
    return done


def empty(connection: Connection) -> None:
    """Deletes every row of a store: much faster than a database for each test."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(delete(table))
