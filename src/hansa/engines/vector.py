"""The vector engine: the clients of a round in stacks, each trained in one pass.

What a client contributes equals what inline gives within about 1e-4, not to the last bit: a stack
adds up in another order. Whether clients are stacked at all and how many at once follows from the
model and from a short measurement, see `hansa.engines.stacking`. The stacks are trained in this
process, or in workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from hansa.core.contribute import Purpose, RoundTask
from hansa.core.parts import Dropout, Model, Partial
from hansa.engines.masking import groups_of, revealed
from hansa.engines.share import Share
from hansa.engines.stacking import Stacking, decide, first_examples, pieces_of
from hansa.engines.trainer import Trainer
from hansa.engines.workers import WorkersEngine
from hansa.engines.workers_messages import Data, Order
from hansa.stages.mask import mask_of


@dataclass(slots=True)
class VectorEngine:
    """Runs the clients of a simulation in stacks and yields one sum a round, or one a worker.

    Clients that fail and updates that are rejected are dropouts, as with the inline engine. Where
    the plan hides updates, they are summed without masks, which gives the same sum.

    Attributes:
      model: the mathematics of the task.
      data: a client's own examples, by the client's name.
      timed: whether stacks are used only if they take less time; else wherever it is possible.
      workers: what trains the stacks; this process if it is left out.
      stacking: how clients are trained; found out in the first round if it is left out.
    """

    model: Model
    data: Data
    timed: bool = True
    workers: WorkersEngine | None = None
    stacking: Stacking | None = None
    _trainer: Trainer | None = field(default=None, repr=False)

    @property
    def real(self) -> bool:
        """False: all clients are this machine."""
        return False

    @property
    def how(self) -> str:
        """How clients are trained, or why not together, in words."""
        if self.stacking is None:
            return ""
        if self.workers is None:
            return self.stacking.how
        return f"{self.stacking.how}; in each of {self.workers.number} processes"

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Trains the clients, stack by stack."""
        if self.stacking is None and task.purpose is Purpose.TRAIN:
            self._decide(task, cohort)
        size = 0 if self.stacking is None else self.stacking.size
        if self.workers is not None:
            self.workers.stack = size
        running = self._here(task, cohort, size)
        if self.workers is not None:
            running = self.workers.gather(task, cohort)
        async for item in running:
            yield item

    def _decide(self, task: RoundTask, cohort: Sequence[str]) -> None:
        """Finds out whether clients are stacked, if one of them shows what examples are like."""
        examples = first_examples(cohort, self.data)
        if examples is not None:
            processes = 1 if self.workers is None else self.workers.number
            most = -(-len(cohort) // processes)
            self.stacking = decide(self.model, task, examples, most, timed=self.timed)

    async def _here(
        self, task: RoundTask, cohort: Sequence[str], size: int
    ) -> AsyncIterator[Partial | Dropout]:
        """In this process."""
        if self._trainer is None:
            self._trainer = Trainer(self.model)
        mask = mask_of(task.plan)
        groups = [tuple(cohort)] if mask is None else groups_of(task, mask, cohort)
        placed = tuple((number, client) for number, group in enumerate(groups) for client in group)
        piece = pieces_of(len(placed), size, 1)
        order = Order(task, task.plan, len(task.params), placed, piece, mask is not None, size > 0)
        share = Share(order, task.plan, task.params, self.data, self._trainer)
        for start in range(0, len(placed), piece):
            await asyncio.sleep(0)  # lets the loop cancel between two stacks
            share.train(start, _unwatched)
        report = share.report()
        reasons = {dropout.client: dropout for dropout in report.dropouts}
        for client in cohort:
            if client in reasons:
                yield reasons[client]
        for partial in report.partials.values():
            if mask is not None:
                yield revealed(task.plan, partial.value, partial.members)
            else:
                yield partial


def _unwatched(_: int) -> None:
    """Nobody waits to hear at which client this process is."""
