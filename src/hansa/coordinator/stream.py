"""The updates of an asynchronous job on their way into one buffer after the other.

    asked ──► at work ──► header: asked? counted already? too old? ──► bytes ──► the open buffer
      ▲          │ too slow, gone: Dropout                                │ full: held until the
      └─ next ───┘                                                        ▼ next one opens
                                                                       receipt

A site is asked for round r and named so in its update, its receipt and its log; the buffer that it
is counted in is that of round r or a later one. From the rows of the store it follows which: a site
that is counted in a round is asked again in the next one at the earliest, so what it was asked in
round r is counted if it is a member of a round from r on, and the first of these is the one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.buffers import Buffers
from hansa.coordinator.desk import RoundKey
from hansa.coordinator.incoming import Header, incoming, uninterrupted
from hansa.coordinator.intake import Intake, check_same
from hansa.coordinator.roster import Roster
from hansa.coordinator.shelf import Shelf
from hansa.coordinator.store import Store
from hansa.core.arrival import Buffer, counts, late, too_old_words
from hansa.core.contribute import RoundTask
from hansa.core.parts import Course, Dropout, Partial
from hansa.engines.goal import too_late
from hansa.errors import HansaError, RoundVoid, Unavailable, UpdateRejected

Start: TypeAlias = tuple[int, int]
"""The round that a site was asked for, and its attempt; later ones compare as larger."""

Ask: TypeAlias = Callable[[str, RoundTask, float], None]
"""Asks a site for the work of a round, with the seconds that it has."""

Withdraw: TypeAlias = Callable[[str, RoundTask, str], None]
"""Tells a site that the work of a round is not wanted any more, and why."""

NOT_ASKED = "what it was asked does not count any more"
"""What a site is told that is at work and is not asked in the round that begins."""

LOOK = 1.0
"""Seconds between two looks at an update that is on its way when its time is over."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Given:
    """What a site was asked, until it is counted or drops out.

    Attributes:
      task: the round that it was asked for.
      ends: when it should be done, by the loop's clock.
      timer: what happens then.
    """

    task: RoundTask
    ends: float
    timer: asyncio.TimerHandle

    @property
    def start(self) -> Start:
        """The round and the attempt."""
        return self.task.round, self.task.attempt


