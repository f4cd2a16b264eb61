"""The vector engine: the clients of a round in stacks, each trained in one pass, in this process.

What a client contributes equals what inline gives within about 1e-4, not to the last bit: a stack
adds up in another order. How large stacks are and whether they are used at all follows from the
model and from a short measurement, see `hansa.engines.trainer`. With processes, the workers engine
does the same in each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from hansa.core.contribute import RoundTask
from hansa.core.parts import Dropout, Model, Partial
from hansa.engines.masking import groups_of, revealed
from hansa.engines.share import Share
from hansa.engines.trainer import Trainer, pieces_of
from hansa.engines.workers_messages import Data, Order
from hansa.stages.mask import mask_of


@dataclass(slots=True)
class VectorEngine:
    """Runs the clients of a simulation in stacks and yields one sum a round.

    Clients that fail and updates that are rejected are dropouts, as with the inline engine. Where
    the plan hides updates, they are summed without masks, which gives the same sum.

    Attributes:
      model: the mathematics of the task.
      data: a client's own examples, by the client's name.
      timed: whether stacks are used only if they take less time; else wherever it is possible.
    """

    model: Model
    data: Data
    timed: bool = True
    _trainer: Trainer | None = field(default=None, repr=False)

    @property
    def real(self) -> bool:
        """False: all clients are this process."""
        return False

    @property
    def how(self) -> str:
        """How clients were trained, or why not together, in words."""
        return self._trainer.how if self._trainer is not None else ""

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Trains the clients, stack by stack."""
        if self._trainer is None:
            self._trainer = Trainer(self.model, self.timed)
        mask = mask_of(task.plan)
        groups = [tuple(cohort)] if mask is None else groups_of(task, mask, cohort)
        placed = tuple((number, client) for number, group in enumerate(groups) for client in group)
        size = len(task.params)
        piece = pieces_of(len(placed), size, 1)
        order = Order(task, task.plan, size, placed, piece, mask is not None, stacked=True)
        share = Share(order, task.plan, task.params, self.data, self._trainer)
        for start in range(0, len(placed), piece):
            await asyncio.sleep(0)  # lets the loop cancel between two stacks
            share.train(start, _unwatched)
        report = share.report()
        for dropout in report.dropouts:
            yield dropout
        for partial in report.partials.values():
            if mask is not None:
                yield revealed(task.plan, partial.value, partial.members)
            else:
                yield partial


def _unwatched(_: int) -> None:
    """Nobody waits to hear at which client this process is."""
