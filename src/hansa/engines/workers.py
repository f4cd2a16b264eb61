"""The workers engine: clients in as many processes as there are cores, one sum from each.

    one round:   parameters ──► shared memory, once
                 places     ──► a queue, the longest clients first
                 worker: take a place, train, fold ... ──► one partial sum

| what happens                              | result                                           |
|-------------------------------------------|--------------------------------------------------|
| nothing of note                           | the bits of the inline engine                    |
| a client raises, an update is rejected    | Dropout, with the reason that inline gives       |
| a worker is killed                        | replaced; its clients are trained again          |
| workers are killed again and again        | HansaError, with the client that was trained     |
| the simulation is interrupted or killed   | all processes end                                |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

from hansa.core.contribute import RoundTask
from hansa.core.parts import Dropout, Partial
from hansa.engines.stacking import pieces_of
from hansa.engines.sums import Placed, summed, without_done
from hansa.engines.workers_messages import MOST_PLACES, Order, Report, Source, without_bulk
from hansa.engines.workers_pool import Pool, Worker, cores
from hansa.errors import HansaError

MOST_LOSSES = 5
"""Workers that may be lost in one round before it is given up."""


@dataclass(slots=True)
class WorkersEngine:
    """Runs the clients of a simulation in processes that live as long as the engine.

    Where the plan hides updates, they are summed without masks, which gives the same sum.
    Close it, or use it as a context manager.

    Attributes:
      source: how a worker gets the model and the clients' examples.
      number: how many workers; as many as there are cores if left out.
      stack: how many clients a worker trains in one stack, as the vector engine does; the result
        is then that of inline to about 1e-4 and not to the bit. 0 = one after the other.
    """

    source: Source
    number: int = field(default_factory=cores)
    stack: int = 0
    _pool: Pool | None = field(default=None, repr=False)
    _examples: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def real(self) -> bool:
        """False: all clients are this machine."""
        return False

    def start(self) -> Pool:
        """Starts the processes, without waiting for them: they load the task meanwhile."""
        if self._pool is None:
            self._pool = Pool(self.source, self.number)
        return self._pool

    def ready(self) -> bool:
        """Whether a round would not have to wait for the processes."""
        return self._pool is not None and self._pool.ready()

    def pids(self) -> tuple[int, ...]:
        """The processes: first the one that starts the others."""
        return self._pool.pids() if self._pool is not None else ()

    def close(self) -> None:
        """Ends the processes; a later round would start new ones."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> WorkersEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Trains the clients, the longest first, and yields one partial from each worker.

        Raises:
          HansaError: workers were lost again and again, or cannot load the task.
        """
        whole = False
        try:
            async for item in summed(task, cohort, partial(self._reports, task)):
                yield item
            whole = True
        finally:
            if not whole:  # what the workers still do belongs to no round
                self.close()

    async def _reports(
        self, task: RoundTask, left: list[Placed], hidden: bool
    ) -> AsyncIterator[Report]:
        """Orders until every client is in a report; who was with a lost worker comes again."""
        losses = 0
        while left:
            pool = self.start()
            await pool.fill()
            pool.memory.write(task.params)
            left.sort(key=self._length, reverse=True)
            order = Order(
                without_bulk(task),
                task.plan,
                len(task.params),
                tuple(left),
                self._piece(len(left)),
                hidden,
                self.stack > 0,
            )
            pool.order(order, task.plan.digest)
            lost = []
            async for worker, report in _as_they_come(pool):
                if report is None:
                    lost.append(_loss(pool, worker, order))
                    continue
                self._examples.update(report.examples)
                left = without_done(left, report)
                yield report
            losses += len(lost)
            if losses >= MOST_LOSSES:
                raise HansaError(
                    f"{losses} workers were lost in round {task.round}; the last one {lost[-1]}",
                    fix="look at that client's data and at this machine's memory, use fewer "
                    'workers, or the engine "inline"',
                )

    def _piece(self, clients: int) -> int:
        """How many clients a worker takes at once."""
        least = -(-clients // MOST_PLACES)
        return max(least, pieces_of(clients, self.stack, self.number)) if self.stack else least

    def _length(self, placed: Placed) -> int:
        """How long a client takes: its examples; one that was never seen may be the longest."""
        return self._examples.get(placed[1], 2**62)


async def _as_they_come(pool: Pool) -> AsyncIterator[tuple[Worker, Report | None]]:
    """Each worker with its report, whoever is first."""
    waiting = {asyncio.ensure_future(pool.report_of(worker)): worker for worker in pool.workers}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()
    finally:
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _loss(pool: Pool, worker: Worker, order: Order) -> str:
    """How a worker ended, and what it was at."""
    at = pool.memory.worked_on(worker.slot)
    pool.memory.works_on(worker.slot)
    how = pool.remove(worker)
    return how if at is None else f"{how}, with '{order.clients[at][1]}'"