class Stream:
    """One job's sites at work, and the buffer that is open, from the first round to the last.

    Lives in the event loop.

    Args:
      job: identifier of the job.
      buffer: its words.
      roster: who attends.
      shelf: what sites may fetch.
      blobs: where models are.
      store: durable state.
      memory: for updates on their way in.
      ask: asks a site for work.
      withdraw: takes that back.
    """

    def __init__(
        self,
        job: str,
        buffer: Buffer,
        *,
        roster: Roster,
        shelf: Shelf,
        blobs: Blobs,
        store: Store,
        memory: Buffers,
        ask: Ask,
        withdraw: Withdraw,
    ) -> None:
        self.job = job
        self._buffer = buffer
        self._roster, self._shelf, self._blobs = roster, shelf, blobs
        self._store, self._memory = store, memory
        self._ask, self._withdraw = ask, withdraw
        self._given: dict[str, Given] = {}
        self._intake: Intake | None = None
        self._first: Start = (0, 0)
        self._ages: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._changed = asyncio.Event()
        self._over: HansaError | None = None
        self._models: dict[str, _Held] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """From before the first round to after the last: who comes back is told its work again."""
        try:
            with self._roster.watching(self._entered):
                yield
        except BaseException:
            # The job may go on, here or after a restart: whoever has an update keeps it.
            self._stop(Unavailable("the job goes on in a moment", fix="deliver it again then"))
            raise
        finally:
            self.end()

    def end(self) -> None:
        """Training is over: nobody is at work, and who waits for a buffer is told so."""
        over = RoundVoid("training is over", fix="drop the update")
        for site in tuple(self._given):
            self._take_back(site, over.message)
        self._stop(over)

    def _stop(self, why: HansaError) -> None:
        self._over = self._over or why
        for site in tuple(self._given):
            self._forget(site)
        self._changed.set()

    async def fill(
        self, intake: Intake, task: RoundTask
    ) -> AsyncIterator[Partial | Dropout | Course]:
        """One round: from the sites that are still at work to a full buffer.

        A round without an update for as long as a site may take is over, with too few.

        Args:
          intake: of the round, with what was durable of it before.
          task: the round; its cohort is the order in which sites are asked.
        """
        seconds = task.plan.job.rounds.deadline
        if self._intake is None:
            self._first = (task.round, task.attempt)
        self._intake, self._ages = intake, {}
        for site, given in tuple(self._given.items()):
            age = task.round - given.task.round
            if site not in intake.opening.cohort:  # quarantined, which no record names
                self._take_back(site, NOT_ASKED)
            elif self._buffer.too_old(age):
                self._drop(site, too_old_words(age))
        self._changed.set()
        self._ask_next()
        partial, dropouts = await intake.complete(self._buffer.size, seconds, patient=True)
        yield partial
        for dropout in dropouts:
            yield dropout
        yield Course(ages=counts(Counter(self._ages.values())), late=late(self._ages))

    # -------------------------------------------------------------- what sites send

    async def deliver(
        self, site: str, key: RoundKey, header: Header, parts: AsyncIterator[memoryview]
    ) -> None:
        """Returns when the update is inside a durable sum; sending it twice is harmless.

        While no buffer has room it is held, and counts in the next one.

        Args:
          site: who sends.
          key: the round that it was asked for.
          header: what it announced.
          parts: the bytes; asked for only when there is memory for them.

        Raises:
          RoundVoid: it was not asked for, is too old, or another one of the site counts.
          UpdateRejected: the update broke its contract; it does not count.
          StoreError: the sum could not be made durable.
        """
        start: Start = (key.round, key.attempt)
        async with self._turns.setdefault(site, asyncio.Lock()):  # one transfer of a site at once
            intake = await self._last()
            while not await self._known(site, start, header.sha256):
                if intake is self._intake:
                    break
                intake = await self._last()  # a round was closed while the store was asked
            else:
                return
            if site not in intake.hashes:
                intake = await self._open(after=None)
                self._check(site, start, intake)
                intake.check(site, header)
                try:
                    intake = await self._receive(site, start, header, parts)
                except UpdateRejected as error:
                    intake.count_broken(site, error)
                    if site not in intake.awaited:
                        self._land(site)
                    raise
        await intake.durable(site, header.sha256)

    def decline(self, site: str, key: RoundKey, reason: str) -> None:
        """A site says that it cannot do what it was asked."""
        given = self._given.get(site)
        if given is not None and given.start == (key.round, key.attempt):
            self._drop(site, reason, tell=False)

    async def _known(self, site: str, start: Start, sha256: str) -> bool:
        """Whether this very update is durable already.

        Raises:
          RoundVoid: another one does, that the site was asked for in the same round.
        """
        known = await asyncio.to_thread(self._store.counted_since, self.job, site, *start)
        if known is None:
            return False
        check_same(site, sha256, known)
        return True

    async def _receive(
        self, site: str, start: Start, header: Header, parts: AsyncIterator[memoryview]
    ) -> Intake:
        """The bytes, then whichever buffer has room; returns the one."""
        async with incoming(self._memory, site, header, parts, self._still_on) as content:
            intake: Intake | None = None
            while True:
                intake = await self._open(after=intake)
                age = self._check(site, start, intake)
                try:
                    # Whoever is gone meanwhile is counted, and must be done with its work, too.
                    await uninterrupted(self._add(site, start, content, header.sha256, intake, age))
                except RoundVoid:
                    if intake.taking or site not in intake.awaited:
                        raise
                    continue  # somebody else was the last one; this one is held for the next
                return intake

    async def _add(
        self, site: str, start: Start, content: memoryview, sha256: str, intake: Intake, age: int
    ) -> None:
        await intake.add(site, content, sha256, self._buffer.weight(age))
        self._ages[site] = age
        given = self._given.get(site)
        if given is not None and given.start != start:
            self._take_back(site, "an update of an earlier round counts in this one")
        self._land(site)

    def _check(self, site: str, start: Start, intake: Intake) -> int:
        """How old the update is, in rounds.

        Raises:
          RoundVoid: it cannot count in this round.
        """
        given, age = self._given.get(site), intake.task.round - start[0]
        asked = given is not None and given.start == start
        # What an earlier process asked is not known any more; it was before this one's first round.
        if not asked and not start <= self._first:
            raise RoundVoid(
                f"site '{site}' was not asked for round {start[0]}, or is not waited for any more",
                fix="wait for work; the coordinator pushes it",
            )
        if site not in intake.opening.cohort:  # an update that was held, and does not count now
            raise RoundVoid(NOT_ASKED, fix="drop the update and wait for work")
        if self._buffer.too_old(age):
            raise RoundVoid(too_old_words(age), fix="drop the update and wait for work")
        return age

    def _still_on(self) -> None:
        if self._over is not None:
            raise self._over

    async def _last(self) -> Intake:
        """The intake that was opened last, full or not."""
        while self._intake is None:
            await self._change()
        return self._intake

    async def _open(self, after: Intake | None) -> Intake:
        """An intake that takes one more update, another one than `after`."""
        while True:
            intake = self._intake
            if intake is not None and intake.taking and intake is not after:
                return intake
            await self._change()

    async def _change(self) -> None:
        self._still_on()
        self._changed.clear()
        await self._changed.wait()
        self._still_on()

    # -------------------------------------------------------------- who is at work

    def _entered(self, site: str) -> None:
        """A site attends: it is told again what it was asked, or it may be the next one."""
        given = self._given.get(site)
        if given is None:
            self._ask_next()
        else:
            left = given.ends - asyncio.get_running_loop().time()
            self._ask(site, given.task, left)

    def _ask_next(self) -> None:
        """Asks sites in the round's order, as many as may work at one time."""
        intake = self._intake
        if intake is None or self._over is not None:
            return
        present, awaited = self._roster.present, intake.awaited
        for site in intake.opening.cohort:
            if len(self._given) >= self._buffer.concurrency or not intake.taking:
                return
            if site in present and site in awaited and site not in self._given:
                self._give(site, intake.task, intake.opening.cohort)

    def _give(self, site: str, task: RoundTask, readers: Sequence[str]) -> None:
        loop, seconds = asyncio.get_running_loop(), task.plan.job.rounds.deadline
        timer = loop.call_later(seconds, self._expired, site)
        self._given[site] = Given(task, loop.time() + seconds, timer)
        self._offer(task.model, readers)
        self._ask(site, task, seconds)

    def _expired(self, site: str) -> None:
        given = self._given.get(site)
        if given is None:
            return
        turn = self._turns.get(site)
        if turn is not None and turn.locked():  # its update is on its way, or held
            given.timer = asyncio.get_running_loop().call_later(LOOK, self._expired, site)
            return
        self._drop(site, too_late(given.task.plan.job.rounds.deadline))

    def _drop(self, site: str, why: str, *, tell: bool = True) -> None:
        """A site is not waited for any more; between two rounds nobody writes that down."""
        if self._intake is not None:
            self._intake.decline(site, why)
        _log.info("site %s drops out of job %s: %s", site, self.job, why)
        if tell:
            self._take_back(site, why)
        self._land(site)

    def _take_back(self, site: str, why: str) -> None:
        given = self._given.get(site)
        if given is not None:
            self._withdraw(site, given.task, why)
            self._forget(site)

    def _land(self, site: str) -> None:
        """A site is done; the next one may begin."""
        self._forget(site)
        self._ask_next()

    def _forget(self, site: str) -> None:
        given = self._given.pop(site, None)
        if given is not None:
            given.timer.cancel()
            self._withhold(given.task.model)

    # -------------------------------------------------------------- models of who is at work

    def _offer(self, model: str, readers: Sequence[str]) -> None:
        """Keeps a model on the shelf for one more site; its file may be tidied away meanwhile."""
        held = self._models.setdefault(model, _Held())
        if not held.sites:
            offering = self._shelf.offering(model, self._blobs.path(model), frozenset(readers))
            held.stack.enter_context(offering)
        held.sites += 1

    def _withhold(self, model: str) -> None:
        held = self._models[model]
        held.sites -= 1
        if not held.sites:
            held.stack.close()
            del self._models[model]


@dataclass(slots=True)
class _Held:
    """A model on the shelf, and how many sites began with it."""

    stack: ExitStack = field(default_factory=ExitStack)
    sites: int = 0
