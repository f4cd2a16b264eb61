"""Group commit for budgets: writers who come at one moment share one transaction.

    writer ──┐
    writer ──┼──► queue ──► the first takes all that wait, writes once, answers everybody;
    writer ──┘              who came meanwhile is the next group

A step that is refused leaves nothing behind and does not trouble the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from hansa.budget.entry import Key
from hansa.coordinator.budget_book import StoredBook
from hansa.coordinator.database import Database
from hansa.errors import HansaError, StoreError

Result = TypeVar("Result")

MOST = 256
"""Steps in one transaction, at most."""

Step = Callable[[Connection, StoredBook], Result]
"""What a writer does; it may run several times, and makes all its checks before its changes."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Result]):
    """A step, and the news that its writer waits for: that it is done, or that it leads."""

    step: Step[Result]
    keys: tuple[Key, ...]
    news: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    result: Any = None
    error: HansaError | None = None


class Group:
    """Transactions over the budgets of one database; safe to use from many threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[_Waiting[Any]] = []
        self._led = False
        self._lock = threading.Lock()

    def write(self, step: Step[Result], *keys: Key) -> Result:
        """Runs a step in a transaction, with others that wait; durable when this returns.

        Args:
          step: what is done.
          keys: the charges that it will look up, so that a group looks all of them up at once.

        Raises:
          HansaError: whatever the step raised, or the database cannot be written.
        """
        mine: _Waiting[Result] = _Waiting(step, keys)
        with self._lock:
            self._queue.append(mine)
            leads, self._led = not self._led, True
        if not leads:
            mine.news.wait()
        if not mine.done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        found: Result = mine.result
        return found

    def _lead(self) -> None:
        """Writes what waits, the leader's own step first, and hands the lead on."""
        with self._lock:
            group, self._queue = self._queue[:MOST], self._queue[MOST:]
        try:
            self._database.write(lambda connection: _run(connection, group))
        except StoreError as error:
            for one in group:
                one.error = StoreError(error.message, fix=error.fix)
        except BaseException as error:
            for one in group:
                one.error = StoreError(
                    f"the transaction was interrupted ({type(error).__name__})", fix="try again"
                )
            raise
        finally:
            with self._lock:
                following = self._queue[:1]
                self._led = bool(following)
            for one in group:
                one.done = True
            for one in (*following, *group):
                one.news.set()


def _run(connection: Connection, group: list[_Waiting[Any]]) -> None:
    book = StoredBook(connection)
    book.prefetch([key for one in group for key in one.keys])
    for one in group:
        one.result = one.error = None
        try:
            one.result = one.step(connection, book)
        except HansaError as error:
            one.error = error
    book.flush()
