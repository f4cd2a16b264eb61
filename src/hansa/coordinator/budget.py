"""Privacy budgets across jobs, in the store: one chain over the entries of all blocks.

Whoever writes does so in transactions that are serialisable, on SQLite and on PostgreSQL, so that
two coordinators or tools on one store cannot both have the last of a block.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, insert, select

from hansa.budget.block import Block, block_of
from hansa.budget.book import Book
from hansa.budget.cost import Need, cost_at, need
from hansa.budget.entry import Key, Kind, entry_of
from hansa.budget.rules import Account, Position
from hansa.budget.touching import NOT_COVERED, touched
from hansa.coordinator import chain, schema
from hansa.coordinator.budget_book import CHAIN, StoredBook, account_of, position_of
from hansa.coordinator.budget_group import Group, Result, Step
from hansa.coordinator.database import Database
from hansa.coordinator.rows import BudgetRow, Cosignature, Head
from hansa.coordinator.store_events import append
from hansa.core.events import Event
from hansa.errors import HansaError, Refused, StoreError

if TYPE_CHECKING:
    from hansa.core.plan import Plan

PAGE = 1000
"""Entries or digests that are read at once, at most."""


@dataclass(frozen=True, slots=True)
class JobBudget:
    """The blocks that one job holds.

    Attributes:
      job: its identifier.
      blocks: none, if no budget covers it.
    """

    job: str
    blocks: tuple[Block, ...]

    def costs(self, event: Event) -> dict[str, int]:
        """What an event costs each block, in micro-RDP."""
        return {block.name: cost_at(block, event) for block in self.blocks}


@dataclass(frozen=True, slots=True)
class Standing:
    """One block as it stands.

    Attributes:
      block: its definition.
      account: its numbers.
      last: what the last job that held it declared, or None.
      last_job: that job's identifier, or empty.
    """

    block: Block
    account: Account
    last: Need | None
    last_job: str


class Budgets:
    """All privacy budgets of a store; safe to use from many threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._group = Group(database)

    def write(self, step: Step[Result], *keys: Key) -> Result:
        """Runs a step in a transaction over the budgets; see `Group.write`."""
        return self._group.write(step, *keys)

    # -------------------------------------------------------------- commands

    def create(self, block: Block, now: float) -> None:
        """Adds a block; see `Book.create`.

        Raises:
          Refused: there is another block of that name, or it counts what only sites can count.
        """
        if block.unit == "example":
            raise Refused(
                "a budget by example would cover jobs whose noise and rates only their sites know",
                fix="let each site write a [budget] into its site.toml",
            )

        def step(connection: Connection, book: StoredBook) -> None:
            if block.name not in book.blocks():
                append(connection, None, "budget.created", block.words, now)
            book.create(block, now)

        self.write(step)

    def decide(
        self, job: str, plan: Plan, population: str, sites: Collection[str], now: float
    ) -> JobBudget:
        """Decides which blocks a job draws from, and takes its hold; once in the job's life.

        Blocks that are created later do not cover it.

        Args:
          job: its identifier.
          plan: of the job.
          population: name of the federation.
          sites: who takes part.
          now: when.

        Raises:
          BudgetExceeded: a block lacks room for all that the job declares; nothing is held.
          Refused: the job cannot be counted by a block that it touches.
        """
        while True:
            known = self._database.read(lambda c: _decided(c, StoredBook(c), job))
            if known is not None:
                return known
            blocks = self._database.read(lambda c: dict(StoredBook(c).blocks()))
            found = touched(blocks.values(), plan, population, sites)
            # Counting takes time, so it is not part of the transaction.
            needs = {block.name: need(plan, block.order) for block in found}

            def step(
                connection: Connection,
                book: StoredBook,
                needs: Mapping[str, Need] = needs,
            ) -> JobBudget | None:
                before = _decided(connection, book, job)
                if before is not None:
                    return before
                now_touched = touched(book.blocks().values(), plan, population, sites)
                if {block.name for block in now_touched} != needs.keys():
                    return None  # a block was created meanwhile: count again
                book.hold(job, needs, now)
                connection.execute(insert(schema.budget_jobs).values(job=job, decided=now))
                body: dict[str, Any] = {"blocks": {name: n.urdp for name, n in needs.items()}}
                if not needs:
                    body["note"] = NOT_COVERED
                append(connection, job, "job.budget", body, now)
                return JobBudget(job, now_touched)

            decided = self.write(step)
            if decided is not None:
                return decided

    def reserve(self, key: Key, event: Event, costs: Mapping[str, int], now: float) -> None:
        """Draws a charge; see `Book.reserve`. Rounds do it through their `StoreLedger`."""
        self.write(lambda _, book: book.reserve(key, event, costs, now), key)

    def commit(self, key: Key, now: float) -> None:
        """Spends a reservation; see `Book.commit`."""
        self.write(lambda _, book: book.commit(key, now), key)

    def refund(self, key: Key, statement: str, now: float) -> None:
        """Takes a reservation back; see `Book.refund`."""
        self.write(lambda _, book: book.refund(key, statement, now), key)

    def settle(self, job: str, now: float) -> None:
        """Ends a job; see `Book.settle`. `Store.set_status` does it when a job ends."""
        self.write(lambda _, book: book.settle(job, now))

    # -------------------------------------------------------------- reading

    def standings(self) -> list[Standing]:
        """All blocks as they stand, by name."""
        return self._database.read(lambda c: [_standing(c, row) for row in c.execute(_by_name())])

    def entries(
        self, block: str = "", job: str = "", after: int = 0, limit: int = PAGE
    ) -> list[BudgetRow]:
        """Entries in order, of one block or job or of all, from the one after place `after`."""
        table = schema.budget_entries
        query = select(table).where(table.c.seq > after).order_by(table.c.seq).limit(limit)
        for column, value in ((table.c.block, block), (table.c.job, job)):
            if value:
                query = query.where(column == value)
        return self._database.read(
            lambda c: [BudgetRow(row.seq, row.entry, row.hash) for row in c.execute(query)]
        )

    def head(self, connection: Connection | None = None) -> Head:
        """Where the chain ends, in the given transaction or now."""
        if connection is not None:
            return chain.head(connection, CHAIN)
        return self._database.read(lambda c: chain.head(c, CHAIN))

    def digests(self, after_seq: int, limit: int = PAGE) -> list[bytes]:
        """SHA-256 of each entry after a place, in order: what proves that a head extends another.

        Whoever holds the head at `after_seq` follows them with `chain.follow`.
        """
        rows = self.entries(after=after_seq, limit=limit)
        return [bytes.fromhex(chain.digest(row.entry)) for row in rows]

    def store_cosignatures(self, signed: Iterable[Cosignature]) -> list[str]:
        """Keeps sites' signatures over heads that they have seen; once for each site and place.

        The caller has verified the signatures.

        Returns:
          The sites that signed a head that is not in the chain; theirs are not kept.

        Raises:
          StoreError: a site is not known.
        """
        entries, table = schema.budget_entries, schema.budget_cosignatures

        def step(connection: Connection) -> list[str]:
            strange = []
            for one in signed:
                ends = select(entries.c.hash).where(entries.c.seq == one.seq)
                here = (table.c.site == one.site) & (table.c.seq == one.seq)
                if connection.scalar(ends) != one.hash:
                    strange.append(one.site)
                elif connection.execute(select(table.c.seq).where(here)).first() is None:
                    named = {name: getattr(one, name) for name in Cosignature.__slots__}
                    connection.execute(insert(table).values(**named))
            return strange

        return self._database.write(step)

    def cosignatures(self, after_seq: int = 0) -> list[Cosignature]:
        """What sites signed about heads after a place, in order."""
        table = schema.budget_cosignatures
        query = select(table).where(table.c.seq > after_seq).order_by(table.c.seq, table.c.site)
        return self._database.read(
            lambda c: [Cosignature(**row) for row in c.execute(query).mappings()]
        )

    def verify(self, seen: Head | None = None) -> Head:
        """Recomputes the chain, every rule of every entry, and the sums beside them.

        Args:
          seen: a head that was handed out earlier and must still be in the chain.

        Raises:
          StoreError: an entry was changed, removed or added, or the store was set back.
          HansaError: an entry breaks a rule.
        """
        return self._database.read(lambda c: _verified(c, seen))


