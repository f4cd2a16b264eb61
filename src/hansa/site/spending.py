"""What a site's own examples have cost over all jobs: a ledger that the site keeps and enforces.

By example, nobody but the site knows the rate and the noise that it trained with, so nobody else
can count it. `[budget]` in `site.toml` says what all jobs together may cost:

    offer ──► room for all its updates? ──► order ──► room? ──► train ──► charged ──► update leaves
                    │ no                                │ no
                    ▼                                   ▼
              job refused                         round declined

The charge is durable before the first byte leaves. Every update that leaves is charged anew: one
that is made again has fresh noise. A budget is fixed when it is first used; `budget.jsonl` is the
record, a hash chain like the site's log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from hansa.budget.block import ORDERS, Block
from hansa.budget.book import Book
from hansa.budget.cost import Need, micro_rdp, propose_order
from hansa.budget.entry import Entry, Key, Kind, entry_of
from hansa.budget.rules import Account
from hansa.core.canonical import Json
from hansa.core.events import Event
from hansa.core.plan import Plan
from hansa.errors import HansaError, PolicyRefused
from hansa.site.config import Budget
from hansa.site.logbook import Logbook, read
from hansa.work.dpsgd import RELATION, DpSgd

NAME = "budget.jsonl"


@dataclass(frozen=True, slots=True)
class Standing:
    """A site's budget as it stands.

    Attributes:
      block: its definition.
      account: its numbers, in micro-RDP.
      jobs: updates that left and were charged, by job.
    """

    block: Block
    account: Account
    jobs: Mapping[str, int]

    @property
    def epsilon(self) -> float:
        """What all charged updates together have cost one example, at the block's delta."""
        return self.block.epsilon_of(self.account.spent)

    @property
    def words(self) -> dict[str, Json]:
        """The standing as JSON."""
        return {
            **self.block.words,
            "epsilon_spent": self.epsilon,
            "capacity": self.account.capacity,
            "spent": self.account.spent,
            "free": self.account.free,
            "updates": sum(self.jobs.values()),
            "jobs": dict(self.jobs),
        }


@dataclass(frozen=True, slots=True)
class _Account:
    """One budget: its book, and how many updates of each job were charged to it.

    A book each, since a job that goes on under another budget holds nothing there yet.
    """

    book: Book = field(default_factory=Book)
    jobs: dict[str, int] = field(default_factory=dict)

    def post(self, entry: Entry) -> None:
        """Takes over an entry of the ledger."""
        self.book.post(entry)
        if entry.kind is Kind.RESERVE:
            self.jobs[entry.job] = self.jobs.get(entry.job, 0) + 1


def standings(folder: Path) -> tuple[Standing, ...]:
    """All budgets that a site's ledger knows, read without touching it.

    Raises:
      HansaError: the ledger does not hold together.
    """
    return tuple(
        Standing(of.book.blocks()[name], of.book.account(name), of.jobs)
        for name, of in _replayed(folder / NAME).items()
    )


