"""Local gradient descent of several clients at once: `LocalSGD` on stacked parameters.

    clients      step 0          step 1          step 2
    A, 25 ex.    10 examples     10              5, filled up to 10
    B, 13 ex.    10              3, filled up    done: its row is left alone
    C,  4 ex.    4, filled up    done

Clients stand in the order of their steps, the longest first, so that those who still train are
the first rows. A batch is filled up with its own first example, at weight zero. What is computed
is what `LocalSGD` computes on the same batches, but not to the last bit: sums go in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from hansa.core.contribute import Trained
from hansa.core.parts import Context, Examples
from hansa.core.vector import Schema, Vector
from hansa.work.sgd import LocalSGD
from hansa.work.stacked_gradient import StackedGradient

Client: TypeAlias = tuple[Context, Examples]
"""A client's place in the round, and what it trains on; at least one example."""

Kind: TypeAlias = tuple[tuple[int, ...], str, tuple[int, ...]]
"""Shape and type of one example's input, and shape of its target: what a stack has in common."""

BATCH_BYTES = 2**26
"""Memory for the inputs of one step of a stack; a stack of one may take more."""


def kind_of(examples: Examples) -> Kind:
    """What all examples of a stack must have in common."""
    return (examples.inputs.shape[1:], str(examples.inputs.dtype), examples.targets.shape[1:])


@dataclass(frozen=True, slots=True)
class _Row:
    """One client of a stack.

    Attributes:
      at: its place among the clients that were given.
      examples: what it trains on.
      batches: the positions of each of its steps.
    """

    at: int
    examples: Examples
    batches: tuple[NDArray[Any], ...]


def train_stack(
    gradient: StackedGradient, work: LocalSGD, params: Vector, clients: Sequence[Client]
) -> list[Trained]:
    """What `work` makes of each client, in the clients' order.

    A client's deltas may be infinite or NaN where it diverges, as in a loop; no other's are then.

    Args:
      gradient: of the task's loss.
      work: what the clients do.
      params: (d,) float32 parameters that all received.
      clients: of one kind.

    Raises:
      Exception: whatever the task raises on the examples of any of them.
    """
    rows = [
        _Row(at, examples, tuple(work.batches(len(examples), ctx)))
        for at, (ctx, examples) in enumerate(clients)
    ]
    rows.sort(key=lambda row: len(row.batches), reverse=True)
    trained: list[Trained | None] = [None] * len(rows)
    for some in _in_memory(rows):
        for row, result in zip(some, _descend(gradient, work, params, some), strict=True):
            trained[row.at] = result
    return [result for result in trained if result is not None]


def _in_memory(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    """The rows, as many at once as have room for their batches."""
    one = max(len(batch) for row in rows for batch in row.batches)
    inputs = rows[0].examples.inputs
    each = one * max(1, inputs[:1].nbytes)
    most = max(1, BATCH_BYTES // each)
    for start in range(0, len(rows), most):
        yield rows[start : start + most]


def _descend(
    gradient: StackedGradient, work: LocalSGD, params: Vector, rows: Sequence[_Row]
) -> list[Trained]:
    """Trains the rows of one stack."""
    schema = gradient.model.schema
    shared = torch.tensor(params, dtype=torch.float32)[None]
    stack = shared.repeat(len(rows), 1)
    velocity = torch.zeros_like(stack) if work.momentum else None
    losses = np.zeros(len(rows))
    batch = _Batch.of(rows)
    active = len(rows)
    for step in range(len(rows[0].batches)):
        while len(rows[active - 1].batches) <= step:
            active -= 1
        inputs, targets, weights = batch.fill(rows[:active], step)
        mine = _views(schema, stack[:active])
        means, slopes = gradient(mine, inputs, targets, weights)
        sizes = [len(row.batches[step]) for row in rows[:active]]
        losses[:active] += means.numpy().astype(np.float64) * sizes
        received = _views(schema, shared)
        speeds = None if velocity is None else _views(schema, velocity[:active])
        for at, slope in enumerate(slopes):
            _move(work, mine[at], slope, received[at], None if speeds is None else speeds[at])
    stack -= shared
    seen = [sum(len(positions) for positions in row.batches) for row in rows]
    return [
        (delta, float(loss / max(examples, 1)))
        for delta, loss, examples in zip(stack.numpy(), losses, seen, strict=True)
    ]


def _move(
    work: LocalSGD,
    params: torch.Tensor,
    slope: torch.Tensor,
    received: torch.Tensor,
    velocity: torch.Tensor | None,
) -> None:
    """One step of each row in one array, along (k, *shape) slopes; see `LocalSGD.descend`."""
    if work.weight_decay:
        slope = slope.add(params, alpha=work.weight_decay)
    if work.proximal:
        slope = slope.add(params - received, alpha=work.proximal)
    if velocity is not None:
        velocity.mul_(work.momentum).add_(slope)
        slope = velocity
    params.add_(slope, alpha=-work.client_lr)


def _views(schema: Schema, stack: torch.Tensor) -> list[torch.Tensor]:
    """The model's arrays in a (k, d) stack, each (k, *shape); all share its memory."""
    parts = torch.split(stack, [tensor.size for tensor in schema.tensors], dim=1)
    return [
        part.view(len(stack), *tensor.shape)
        for part, tensor in zip(parts, schema.tensors, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Memory for the batches of one step, (k, b, ...), used again by the next step."""

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(cls, rows: Sequence[_Row]) -> _Batch:
        """Room for the largest batch of each row; float64 inputs become float32, as in a loop."""
        first = rows[0].examples
        size = max(len(positions) for row in rows for positions in row.batches)
        dtype = first.inputs.dtype
        narrow = np.dtype(np.float32) if dtype == np.float64 else dtype
        shape = (len(rows), size)
        return cls(
            torch.from_numpy(np.zeros((*shape, *first.inputs.shape[1:]), narrow)),
            torch.zeros((*shape, *first.targets.shape[1:]), dtype=torch.int64),
            torch.zeros(shape),
        )

    def fill(
        self, rows: Sequence[_Row], step: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the first rows see in a step, and the weights of their examples."""
        inputs, targets, weights = self.inputs.numpy(), self.targets.numpy(), self.weights.numpy()
        for at, row in enumerate(rows):
            positions = row.batches[step]
            size = len(positions)
            inputs[at, :size] = row.examples.inputs[positions]
            targets[at, :size] = row.examples.targets[positions]
            inputs[at, size:] = inputs[at, 0]
            targets[at, size:] = targets[at, 0]
            weights[at, :size] = 1 / size
            weights[at, size:] = 0
        active = len(rows)
        return self.inputs[:active], self.targets[:active], self.weights[:active]
