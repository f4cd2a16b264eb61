"""Receiving the updates of one open round: bound, check, fold, make durable, answer.

    header ──► known round? already durable? ──► wait for a buffer ──► bytes, hash ──► fold
                                │ yes                                                   │
                                ▼                                                       ▼
                             receipt  ◄── store transaction ◄── sync ◄── write ◄── group commit
                                ▲                                                       │
                                └──────────────── the round is closed ◄─────────────────┘

A receipt is given only when the update is inside a durable sum, or inside the durable result of its
round. Several updates share one commit; while the disk refuses, receipts wait.
Individual updates are never written to disk. Rules that need every update (a median) have no sum
to make durable: their receipts are given when the round is closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hansa.aggregators.linear import Mean
from hansa.coordinator.accumulator import DurableAccumulator
from hansa.coordinator.buffers import Buffers
from hansa.coordinator.incoming import Header, incoming, uninterrupted
from hansa.coordinator.rows import Fold as FoldRow
from hansa.coordinator.rows import Slot
from hansa.coordinator.spare import Spare
from hansa.coordinator.store import Store
from hansa.core.contribute import Fold, RoundTask
from hansa.core.parts import Dropout, Partial, Update
from hansa.core.round import Opening
from hansa.engines.goal import NOT_NEEDED, too_late
from hansa.errors import HansaError, RoundVoid, StoreError, UpdateRejected
from hansa.memory import trim
from hansa.wire.vectors import Encoding

PATIENCE = 5.0
"""Longest time in seconds that a folded update waits for others to share its commit.

It is also what sites may have to send again after a crash. A round that ends before needs no
durable sum: its end makes the result durable."""

FEWEST = 2
"""Updates that share a commit at least: one alone in a sum, or in the difference of two, would be
an individual update on the disk."""

TRIES = 3
"""How often a site may send a broken update in one round."""

NOTHING = Partial(None, ())
"""What is left of a sum that was handed over."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counted:
    """An update that is folded, and the moment at which the sum that holds it is durable."""

    sha256: str
    durable: asyncio.Future[None]


class Folding(Protocol):
    """What takes an update in: the sum of a plan, or of a step of secure aggregation."""

    @property
    def aggregator(self) -> Any:
        """What adds; `linear` says that it keeps no update."""

    def zero(self) -> Partial:
        """No updates yet."""

    def add(self, partial: Partial, client: str, update: Update) -> Partial:
        """Checks one update and adds it; `partial` is consumed.

        Raises:
          UpdateRejected: the update breaks its contract.
        """


