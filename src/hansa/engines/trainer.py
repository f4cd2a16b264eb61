"""Trains some clients of a round: one after the other, or in one stack where that is possible.

| what is trained                        | in a stack                                             |
|----------------------------------------|--------------------------------------------------------|
| `TorchTask` with the work of `LocalSGD`| yes, unless trying it on random numbers shows a reason |
| any other task or work                 | no                                                     |
| a client whose row is not finite       | again alone, so that it fails as it would alone        |
| clients of whom one raises             | each alone, so that only that one fails                |
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from hansa.core.contribute import (
    Purpose,
    RoundTask,
    Trained,
    context_of,
    contribute,
    encoded,
)
from hansa.core.parts import Context, Examples, Model, Split, Update
from hansa.work.sgd import LocalSGD

if TYPE_CHECKING:
    from hansa.work.stacked import Kind
    from hansa.work.stacked_gradient import StackedGradient

STACK_BYTES = 2**22
"""Parameters of one stack: what a step reads and writes should stay in the processor's cache."""

MOST_STACKED = 32
"""Most clients in one stack: beyond, what a step costs beside its arithmetic is shared enough."""

Clients: TypeAlias = Sequence[tuple[str, Split]]


def stack_size(parameters: int) -> int:
    """How many clients of a model with so many float32 parameters are one stack at most."""
    return min(MOST_STACKED, max(1, STACK_BYTES // (4 * parameters)))


def pieces_of(clients: int, parameters: int, processes: int) -> int:
    """Size of the pieces that a cohort is cut into, each a stack, as many for each process."""
    rounds = -(-clients // (processes * stack_size(parameters)))
    return max(1, -(-clients // (processes * max(1, rounds))))


@dataclass(slots=True)
class Trainer:
    """What trains clients in this process, from round to round.

    Attributes:
      model: the mathematics of the task.
      timed: whether a stack is used only if it takes less time; else wherever it is possible.
      how: how clients are trained where they may be stacked, in words.
    """

    model: Model
    timed: bool = True
    how: str = ""
    _work: object = None
    _stack: StackedGradient | None = field(default=None, repr=False)

    def updates(
        self, task: RoundTask, clients: Clients, stacked: bool
    ) -> Iterator[tuple[str, Update | Exception]]:
        """Each client with its update, or with what its training raised.

        Args:
          task: the round.
          clients: their names and examples.
          stacked: whether they may be trained together.
        """
        trained = self._trained(task, clients) if stacked else {}
        for client, split in clients:
            update: Update | Exception
            try:
                if client in trained:
                    ctx = context_of(task, client, self.model, split)
                    update = encoded(task, ctx, split, trained[client])
                else:
                    update = contribute(task, client, self.model, split)
            except Exception as error:  # noqa: BLE001  what a client's task raises drops that client
                update = error
            yield client, update

    def _trained(self, task: RoundTask, clients: Clients) -> dict[str, Trained]:
        """What training gave for those who could be trained together."""
        work = task.plan.parts.algorithm.work
        some = [(client, split) for client, split in clients if len(split.train)]
        if task.purpose is not Purpose.TRAIN or not some:
            return {}
        if work != self._work:
            self._work, self._stack = work, None
            self.how = self._decide(task, work, some[0][1].train, len(some))
        if self._stack is None or not isinstance(work, LocalSGD):
            return {}
        from hansa.work.stacked import kind_of, train_stack

        stacks: dict[Kind, list[tuple[Context, Examples]]] = {}
        for client, split in some:
            ctx = context_of(task, client, self.model, split)
            stacks.setdefault(kind_of(split.train), []).append((ctx, split.train))
        trained: dict[str, Trained] = {}
        for stack in stacks.values():
            try:
                results = train_stack(self._stack, work, task.params, stack)
            except Exception:  # noqa: BLE001, S112  each alone, who raises says it again
                continue
            for (ctx, _), (delta, loss) in zip(stack, results, strict=True):
                if np.isfinite(loss) and np.isfinite(delta).all():
                    trained[ctx.client] = delta, loss
        return trained

    def _decide(self, task: RoundTask, work: object, examples: Examples, clients: int) -> str:
        """Finds out whether clients are stacked from now on, and says so."""
        alone = "clients are trained one after the other, because "
        if not isinstance(work, LocalSGD):
            return alone + f"stacks are for LocalSGD, and their work is {type(work).__name__}"
        torch = sys.modules.get("hansa.work.torch")
        if torch is None or not isinstance(self.model, torch.TorchTask):
            return alone + f"{type(self.model).__name__} is no TorchTask"
        size = stack_size(len(task.params))
        if self.timed and size < 2:
            return alone + f"{len(task.params):,} parameters leave no room for others in the cache"
        from hansa.work.stacked import kind_of
        from hansa.work.stacked_gradient import StackedGradient
        from hansa.work.stacked_probe import sooner, why_not

        gradient, kind = StackedGradient(self.model), kind_of(examples)
        reason = why_not(gradient, task.params, kind)
        if reason is not None:
            return alone + reason
        if self.timed and not sooner(gradient, work, task.params, kind, min(size, max(2, clients))):
            return alone + "a stack of this model takes longer"
        self._stack = gradient
        return f"up to {size} clients are trained in one stack"
