"""Trains some clients of a round in stacks, in this process.

| what is trained                        | in a stack                                    |
|----------------------------------------|-----------------------------------------------|
| clients with examples of one kind      | yes, all of them                              |
| a client whose row is not finite       | again alone, so that it fails as it would     |
| clients of whom one raises             | each alone, so that only that one fails       |
| clients without examples, measurements | no                                            |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hansa.core.contribute import Purpose, RoundTask, context_of
from hansa.core.parts import Context, Model, Split
from hansa.core.vector import Vector
from hansa.work.sgd import LocalSGD

if TYPE_CHECKING:
    from hansa.work.stacked import Kind
    from hansa.work.stacked_gradient import StackedGradient

Clients: TypeAlias = Sequence[tuple[str, Split]]

_MET = 3
"""How often a shape is met before it is traced, where it is known that stacks are sooner."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Clients that were trained together.

    Attributes:
      contexts: each client's place in the round.
      splits: each client's examples.
      rows: (k, d) float32 memory for their updates, with the deltas in their place, all finite.
      deltas: where they are in it.
      losses: (k,) mean losses over the steps.
    """

    contexts: tuple[Context, ...]
    splits: tuple[Split, ...]
    rows: Vector
    deltas: slice
    losses: NDArray[np.float64]


@dataclass(slots=True)
class Trainer:
    """What trains clients in this process, from round to round.

    Attributes:
      model: the mathematics of the task.
    """

    model: Model
    _gradient: StackedGradient | None = field(default=None, repr=False)

    def stacks(self, task: RoundTask, clients: Clients) -> Iterator[Stack]:
        """Trains those who can be trained together; who is in no stack is to be trained alone."""
        work = task.plan.parts.algorithm.work
        if task.purpose is not Purpose.TRAIN or not isinstance(work, LocalSGD):
            return
        from hansa.work.stacked import kind_of, train_stack

        place = slice(*task.layout.bounds("delta"))
        kinds: dict[Kind, list[tuple[Context, Split]]] = {}
        for client, split in clients:
            if len(split.train):
                ctx = context_of(task, client, self.model, split)
                kinds.setdefault(kind_of(split.train), []).append((ctx, split))
        for stack in kinds.values():
            some = [(ctx, split.train) for ctx, split in stack]
            rows = np.empty((len(stack), task.layout.size), np.float32)
            deltas = rows[:, place]
            try:
                losses = train_stack(self._stacked(), work, task.params, some, deltas)
            except Exception:  # noqa: BLE001, S112  each alone, who raises says it again
                continue
            fine = np.isfinite(losses)
            if not np.isfinite(deltas.sum()):  # sooner than to look at each
                fine &= np.isfinite(deltas).all(axis=1)
            if not fine.all():
                stack = [one for one, good in zip(stack, fine, strict=True) if good]
                rows, losses = rows[fine], losses[fine]
            if stack:
                contexts, splits = zip(*stack, strict=True)
                yield Stack(contexts, splits, rows, place, losses)

    def _stacked(self) -> StackedGradient:
        if self._gradient is None:
            from hansa.work.stacked_gradient import StackedGradient
            from hansa.work.torch import TorchTask

            if not isinstance(self.model, TorchTask):
                raise TypeError(f"{type(self.model).__name__} is no TorchTask")
            self._gradient = StackedGradient(self.model, traced_at=_MET)
        return self._gradient
