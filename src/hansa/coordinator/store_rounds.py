"""Rounds: a state machine in which every step is one transaction.

    open_round ──► commit_fold* ──► close_round ──► closed, or void
         │              │               │
         │              │               └─ record, last members, metrics, next state, event
         │              └─ these members are durable from here on
         └─ the model is the head of the job's lineage; no other round of the job is open

A closed round is not opened again: whoever gathered it a second time would release it twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, insert, select, update

from hansa.coordinator import round_rules, schema, store_jobs
from hansa.coordinator.round_text import (
    accepted_of,
    accepted_text,
    number_of,
    number_text,
    record_of,
    record_text,
    rejection,
    summary,
)
from hansa.coordinator.rows import Fold, OpenRound, StateRow
from hansa.coordinator.store_events import Subject, append
from hansa.coordinator.store_standing import observe_round
from hansa.core import canonical
from hansa.core.contribute import Purpose
from hansa.core.round import Opening, RoundRecord
from hansa.defend.judge import Judged
from hansa.errors import StoreError


class Rounds(Subject):
    """The rounds of all jobs; only the coordinator that holds the lease changes them."""

    def open_round(self, job: str, opening: Opening, now: float) -> Opening:
        """Begins a round. If this very attempt is open already, returns how it was begun.

        Raises:
          StoreError: the job does not run, another round of it is open, this attempt is over, or
            its number or its model is not what follows.
        """

        def step(connection: Connection) -> Opening:
            stored = _find(connection, job, opening)
            if stored is not None:
                return round_rules.reopened(job, _opening(stored), stored.status, opening)
            row = store_jobs.get_running(connection, job)
            before = _state(connection, job)
            round_rules.check_follows(job, row.initial_sha256, before, opening)
            other = _open(connection, job)
            if other is not None:
                raise StoreError(
                    f"round {other.round}, attempt {other.attempt} of job '{job}' is still open",
                    fix="close it first",
                )
            connection.execute(
                insert(schema.rounds).values(
                    job=job,
                    purpose=opening.purpose.value,
                    round=opening.round,
                    attempt=opening.attempt,
                    status="open",
                    model_sha256=opening.model,
                    cohort_json=canonical.dumps(opening.cohort),
                    opened=now,
                    generation=0,
                    slot=0,
                    checksum="",
                )
            )
            body = {**_name(opening), "asked": len(opening.cohort), "model": opening.model}
            append(connection, job, "round.opened", body, now)
            return opening

        return self.database.write(step, leased=True)

    def current_round(self, job: str) -> OpenRound | None:
        """The open round of a job, if there is one."""
        row = self.database.read(lambda c: _open(c, job))
        return None if row is None else OpenRound(_opening(row), row.opened)

    def commit_fold(self, job: str, opening: Opening, fold: Fold) -> None:
        """From here on the fold's members are durable; committing it twice changes nothing.

        Args:
          job: whose round it is.
          opening: the round.
          fold: a sum that is on the disk, and the members that it adds to the fold before.

        Raises:
          StoreError: the round is not open, the generation does not grow, or a member is not in
            the cohort or was counted before.
        """

        def step(connection: Connection) -> None:
            row = _find(connection, job, opening)
            if row is None or row.status != "open":
                raise StoreError(
                    f"round {opening.round}, attempt {opening.attempt} of job '{job}' is not open",
                    fix="drop the sum; the round is over",
                )
            store_jobs.get_running(connection, job)
            before = _folded(connection, row)
            if before is not None and before.generation == fold.generation:
                round_rules.check_repeats(before, _joined(connection, row), fold)
                return
            round_rules.check_joins(_opening(row), before, fold)
            _write_fold(connection, row, before, fold)

        self.database.write(step, leased=True)

    def folded(self, job: str, opening: Opening) -> Fold | None:
        """The last durable sum of a round and everybody in it; None if nothing is durable.

        After the end of a round everybody who counted; then their sum lies nowhere any more.
        Only the purpose, round and attempt of `opening` are looked at.
        """

        def step(connection: Connection) -> Fold | None:
            row = _find(connection, job, opening)
            return None if row is None else _folded(connection, row)

        return self.database.read(step)

    def counted_since(self, job: str, client: str, number: int, attempt: int) -> str | None:
        """What a client sent that counts in the first round of training since one, or in it.

        Rounds are in the order of their numbers, and of their attempts.

        Returns:
          The receipt text of its fold, such as the SHA-256 of its update; None if it has not
          counted since.
        """
        table = schema.members
        since = (table.c.round > number) | (
            (table.c.round == number) & (table.c.attempt >= attempt)
        )
        theirs = (
            (table.c.job == job)
            & (table.c.purpose == Purpose.TRAIN.value)
            & (table.c.client == client)
        )
        query = select(table.c.receipt).where(theirs & since)
        first = query.order_by(table.c.round, table.c.attempt).limit(1)
        return self.database.read(lambda connection: connection.scalar(first))

    def close_round(
        self,
        job: str,
        record: RoundRecord,
        state: StateRow,
        now: float,
        receipts: Mapping[str, str] = MappingProxyType({}),
        seen: Judged | None = None,
    ) -> None:
        """Ends a round, void or not, and moves the job on, in one transaction.

        Closing a round again with the same record changes nothing; its seconds may differ.

        Args:
          job: whose round it is.
          record: what is known about the round.
          state: what the next round starts from; its blobs are durable already.
          now: when.
          receipts: as in a fold, by member. What members sent that are in no durable sum yet is in
            the state: they become durable with it.
          seen: what the round showed of its clients, where they have a standing.

        Raises:
          StoreError: the round was never opened or is over, its model is not the head of the
            job's lineage, its members are not the durable ones, or the state does not follow.
        """

        def step(connection: Connection) -> None:
            row = _find(connection, job, record)
            if row is None:
                raise round_rules.never_opened(job, record)
            if row.record_json is not None:
                round_rules.check_same(job, record_of(row.record_json), record)
                return
            store_jobs.get_running(connection, job)
            before = _state(connection, job)
            opening, fold = _opening(row), _folded(connection, row)
            durable = None if fold is None else fold.members
            last = round_rules.last_fold(opening, fold, receipts)
            if last is not None:
                _write_fold(connection, row, fold, last)
                durable = (*(durable or ()), *last.members)
            round_rules.check_record(job, opening, durable, record)
            round_rules.check_next(job, opening, before, record, state)
            _advance(connection, job, opening, before, state)
            members = canonical.digest(sorted(record.members))
            body = {**_name(opening), **summary(record), "members_sha256": members}
            kind = "round.void" if record.void else "round.closed"
            connection.execute(
                update(schema.rounds)
                .where(_here(schema.rounds, job, opening))
                .values(
                    status="void" if record.void else "closed",
                    closed=now,
                    closed_event=append(connection, job, kind, body, now),
                    members_sha256=members,
                    record_json=record_text(record),
                )
            )
            if record.rejected is not None:
                told = {**_name(opening), **rejection(record.rejected)}
                models = {"rejected": opening.model, "model": record.model}
                append(connection, job, "model.rejected", {**told, **models}, now)
            if seen is not None:
                observe_round(connection, job, seen, now)

        self.database.write(step, leased=True)

    def records(self, job: str) -> list[RoundRecord]:
        """The records of all rounds that ended, in the order in which they ended."""
        table = schema.rounds
        ended = (table.c.job == job) & table.c.record_json.is_not(None)
        query = select(table.c.record_json).where(ended).order_by(table.c.closed_event)
        return self.database.read(lambda c: [record_of(text) for text in c.scalars(query)])

    def last_record(self, job: str) -> RoundRecord | None:
        """The record of the round that ended last; None before one has."""
        table = schema.rounds
        ended = (table.c.job == job) & table.c.record_json.is_not(None)
        query = select(table.c.record_json).where(ended).order_by(table.c.closed_event.desc())
        text = self.database.read(lambda c: c.scalar(query.limit(1)))
        return None if text is None else record_of(text)

    def state(self, job: str) -> StateRow | None:
        """What the next round of a job starts from; None before its first round has ended."""
        return self.database.read(lambda c: _state(c, job))


def _name(opening: Opening) -> dict[str, object]:
    return {
        "purpose": opening.purpose.value,
        "round": opening.round,
        "attempt": opening.attempt,
    }


def _here(table: Table, job: str, which: Opening | RoundRecord) -> ColumnElement[bool]:
    return (
        (table.c.job == job)
        & (table.c.purpose == which.purpose.value)
        & (table.c.round == which.round)
        & (table.c.attempt == which.attempt)
    )


def _find(connection: Connection, job: str, which: Opening | RoundRecord) -> Row[Any] | None:
    query = select(schema.rounds).where(_here(schema.rounds, job, which))
    return connection.execute(query).one_or_none()


def _open(connection: Connection, job: str) -> Row[Any] | None:
    table = schema.rounds
    query = select(table).where((table.c.job == job) & (table.c.status == "open"))
    return connection.execute(query).one_or_none()


def _opening(row: Row[Any]) -> Opening:
    cohort = tuple(json.loads(row.cohort_json))
    return Opening(Purpose(row.purpose), row.round, row.attempt, cohort, row.model_sha256)


def _state(connection: Connection, job: str) -> StateRow | None:
    query = select(schema.states).where(schema.states.c.job == job)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return StateRow(
        row.round,
        row.attempt,
        row.model_sha256,
        tuple(json.loads(row.server_json)),
        number_of(row.best_json),
        row.stale,
        number_of(row.clip_json),
        accepted_of(row.accepted_json),
    )


def _advance(
    connection: Connection, job: str, opening: Opening, before: StateRow | None, after: StateRow
) -> None:
    """Compare-and-swap: replaces the head of the lineage that the round started from."""
    table = schema.states
    values = {
        "round": after.round,
        "attempt": after.attempt,
        "model_sha256": after.model_sha256,
        "server_json": canonical.dumps(after.server_sha256s),
        "best_json": number_text(after.best),
        "stale": after.stale,
        "clip_json": number_text(after.clip),
        "accepted_json": accepted_text(after.accepted),
    }
    if before is None:
        connection.execute(insert(table).values(job=job, **values))
        return
    head = (
        (table.c.job == job)
        & (table.c.model_sha256 == opening.model)
        & (table.c.round == opening.round)
        & (table.c.attempt == opening.attempt)
    )
    if connection.execute(update(table).where(head).values(**values)).rowcount != 1:
        raise round_rules.not_head(job, opening)


def _joined(connection: Connection, row: Row[Any]) -> frozenset[str]:
    """Clients that joined with the round's last fold."""
    table = schema.members
    last = _here(table, row.job, _opening(row)) & (table.c.generation == row.generation)
    return frozenset(connection.scalars(select(table.c.client).where(last)))