class Intake:
    """The updates of one open round, from the first header to the last receipt.

    Lives in the event loop; arithmetic and disk run in threads, one fold at a time.

    Args:
      job: identifier of the job.
      task: the round.
      opening: how it was begun.
      store: durable state.
      accumulator: durable sums of the job.
      buffers: memory for updates.
      spare: memory for sums.
      fold: what adds; that of the plan if it is left out.
      limit: most updates that are added; 0 = the whole cohort.
    """

    def __init__(
        self,
        job: str,
        task: RoundTask,
        opening: Opening,
        *,
        store: Store,
        accumulator: DurableAccumulator,
        buffers: Buffers,
        spare: Spare,
        fold: Folding | None = None,
        limit: int = 0,
    ) -> None:
        self._limit = limit or len(opening.cohort)
        self.job = job
        self.task = task
        self.opening = opening
        self._store = store
        self._accumulator = accumulator
        self._buffers = buffers
        self._spare = spare
        self._fold: Folding = Fold.of(task) if fold is None else fold
        self._encoding = Encoding.of(task.plan.facts)
        self._partial = self._fold.zero()
        self._counted: dict[str, Counted] = {}
        self._dropouts: dict[str, str] = {}
        self._broken: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._generation = 0
        self._kept: Slot | None = None
        self._unsure: tuple[FoldRow, tuple[Counted, ...]] | None = None
        self._closed = False
        self._folding = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def awaited(self) -> frozenset[str]:
        """Clients of the cohort that have neither delivered nor dropped out."""
        return frozenset(self.opening.cohort) - self._counted.keys() - self._dropouts.keys()

    @property
    def taking(self) -> bool:
        """Whether one more update would be added."""
        return not self._closed and len(self._counted) < self._limit

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each update that is folded, by its client."""
        return {site: counted.sha256 for site, counted in self._counted.items()}

    async def load(self) -> None:
        """Goes on from the durable sum that an earlier process left; without one, from zero."""
        aggregator = self._fold.aggregator
        if not isinstance(aggregator, Mean):
            return
        row = await asyncio.to_thread(self._store.folded, self.job, self.opening)
        if row is None:
            zeros = await asyncio.to_thread(self._spare.zeros_like, self._partial.value)
            self._partial = Partial(zeros, ())
            return
        content = await asyncio.to_thread(self._accumulator.read, row.place)
        self._partial = aggregator.load(
            content, row.members, self.task.layout, self.task.plan.facts
        )
        self._generation, self._kept = row.generation, row.place
        for member, update_sha256 in zip(row.members, row.receipts, strict=True):
            self._counted[member] = Counted(update_sha256, _done())

    # -------------------------------------------------------------- one site's update

    async def deliver(self, site: str, header: Header, parts: AsyncIterator[memoryview]) -> None:
        """Returns when the site's update is inside a durable sum; sending it twice is harmless.

        Args:
          site: who sends.
          header: what it announced.
          parts: the bytes; asked for only when there is memory for them.

        Raises:
          RoundVoid: the round is over, or was never the site's.
          UpdateRejected: the update broke its contract; it does not count.
          StoreError: the sum could not be made durable.
        """
        self.check(site, header)
        async with self._turns.setdefault(site, asyncio.Lock()):  # one transfer of a site at once
            if site not in self._counted:
                try:
                    await self._receive(site, header, parts)
                except UpdateRejected as error:
                    self.count_broken(site, error)
                    raise
        await self.durable(site, header.sha256)

    async def durable(self, site: str, sha256: str) -> None:
        """Returns when the update of a site, which is added already, is in a durable sum.

        Raises:
          RoundVoid: another one of the site is added.
          StoreError: the sum could not be made durable.
        """
        counted = self._counted[site]
        check_same(site, sha256, counted.sha256)
        await asyncio.shield(counted.durable)

    def decline(self, site: str, reason: str) -> None:
        """A site says that it cannot do the work."""
        if site in self.awaited:
            self._dropouts[site] = reason
            self._changed.set()

    def check(self, site: str, header: Header) -> None:
        """Whether an update may come in, by its announcement.

        Raises:
          RoundVoid: the round was never the site's, or it dropped out.
          UpdateRejected: another size or plan is announced; three times, and it drops out.
        """
        if site not in self.opening.cohort:
            raise RoundVoid(
                f"site '{site}' is not in the cohort of this round",
                fix="wait for work; the coordinator pushes it",
            )
        self._check_awaited(site)
        expected = Header(
            self.task.plan.digest,
            self.task.layout.digest,
            self._encoding.size(self.task.layout),
            header.sha256,
        )
        for what in ("plan_digest", "layout_digest", "size"):
            if getattr(header, what) != getattr(expected, what):
                error = UpdateRejected(
                    f"the update of '{site}' has another {what.replace('_', ' ')} than the plan",
                    fix="let the site compile the same job again; one of both runs another version",
                )
                self.count_broken(site, error)
                raise error

    def _check_awaited(self, site: str) -> None:
        if site in self._dropouts:
            raise RoundVoid(
                f"site '{site}' dropped out of this round: {self._dropouts[site]}",
                fix="wait for the next round",
            )

    async def _receive(self, site: str, header: Header, parts: AsyncIterator[memoryview]) -> None:
        async with incoming(self._buffers, site, header, parts, self._check_open) as buffer:
            # The memory belongs to this update until the fold has ended, even if the site is gone.
            await uninterrupted(self.add(site, buffer, header.sha256))

    async def add(self, site: str, buffer: memoryview, sha256: str, weight: float = 1.0) -> None:
        """Checks and adds an update, its delta times `weight`.

        Raises:
          RoundVoid: the round is over, or as many are added as may be.
          UpdateRejected: the update broke its contract.
        """
        vector = self._encoding.read(buffer)
        if not self._fold.aggregator.linear:
            vector = vector.copy()  # it is kept until the round is closed, the buffer is not
        async with self._folding:
            self._check_open()
            self._check_awaited(site)  # it may have declined while it was sending
            fold, update = self._fold, Update(vector, self.task.layout)
            if weight != 1 and isinstance(fold, Fold):
                fold = replace(fold, weight=weight)
            self._partial = await asyncio.to_thread(fold.add, self._partial, site, update)
            durable = asyncio.get_running_loop().create_future()
            self._counted[site] = Counted(sha256, durable)
            self._changed.set()

    def _check_open(self) -> None:
        if not self.taking:
            raise _over()

    def count_broken(self, site: str, error: UpdateRejected) -> None:
        """A site sent what it should not; who does that again and again drops out."""
        _log.warning("update rejected: %s", error.message)
        self._broken[site] = self._broken.get(site, 0) + 1
        if self._broken[site] >= TRIES:
            self.decline(site, error.message)

    # -------------------------------------------------------------- the whole round

    async def complete(
        self, goal: int, seconds: float, *, patient: bool = False
    ) -> tuple[Partial, Sequence[Dropout]]:
        """Waits for `goal` updates, for everybody to be accounted for, or for the deadline.

        Args:
          goal: updates that are enough.
          seconds: how long to wait.
          patient: the time begins anew with each update, and who is still at work drops out of
            nothing.

        Returns:
          The partial and everybody who is not in it. It need not be durable: the end of the round
          is what makes its last members durable.
        """
        committer = asyncio.create_task(self._commit_in_groups())
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(seconds) as limit:
                while self.awaited and len(self._counted) < goal:
                    self._changed.clear()
                    await self._changed.wait()
                    if patient:
                        limit.reschedule(now() + seconds)
            late = NOT_NEEDED
        except TimeoutError:
            late = too_late(seconds)
        finally:
            self._closed = True
            committer.cancel()
            await asyncio.wait([committer])
        async with self._folding:  # what is being added still counts
            reasons = dict.fromkeys(() if patient else self.awaited, late) | self._dropouts
            partial, self._partial = self._partial, NOTHING  # the sum is the caller's alone
        await asyncio.to_thread(trim)  # what transfers left free; a new model takes its place
        liars = {site for site, times in self._broken.items() if times >= TRIES}
        return partial, [
            Dropout(site, why, refused=site in liars and site in self._dropouts)
            for site, why in sorted(reasons.items())
        ]

    def answer(self) -> None:
        """The round is closed durably: whoever still waits gets a receipt."""
        for counted in self._counted.values():
            if not counted.durable.done():
                counted.durable.set_result(None)

    def give_up(self, error: HansaError) -> None:
        """The round will never be closed: whoever still waits is told why."""
        for counted in self._counted.values():
            if not counted.durable.done():
                counted.durable.set_exception(error)
                counted.durable.exception()  # nobody may be waiting

    async def _commit_in_groups(self) -> None:
        """Commits now and then what is not durable yet."""
        wait = PATIENCE
        while True:
            await asyncio.sleep(wait)
            started = time.monotonic()
            try:
                await uninterrupted(self._commit())
            except StoreError as error:
                _log.error("the sum of the round is not durable yet: %s", error)
            wait = max(PATIENCE, 4 * (time.monotonic() - started))

    async def _commit(self) -> None:
        aggregator = self._fold.aggregator
        if not isinstance(aggregator, Mean):
            return
        if self._unsure is not None:
            await self._record(*self._unsure)
        async with self._folding:
            new = {s: c for s, c in self._counted.items() if not c.durable.done()}
            if len(new) < FEWEST:
                return
            self._generation += 1
            draft = await asyncio.to_thread(
                self._accumulator.write,
                aggregator.dump(self._partial),
                self._generation,
                self._kept,
            )
        slot = await asyncio.to_thread(self._accumulator.sync, draft)
        row = FoldRow(
            generation=slot.generation,
            slot=slot.slot,
            checksum=slot.checksum,
            members=tuple(new),
            receipts=tuple(counted.sha256 for counted in new.values()),
        )
        await self._record(row, tuple(new.values()))

    async def _record(self, row: FoldRow, new: tuple[Counted, ...]) -> None:
        """The store's transaction.

        One that failed may have happened all the same, and then its slot holds the only durable
        sum: the very same is repeated, which changes nothing, before anything else is written.
        """
        self._unsure = row, new
        await asyncio.to_thread(self._store.commit_fold, self.job, self.opening, row)
        self._unsure, self._kept = None, row.place
        for counted in new:
            counted.durable.set_result(None)


def check_same(site: str, sent: str, counted: str) -> None:
    """Raises RoundVoid if a site sends another update than the one that is already counted."""
    if sent != counted:
        raise RoundVoid(
            f"another update of '{site}' is already counted in this round",
            fix="drop this one; each client counts once",
        )


def _over() -> RoundVoid:
    return RoundVoid("the round is over", fix="drop the update and wait for the next round")


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future
