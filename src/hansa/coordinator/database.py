"""Transactions on SQLite and PostgreSQL that mean the same: in one order, durable, or not at all.

| what         | SQLite                              | PostgreSQL                               |
|--------------|-------------------------------------|------------------------------------------|
| a write      | BEGIN IMMEDIATE: one writer at once | SERIALIZABLE, repeated after a conflict  |
| a read       | a snapshot (WAL): waits for nobody  | REPEATABLE READ, read only               |
| durable      | synchronous=FULL                    | as the server is set: leave fsync on     |
| foreign keys | switched on                         | on                                       |

Within one process writes queue at a lock, which is fairer and faster than either database's own
way to wait.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from hansa.coordinator import schema
from hansa.coordinator.disk import explained, private_folder
from hansa.coordinator.rows import Lease
from hansa.errors import MissingExtra, StoreError

Result = TypeVar("Result")

BUSY = 15.0
"""Seconds that a writer waits for writers of other processes."""

RETRIES = 60
"""How often a write is repeated after a conflict with another process; about five seconds."""

_WRITES = "hansa_writes"
_UPGRADE = 0x68616E7361_00
_CONFLICTS = frozenset({"40001", "40P01"})  # serialisation failure, deadlock


class Database:
    """One database, for many threads.

    Attributes:
      engine: the connections.
      path: the file, for SQLite; None for PostgreSQL.
      lease: what this process holds as the coordinator of the store; None if it is not.
    """

    def __init__(self, url_or_path: str | Path) -> None:
        url = _url(url_or_path)
        self.name = url.render_as_string(hide_password=True)
        self.lease: Lease | None = None
        self._writing = threading.Lock()
        if url.get_backend_name() == "sqlite":
            self.path: Path | None = Path(url.database or "")
            self.engine = _sqlite(url, self.path)
            self._reader = self.engine
            self._writer = self.engine.execution_options(**{_WRITES: True})
        else:
            self.path = None
            self.engine = _postgres(url)
            self._reader = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._writer = self.engine.execution_options(isolation_level="SERIALIZABLE")

    def read(self, step: Callable[[Connection], Result]) -> Result:
        """Runs `step` on one snapshot of the store.

        Raises:
          StoreError: the database cannot be reached or read.
        """
        with self.explaining(), self._reader.connect() as connection, connection.begin():
            return step(connection)

    def write(self, step: Callable[[Connection], Result], *, leased: bool = False) -> Result:
        """Runs `step` in one transaction; when this returns, what it wrote is durable.

        Args:
          step: may run several times; it changes the database and nothing else.
          leased: whether only the coordinator that holds the lease may do this.

        Raises:
          StoreError: the database cannot be reached or written, or the lease is not held.
        """
        if leased and self.lease is None:
            raise StoreError(
                "this process is not the store's coordinator", fix="call acquire_lease first"
            )
        with self._writing, self.explaining():
            for attempt in range(RETRIES):
                try:
                    with self._writer.connect() as connection, connection.begin():
                        self._fence(connection)
                        return step(connection)
                except DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) not in _CONFLICTS:
                        raise
                time.sleep(random.uniform(0, 0.003 * 2 ** min(attempt, 6)))
        raise StoreError(
            f"a write met other writers {RETRIES} times in a row",
            fix="end other programs that write to the store",
        )

    @contextmanager
    def upgrading(self) -> Iterator[Connection]:
        """A transaction in which the schema may change, one process at a time."""
        with self._writing, self.explaining():
            engine = self._writer if self.path else self.engine
            with engine.connect() as connection, connection.begin():
                if self.path is None:
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE}
                    )
                yield connection

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turns an error of the database into one that says what to do.

        Raises:
          StoreError: instead of any SQLAlchemyError.
        """
        try:
            yield
        except SQLAlchemyError as error:
            said = str(getattr(error, "orig", None) or error).strip().splitlines()
            raise StoreError(
                f"the store '{self.name}' failed: {said[0] if said else type(error).__name__}",
                fix=_fix(" ".join(said)),
            ) from error

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()

    def _fence(self, connection: Connection) -> None:
        """Refuses the writes of a coordinator that another one has taken over from."""
        if self.lease is None:
            return
        current = connection.scalar(select(schema.lease.c.epoch).with_for_update(read=True))
        if current != self.lease.epoch:
            raise StoreError(
                f"another coordinator has taken this store over (epoch {current} follows "
                f"{self.lease.epoch})",
                fix="stop this coordinator; the other one goes on with its work",
            )


def _url(url_or_path: str | Path) -> URL:
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        return URL.create("sqlite", database=str(Path(url_or_path).absolute()))
    try:
        url = make_url(url_or_path)
    except ArgumentError as error:
        raise StoreError(
            "the store's URL cannot be read",
            fix="write postgresql://USER:PASSWORD@HOST/DATABASE, or the path of a file",
        ) from error
    backend = url.get_backend_name()
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or url.database in (None, "", ":memory:"):
        raise StoreError(
            f"a store cannot be kept in '{url.render_as_string(hide_password=True)}'",
            fix="write postgresql://USER:PASSWORD@HOST/DATABASE, or the path of a file",
        )
    return URL.create("sqlite", database=str(Path(url.database or "").absolute()))


def _sqlite(url: URL, path: Path) -> Engine:
    private_folder(path.parent)
    with explained(f"the store '{path}' cannot be made", path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY})

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin where `begun` says, not at a write
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Switches the log on. SQLite does not wait for others here, as it does for a write."""
    ends = time.monotonic() + BUSY
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
            time.sleep(0.01)
        else:
            return


def _postgres(url: URL) -> Engine:
    try:
        return create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5, "application_name": "hansa"},
        )
    except ModuleNotFoundError as error:
        raise MissingExtra("psycopg", "postgres", "a store on PostgreSQL") from error


def _fix(said: str) -> str:
    if "full" in said or "No space" in said:
        return "free or add disk space; nothing was half written"
    if "locked" in said:
        return "end the program that keeps the store locked"
    if "malformed" in said or "not a database" in said:
        return "restore the store from a backup"
    if "readonly" in said or "permission denied" in said or "unable to open" in said:
        return "let the coordinator's user read and write the store"
    return "check that the database runs and that its address and password are right"
