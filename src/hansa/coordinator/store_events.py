"""The audit trail: what happened, in order, in one hash chain for the whole store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from hansa.coordinator import chain, schema
from hansa.coordinator.database import Database
from hansa.coordinator.rows import EventRow, Head

CHAIN = "events"


def append(
    connection: Connection, job: str | None, kind: str, body: Mapping[str, object], now: float
) -> int:
    """Adds an event to the transaction; returns its place."""
    entry = {"job": job, "kind": kind, "body": body, "time": now}
    new, text = chain.extend(connection, CHAIN, entry)
    connection.execute(
        insert(schema.events).values(seq=new.seq, job=job, entry=text, hash=new.hash)
    )
    return new.seq


def storable(words: str) -> str:
    """Words of others as every database takes them: PostgreSQL has no place for a NUL."""
    return words.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Subject:
    """What the parts of the store have in common: the database."""

    def __init__(self, database: Database) -> None:
        self.database = database


class Events(Subject):
    """Events, read and written."""

    def append_event(
        self, job: str | None, kind: str, body: Mapping[str, object], now: float
    ) -> int:
        """Adds an event to the trail.

        Args:
          job: the job it is about; None for the federation.
          kind: what happened, such as `model.published`.
          body: the particulars, JSON; nothing of a single client's data.
          now: when.

        Returns:
          Its place in the trail.
        """
        return self.database.write(lambda c: append(c, job, kind, body, now))

    def events(self, job: str | None = None, after: int = 0) -> list[EventRow]:
        """Events in order, of one job or of all, from the one after place `after`."""
        query = select(schema.events).where(schema.events.c.seq > after)
        if job is not None:
            query = query.where(schema.events.c.job == job)
        query = query.order_by(schema.events.c.seq)
        return self.database.read(lambda c: [_event(row) for row in c.execute(query)])

    def events_head(self) -> Head:
        """Where the trail ends."""
        return self.database.read(lambda c: chain.head(c, CHAIN))

    def verify_events(self, seen: Head | None = None) -> Head:
        """Recomputes the trail's chain; `seen` is a head that must still be in it.

        Raises:
          StoreError: the trail was changed.
        """
        query = select(schema.events).order_by(schema.events.c.seq)
        return self.database.read(
            lambda c: chain.verify_stored(c, CHAIN, query, lambda row: {"job": row.job}, seen)
        )


def _event(row: Row[Any]) -> EventRow:
    said = json.loads(row.entry)
    return EventRow(row.seq, row.job, said["kind"], said["body"], said["time"], row.hash)