def _by_name() -> Any:
    return select(schema.budget_blocks).order_by(schema.budget_blocks.c.name)


def _standing(connection: Connection, row: Row[Any]) -> Standing:
    table = schema.budget_entries
    query = (
        select(table.c.job, table.c.entry)
        .where((table.c.block == row.name) & (table.c.kind == Kind.HOLD.value))
        .order_by(table.c.seq.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    last = None
    if found is not None:
        said = json.loads(found.entry)
        last = Need(said["urdp"], said["each"], said["releases"])
    block = block_of(json.loads(row.block_json))
    return Standing(block, account_of(row), last, "" if found is None else found.job)


def _decided(connection: Connection, book: Book, job: str) -> JobBudget | None:
    table = schema.budget_jobs
    if connection.execute(select(table.c.job).where(table.c.job == job)).first() is None:
        return None
    blocks = book.blocks()
    return JobBudget(job, tuple(blocks[name] for name in sorted(book.positions(job))))


def _verified(connection: Connection, seen: Head | None) -> Head:
    book, table = Book(), schema.budget_entries
    head = chain.verify_stored(
        connection,
        CHAIN,
        select(table).order_by(table.c.seq),
        _columns,
        seen,
        lambda said: book.post(entry_of(said)),
    )
    found = StoredBook(connection)
    blocks = {row.name: row for row in connection.execute(select(schema.budget_blocks))}
    for name, block in book.blocks().items():
        stored = blocks.pop(name, None)
        if stored is None or found.blocks()[name] != block:
            raise _differs(name)
        if account_of(stored) != book.account(name):
            raise _differs(name)
    positions: dict[tuple[str, str], Position] = {
        (row.job, row.block): position_of(row)
        for row in connection.execute(select(schema.budget_positions))
    }
    if blocks or positions != book.all_positions():
        raise _differs(next(iter(blocks), "*"))
    return head


def _columns(row: Row[Any]) -> Mapping[str, object]:
    names = ("job", "purpose", "round", "attempt", "block", "kind", "urdp")
    said = row._mapping  # noqa: SLF001  # SQLAlchemy's public name for it
    return {name: said[name] for name in names}


def _differs(name: str) -> HansaError:
    return StoreError(
        f"the numbers of the privacy budget '{name}' are not those of its entries",
        fix="find out who changed the store; restore it from a copy whose chain is whole",
    )