class Spending:
    """The ledger of one site; safe to use from several threads.

    Args:
      folder: the site's folder.
      budget: `[budget]` of its `site.toml`.

    Raises:
      HansaError: the ledger does not hold together, or knows another budget of that name.
    """

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._budget = budget
        self._path = folder / NAME
        self._lock = threading.Lock()
        self._log = Logbook(self._path) if budget.epsilon else None
        accounts = _replayed(self._path)
        self._account = accounts.get(budget.name, _Account())
        if budget.epsilon:
            _check_same(budget, self._account, self._path)

    def admit(self, plan: Plan, examples: int, job: str) -> None:
        """Whether a job may begin, or go on, that trains on so many examples of this site.

        Args:
          plan: of the job.
          examples: how many it would train on.
          job: the job's identifier; what it has spent already need not fit again.

        Raises:
          HansaError: the plan is not for so few examples, or so many.
          PolicyRefused: the job counts nothing by example, or all its updates are more than what
            is left.
        """
        work = plan.parts.algorithm.work
        event = work.pace(examples).event if isinstance(work, DpSgd) else None
        if not self._budget.epsilon:
            return
        if event is None:
            raise PolicyRefused(
                f"this site's [budget] '{self._budget.name}' covers all that leaves, and the job "
                "counts nothing by example",
                fix='submit it with mechanism = "dpsgd" in [privacy], or let the site\'s owner '
                "remove [budget]",
            )
        self._check(event, max(plan.charges - self._account.jobs.get(job, 0), 0))

    def check(self, plan: Plan, examples: int) -> None:
        """Whether one more update may leave, before it is trained for.

        Raises:
          PolicyRefused: it costs more than what is left.
        """
        event = self._charged(plan, examples)
        if event is not None:
            self._check(event, 1)

    def take(self, plan: Plan, examples: int, job: str, purpose: str, number: int) -> None:
        """Charges an update for good, before it leaves.

        Args:
          plan: of the job.
          examples: how many it was trained on.
          job: the job's identifier.
          purpose: of the round.
          number: of the round.

        Raises:
          PolicyRefused: it costs more than what is left.
          StoreError: it cannot be written down, so nothing may leave.
        """
        event = self._charged(plan, examples)
        if event is None:
            return
        with self._lock:  # two jobs may be packed at the same time
            self._check(event, 1)
            block, account, now = self._block(event), self._account, time.time()
            count = account.jobs.get(job, 0)
            account.book.create(block, now)
            account.book.hold(job, {block.name: Need(0, 0, 0)}, now)
            key = Key(job, purpose, number, count)
            account.book.reserve(key, event, {block.name: _cost(event, block.order)}, now)
            account.book.commit(key, now)
            account.jobs[job] = count + 1
            self._write()

    def _charged(self, plan: Plan, examples: int) -> Event | None:
        """What one update tells of one example; None where nothing is charged."""
        work = plan.parts.algorithm.work
        if not self._budget.epsilon or not isinstance(work, DpSgd):
            return None
        return work.pace(examples).event

    def _check(self, event: Event, updates: int) -> None:
        block, book = self._block(event), self._account.book
        free = book.account(block.name).free if block.name in book.blocks() else block.capacity
        each = _cost(event, block.order)
        if each * updates > free:
            raise PolicyRefused(
                f"this site's [budget] '{block.name}' has room for {free // each:,} more such "
                f"updates, {updates:,} are asked for",
                fix="submit the job with fewer rounds or a smaller epsilon; what is spent stays "
                "spent, and `hansa site budget` at the site shows it",
            )

    def _block(self, event: Event) -> Block:
        """The budget; before its first use, with the order at which most of this event fit."""
        budget = self._budget
        known = self._account.book.blocks().get(budget.name)
        if known is not None:
            return known
        return _block(budget, budget.order or _order(event, budget.epsilon, budget.delta))

    def _write(self) -> None:
        """All that the book has done, in order; what a full disk refused comes first next time."""
        if self._log is None:
            raise RuntimeError("a site without a budget charges nothing")
        waiting = self._account.book.log
        while waiting:
            body: dict[str, Any] = waiting[0].body
            self._log.write(**body)
            del waiting[0]


def _replayed(path: Path) -> dict[str, _Account]:
    """What the ledger makes, by the names of its budgets."""
    accounts: dict[str, _Account] = {}
    for line in read(path):
        entry = entry_of(_body(line))
        accounts.setdefault(entry.block, _Account()).post(entry)
    return accounts


def _body(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("previous", "hash")}


def _block(budget: Budget, order: int) -> Block:
    return Block(
        name=budget.name,
        unit="example",
        relation=RELATION,
        epsilon=budget.epsilon,
        delta=budget.delta,
        order=order,
    )


def _check_same(budget: Budget, account: _Account, path: Path) -> None:
    """A budget never changes.

    Raises:
      HansaError: `site.toml` says another than the ledger, or an impossible one.
    """
    known = account.book.blocks().get(budget.name)
    if known is None:
        _block(budget, budget.order or ORDERS[-1])  # says what is impossible now, not in a round
    elif _block(budget, budget.order or known.order) != known:
        raise HansaError(
            f"[budget] in site.toml is not the budget '{known.name}' of {path}, which never "
            f"changes: unit example, epsilon {known.epsilon:g} at delta {known.delta:g}, order "
            f"{known.order}",
            fix="write those numbers again, or a new name for a budget of other data",
        )


@lru_cache(maxsize=128)
def _order(event: Event, epsilon: float, delta: float) -> int:
    return propose_order([event], epsilon, delta, RELATION)


@lru_cache(maxsize=1024)
def _cost(event: Event, order: int) -> int:
    return micro_rdp(event, order, RELATION)
