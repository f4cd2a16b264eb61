"""The privacy statement of a job at this coordinator: of its plan, and of what it has released."""

from __future__ import annotations

import time

from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.rows import JobRow
from hansa.coordinator.store import Store
from hansa.coordinator.submission import plan_of
from hansa.core import events
from hansa.core.contribute import Purpose
from hansa.privacy.statement import Spent, Statement, statement_of


def statement_of_job(store: Store, job: str) -> Statement:
    """The statement, with the charges and the released rounds as they are now.

    Raises:
      StoreError: there is no such job.
      DigestMismatch: this version of Hansa compiles another plan than the one that was approved.
    """
    row = store.job(job)
    return statement_of(plan_of(row), ledger=spent_of(store, row))


def spent_of(store: Store, row: JobRow) -> Spent:
    """What the ledger and the records of a job say.

    A charge counts from the moment it is set aside: it may have been released, whatever came of
    its round.
    """
    ledger = StoreLedger(store, row.id, 0, time.time)
    entries, records = ledger.entries(), store.records(row.id)
    counted = [record.purpose for record in records if not record.void]
    return Spent(
        run=row.id,
        charges=tuple(events.of_json(e.event) for e in entries if e.kind == "reserve"),
        rounds=counted.count(Purpose.TRAIN),
        measurements=counted.count(Purpose.EVALUATE),
        head=entries[-1].hash if entries else "",
        entries=len(entries),
        final=row.status.final,
    )
