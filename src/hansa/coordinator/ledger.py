"""The privacy ledger of a job: append-only, hash-chained, spent before anything is released.

    reserve ──► commit          a reservation is never given back: a charge that may have been
                                released counts as released

A charge is one row per step. Rounds, attempts and purposes are its name, so that sending it again
is free and a retry with fresh noise is charged again. Where budgets across jobs cover the job, the
same transaction charges them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, select

from hansa.budget.entry import Key
from hansa.coordinator import chain, schema
from hansa.coordinator.budget import JobBudget
from hansa.coordinator.budget_book import StoredBook
from hansa.coordinator.rows import Head, LedgerRow
from hansa.coordinator.store import Store
from hansa.core import canonical, events
from hansa.core.events import NoOp
from hansa.core.round import Charge
from hansa.errors import BudgetExceeded, StoreError


@dataclass(frozen=True, slots=True)
class StoreLedger:
    """`core.round.Ledger` of one job over the store; safe to use from many threads.

    Attributes:
      store: where the entries are.
      job: whose budget it is.
      allowance: how many charges that cost privacy the job may make; charges that reveal nothing,
        or that promise nothing, are written down and do not count.
      now: seconds since the epoch, for the entries' times.
      budget: the blocks that the job holds, from `Budgets.decide`; None if it holds none.
    """

    store: Store = field(repr=False)
    job: str
    allowance: int
    now: Callable[[], float] = field(repr=False)
    budget: JobBudget | None = None

    def reserve(self, charge: Charge) -> None:
        """Sets a charge aside; a known charge changes nothing.

        Raises:
          BudgetExceeded: the allowance is used up; nothing was written.
          StoreError: the charge is another job's, or was reserved with another event.
        """
        self._check_job(charge)
        costs = self._costs(charge)

        def step(connection: Connection, book: StoredBook) -> None:
            if _known(connection, charge, "reserve"):
                return
            used = _used(connection, self.job)
            if _spends(charge) and used >= self.allowance:
                raise BudgetExceeded(
                    f"job '{self.job}' has used all {self.allowance} of its private releases",
                    fix="submit a job with a larger budget, if its data's owners agree",
                )
            self._check_held(book)
            if costs:
                book.reserve(_key(charge), charge.event, costs, self.now())
            _append(connection, charge, "reserve", self.now())

        self.store.budgets.write(step)

    def commit(self, charge: Charge) -> None:
        """Spends a reserved charge; when this returns, its release may begin.

        Raises:
          StoreError: it was not reserved, or was reserved with another event.
          HansaError: its job is over.
        """
        self._check_job(charge)

        def step(connection: Connection, book: StoredBook) -> None:
            if not _known(connection, charge, "reserve"):
                raise StoreError(
                    f"round {charge.round}, attempt {charge.attempt} of job '{self.job}' was not "
                    "reserved",
                    fix="reserve a charge before the first client is contacted",
                )
            if not _known(connection, charge, "commit"):
                self._check_held(book)
                if self.budget is not None and _spends(charge):
                    book.commit(_key(charge), self.now())
                _append(connection, charge, "commit", self.now())

        self.store.budgets.write(step)

    def used(self) -> int:
        """Charges that count against the allowance, reserved or committed."""
        return self.store.database.read(lambda c: _used(c, self.job))

    def entries(self) -> list[LedgerRow]:
        """All entries in order."""
        return self.store.database.read(lambda c: [_row(r) for r in c.execute(_all(self.job))])

    def head(self) -> Head:
        """Where the chain ends; whoever keeps it notices a ledger that was set back."""
        return self.store.database.read(lambda c: chain.head(c, _chain(self.job)))

    def verify(self, seen: Head | None = None) -> Head:
        """Recomputes the whole chain.

        Args:
          seen: a head that was handed out earlier and must still be in it.

        Raises:
          StoreError: an entry was changed, removed or added, or the ledger was set back.
        """
        return self.store.database.read(
            lambda c: chain.verify_stored(c, _chain(self.job), _all(self.job), _columns, seen)
        )

    def _costs(self, charge: Charge) -> Mapping[str, int]:
        """What the charge costs each block; counted before the transaction, for it takes time."""
        if self.budget is None or not self.budget.blocks or isinstance(charge.event, NoOp):
            return {}
        return self.budget.costs(charge.event)

    def _check_held(self, book: StoredBook) -> None:
        """Raises if the job holds blocks that this ledger would not charge."""
        if self.budget is None and book.positions(self.job):
            raise StoreError(
                f"job '{self.job}' draws from privacy budgets that its ledger does not know",
                fix="open the ledger with the budget that Budgets.decide gave",
            )

    def _check_job(self, charge: Charge) -> None:
        if charge.job != self.job:
            raise StoreError(
                f"a charge of job '{charge.job}' does not belong to the ledger of '{self.job}'",
                fix="charge the job's own ledger",
            )


def _key(charge: Charge) -> Key:
    return Key(charge.job, charge.purpose.value, charge.round, charge.attempt)


def _chain(job: str) -> str:
    return f"ledger/{job}"


def _spends(charge: Charge) -> bool:
    return events.is_private(charge.event) and not isinstance(charge.event, NoOp)


def _here(charge: Charge, kind: str) -> ColumnElement[bool]:
    table = schema.ledger
    return (
        (table.c.job == charge.job)
        & (table.c.purpose == charge.purpose.value)
        & (table.c.round == charge.round)
        & (table.c.attempt == charge.attempt)
        & (table.c.kind == kind)
    )


def _all(job: str) -> Select[Any]:
    return select(schema.ledger).where(schema.ledger.c.job == job).order_by(schema.ledger.c.seq)


def _used(connection: Connection, job: str) -> int:
    table = schema.ledger
    counts = (table.c.job == job) & (table.c.kind == "reserve") & table.c.spends
    return connection.scalar(select(func.count()).select_from(table).where(counts)) or 0


def _known(connection: Connection, charge: Charge, kind: str) -> bool:
    """Whether the charge took this step before; raises if its event was another one then."""
    row = connection.execute(select(schema.ledger.c.entry).where(_here(charge, kind))).one_or_none()
    if row is None:
        return False
    if json.loads(row.entry)["event"] != canonical.plain(charge.event):
        raise StoreError(
            f"round {charge.round}, attempt {charge.attempt} of job '{charge.job}' was charged for "
            "another event",
            fix="charge what the plan says; another release is another attempt",
        )
    return True


def _append(connection: Connection, charge: Charge, kind: str, now: float) -> None:
    columns = {
        "purpose": charge.purpose.value,
        "round": charge.round,
        "attempt": charge.attempt,
        "kind": kind,
        "spends": _spends(charge),
    }
    body = {**columns, "event": charge.event, "time": now}
    new, entry = chain.extend(connection, _chain(charge.job), body)
    connection.execute(
        insert(schema.ledger).values(
            job=charge.job, seq=new.seq, entry=entry, hash=new.hash, **columns
        )
    )


def _columns(row: Row[Any]) -> dict[str, object]:
    return {
        "purpose": row.purpose,
        "round": row.round,
        "attempt": row.attempt,
        "kind": row.kind,
        "spends": row.spends,
    }


def _row(row: Row[Any]) -> LedgerRow:
    said = json.loads(row.entry)
    return LedgerRow(
        seq=row.seq,
        kind=row.kind,
        purpose=row.purpose,
        round=row.round,
        attempt=row.attempt,
        event=said["event"],
        time=said["time"],
        hash=row.hash,
    )
