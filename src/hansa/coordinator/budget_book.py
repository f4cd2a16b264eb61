"""The book over the store's tables: reads what it is asked for, writes what was added."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, insert, select, text, update

from hansa.budget.block import Block, block_of
from hansa.budget.book import Book
from hansa.budget.entry import Key, Kind
from hansa.budget.rules import Account, Draw, Fate, Position
from hansa.coordinator import chain, schema
from hansa.core import canonical

CHAIN: Final = "budget"
"""The one chain over the entries of all blocks."""

GAP: Final = 16
"""How far apart rounds are, at most, that one statement looks up with all between them.

Reading a few entries in vain is faster than asking again.
"""

_FATES: Final = {
    Kind.RESERVE: Fate.RESERVED,
    Kind.COMMIT: Fate.COMMITTED,
    Kind.REFUND: Fate.REFUNDED,
}


class StoredBook(Book):
    """A book in one transaction; nothing is written before `flush`."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._loaded = False
        self._created: set[str] = set()

    def create(self, block: Block, now: float) -> None:
        """See `Book.create`."""
        if block.name not in self.blocks():
            self._created.add(block.name)
        super().create(block, now)

    def flush(self) -> None:
        """Writes the log to the chain, and the numbers that changed."""
        if not self.log:
            return
        _, links = chain.extend_all(self._connection, CHAIN, [entry.body for entry in self.log])
        self._write_numbers()
        self._connection.execute(
            insert(schema.budget_entries),
            [
                {
                    "seq": link.seq,
                    "job": entry.job,
                    "purpose": entry.purpose,
                    "round": entry.round,
                    "attempt": entry.attempt,
                    "block": entry.block,
                    "kind": entry.kind.value,
                    "urdp": entry.urdp,
                    "entry": link.entry,
                    "hash": link.hash,
                }
                for entry, link in zip(self.log, links, strict=True)
            ],
        )
        self.log.clear()
        self.changed.clear()
        self._created.clear()

    def _write_numbers(self) -> None:
        table = schema.budget_blocks
        new, old = [], []
        for name in sorted({block for block, _ in self.changed}):
            account = self._accounts[name]
            numbers = {
                "held": account.held,
                "reserved": account.reserved,
                "committed": account.committed,
            }
            if name in self._created:
                words = canonical.dumps(self._blocks[name].words)
                named = {"name": name, "block_json": words, "capacity": account.capacity}
                new.append({**named, **numbers})
            else:
                old.append({"which": name, **numbers})
        if new:
            self._connection.execute(insert(table), new)
        if old:
            change = update(table).where(table.c.name == bindparam("which"))
            self._connection.execute(change, old)
        self._write_positions()

    def _write_positions(self) -> None:
        held = {(entry.block, entry.job) for entry in self.log if entry.kind is Kind.HOLD}
        new, old = [], []
        for block, job in sorted(self.changed):
            if not job:
                continue
            position = self._positions[job][block]
            numbers = {
                "left": position.left,
                "reserved": position.reserved,
                "settled": position.settled,
            }
            if (block, job) in held:
                named = {"block": block, "job": job, "declared": position.declared}
                new.append({**named, **numbers})
            else:
                old.append({"of": job, "at": block, **numbers})
        table = schema.budget_positions
        if new:
            self._connection.execute(insert(table), new)
        if old:
            here = (table.c.job == bindparam("of")) & (table.c.block == bindparam("at"))
            self._connection.execute(update(table).where(here), old)

    # -------------------------------------------------------------- where it comes from

    def _find_blocks(self) -> tuple[dict[str, Block], dict[str, Account]]:
        if not self._loaded:
            self._loaded = True
            for row in self._connection.execute(select(schema.budget_blocks)):
                self._blocks[row.name] = block_of(json.loads(row.block_json))
                self._accounts[row.name] = account_of(row)
        return self._blocks, self._accounts

    def _find_positions(self, job: str) -> dict[str, Position]:
        if job not in self._positions:
            table = schema.budget_positions
            rows = self._connection.execute(select(table).where(table.c.job == job))
            self._positions[job] = {row.block: position_of(row) for row in rows}
        return self._positions[job]

    def prefetch(self, keys: Sequence[Key]) -> None:
        """Looks several charges up at once."""
        missing = {k for k in keys if k not in self._draws.get(k.job, {})}
        if not missing:
            return
        rounds: dict[tuple[str, str], set[int]] = {}
        for key in missing:
            rounds.setdefault((key.job, key.purpose), set()).add(key.round)
        plan_for_now(self._connection)
        found: dict[Key, list[Row[Any]]] = {key: [] for key in missing}
        for (job, purpose), numbers in rounds.items():
            for first, last in stretches(numbers):
                for row in self._connection.execute(charges(job, purpose, first, last)):
                    name = Key(job, purpose, row.round, row.attempt)
                    if name in found:
                        found[name].append(row)
        for key, rows in found.items():
            self._draws.setdefault(key.job, {})[key] = draws_of(rows)

    def _find_draws(self, key: Key) -> dict[str, Draw]:
        self.prefetch([key])
        return self._draws[key.job][key]


def plan_for_now(connection: Connection) -> None:
    """Has the statements of a transaction planned for the tables as they are.

    PostgreSQL keeps the plan of a statement that a connection sends often. One from when there were
    few entries reads all of them, and would go on to when there are a million.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))


def stretches(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The first and last of each run of numbers of which neighbours are at most `GAP` apart."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number - found[-1][1] <= GAP:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def charges(job: str, purpose: str, first: int, last: int) -> Select[Any]:
    """Entries about the charges of a job's rounds from the first to the last.

    A range, not a list of rounds: of a table without statistics PostgreSQL expects so few rows of
    one job that it does not look the rounds of a list up in the index, but reads the whole job. It
    plans a range in the same way whatever it knows, and the text is one for any number of rounds.
    """
    table = schema.budget_entries
    return (
        select(table)
        .where((table.c.job == job) & (table.c.purpose == purpose))
        .where((table.c.round >= first) & (table.c.round <= last))
        .where(table.c.kind.in_([kind.value for kind in _FATES]))
        .order_by(table.c.seq)
    )


def account_of(row: Row[Any]) -> Account:
    """A block's numbers."""
    return Account(row.capacity, row.held, row.reserved, row.committed)


def position_of(row: Row[Any]) -> Position:
    """A job's numbers at a block."""
    return Position(row.declared, row.left, row.reserved, row.settled)


def draws_of(rows: Iterable[Row[Any]]) -> dict[str, Draw]:
    """What became of one charge, from its entries in order, by block."""
    found: dict[str, Draw] = {}
    for row in rows:
        kind = Kind(row.kind)
        if kind is Kind.RESERVE:
            found[row.block] = Draw(row.urdp, json.loads(row.entry)["from_hold"])
        else:
            before = found[row.block]
            found[row.block] = Draw(before.urdp, before.from_hold, _FATES[kind])
    return found
