"""One coordinator per store: a lock that dies with its process, and epochs that fence off the past.

The lock refuses a second live coordinator and is free the moment the first is gone, however it
went: an advisory lock on a file beside the SQLite store, a session's advisory lock in PostgreSQL.
The epoch refuses the late writes of a coordinator that lost its lock without noticing.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, insert, select, text, update

from hansa.coordinator import schema
from hansa.coordinator.database import Database
from hansa.coordinator.disk import explained
from hansa.coordinator.rows import Lease
from hansa.errors import StoreError

PATIENCE = 1.0
"""Seconds in which the lock of a process that was just killed becomes free."""

_KEY = 0x68616E7361_01
_STEP = 0.05


class Lock(Protocol):
    """A lock that its holder's death releases."""

    def take(self) -> bool:
        """Whether the lock is held now; waits for nobody."""

    def release(self) -> None:
        """Lets others have it; harmless if it is not held."""


class FileLock:
    """An exclusive lock on a file, for stores on this machine's own disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def take(self) -> bool:
        """See `Lock`."""
        with explained(f"the lock '{self._path}' cannot be taken", self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """See `Lock`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class SessionLock:
    """An advisory lock of a PostgreSQL session of its own.

    The server ends the session when the process dies, and after `ttl` seconds of silence when the
    machine or the network does.
    """

    def __init__(self, database: Database, ttl: float) -> None:
        self._database = database
        self._ttl = ttl
        self._connection: Connection | None = None

    def take(self) -> bool:
        """See `Lock`."""
        with self._database.explaining():
            if self._connection is None:
                self._connection = self._connected()
            query = text("SELECT pg_try_advisory_lock(:key)")
            return bool(self._connection.scalar(query, {"key": _KEY}))

    def release(self) -> None:
        """See `Lock`."""
        if self._connection is not None:
            self._connection.invalidate()  # ends the session, and the lock with it
            self._connection.close()
        self._connection = None

    def _connected(self) -> Connection:
        """A session that is taken from the pool for good: the lock lives as long as it does."""
        engine = self._database.engine.execution_options(isolation_level="AUTOCOMMIT")
        connection = engine.connect()
        probe = max(1, round(self._ttl / 4))
        for name, value in (("idle", probe), ("interval", probe), ("count", 3)):
            connection.execute(
                text("SELECT set_config(:name, :value, false)"),
                {"name": f"tcp_keepalives_{name}", "value": str(value)},
            )
        return connection


def lock_of(database: Database, ttl: float) -> Lock:
    """The lock that belongs to a store."""
    if database.path is None:
        return SessionLock(database, ttl)
    return FileLock(database.path.with_name(database.path.name + ".lock"))


def acquire(database: Database, lock: Lock, owner: str) -> Lease:
    """Takes the lock and the next epoch.

    Raises:
      StoreError: another live coordinator has them.
    """
    for _ in range(round(PATIENCE / _STEP)):
        if lock.take():
            break
        time.sleep(_STEP)
    else:
        lock.release()
        raise StoreError(
            f"another coordinator is running on this store: {_holder(database)}",
            fix="stop it first, or give this coordinator a store of its own",
        )
    try:
        return database.write(lambda connection: _next(connection, owner))
    except BaseException:
        lock.release()
        raise


def _next(connection: Connection, owner: str) -> Lease:
    last = connection.scalar(select(schema.lease.c.epoch))
    values = {"owner": owner, "epoch": (last or 0) + 1}
    change = insert(schema.lease).values(id=1) if last is None else update(schema.lease)
    connection.execute(change.values(**values))
    return Lease(owner, (last or 0) + 1)


def _holder(database: Database) -> str:
    owner = database.read(lambda connection: connection.scalar(select(schema.lease.c.owner)))
    return owner or "one that is just starting"