def _folded(connection: Connection, row: Row[Any]) -> Fold | None:
    if not row.generation:
        return None
    table = schema.members
    query = select(table.c.client, table.c.receipt).where(_here(table, row.job, _opening(row)))
    found = connection.execute(query.order_by(table.c.position)).all()
    receipts = tuple(member.receipt for member in found)
    fold = Fold(
        row.generation, row.slot, row.checksum, tuple(member.client for member in found), receipts
    )
    return fold if any(receipts) else replace(fold, receipts=())


def _write_fold(connection: Connection, row: Row[Any], before: Fold | None, fold: Fold) -> None:
    opening = _opening(row)
    first = 0 if before is None else len(before.members)
    receipts = fold.receipts or ("",) * len(fold.members)
    if fold.members:
        connection.execute(
            insert(schema.members),
            [
                {
                    "job": row.job,
                    **_name(opening),
                    "client": client,
                    "generation": fold.generation,
                    "position": first + place,
                    "receipt": receipt,
                }
                for place, (client, receipt) in enumerate(zip(fold.members, receipts, strict=True))
            ],
        )
    change = update(schema.rounds).where(_here(schema.rounds, row.job, opening))
    connection.execute(
        change.values(generation=fold.generation, slot=fold.slot, checksum=fold.checksum)
    )
