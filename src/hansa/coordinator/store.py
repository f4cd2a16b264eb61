"""The coordinator's durable state: one object over SQLite or PostgreSQL.

Every method is one transaction and is safe to call from many threads; a method that has returned
is durable. Times come from the caller. What the methods are about is in the base classes.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from hansa.coordinator import lease, migrations
from hansa.coordinator.budget import Budgets
from hansa.coordinator.database import Database
from hansa.coordinator.rows import Lease
from hansa.coordinator.store_events import Events
from hansa.coordinator.store_jobs import Jobs
from hansa.coordinator.store_rounds import Rounds
from hansa.coordinator.store_sites import Sites
from hansa.coordinator.store_standing import StandingRows


class Store(Sites, Jobs, Rounds, StandingRows, Events):
    """Sites, jobs, rounds, standings and the audit trail; ledgers are `StoreLedger`s over it.

    Attributes:
      budgets: privacy budgets across jobs.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.budgets = Budgets(database)
        self._acquiring = threading.Lock()
        self._lock: lease.Lock | None = None

    @classmethod
    def open(cls, url_or_path: str | Path) -> Store:
        """Opens a store, makes it if it is missing, and brings its schema to the newest revision.

        Args:
          url_or_path: the path of a SQLite file, or `postgresql://USER:PASSWORD@HOST/DATABASE`.

        Raises:
          StoreError: it cannot be reached, or a newer version of Hansa has used it.
          MissingExtra: it is on PostgreSQL and psycopg is not installed.
        """
        database = Database(url_or_path)
        try:
            migrations.upgrade(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def acquire_lease(self, owner: str, ttl: float) -> Lease:
        """Becomes the one coordinator of this store, until `close` or the end of the process.

        Args:
          owner: who this is, for the message that a second coordinator is shown.
          ttl: seconds after which a coordinator whose machine or network is gone without a word
            loses a lease on PostgreSQL. A process that ends, however, loses it at once.

        Raises:
          StoreError: another live coordinator has it.
        """
        with self._acquiring:
            if self.database.lease is None:
                lock = lease.lock_of(self.database, ttl)
                self.database.lease = lease.acquire(self.database, lock, owner)
                self._lock = lock
            return self.database.lease

    def close(self) -> None:
        """Gives the lease and the connections back."""
        with self._acquiring:
            if self._lock is not None:
                self._lock.release()
            self._lock = self.database.lease = None
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
