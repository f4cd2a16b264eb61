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

from hansa.core.parts import Context, Examples
from hansa.core.vector import Vector
from hansa.work.sgd import LocalSGD
from hansa.work.stacked_gradient import Batch, StackedGradient
from hansa.work.stacked_room import Room

Client: TypeAlias = tuple[Context, Examples]
"""A client's place in the round, and what it trains on; at least one example."""

Kind: TypeAlias = tuple[tuple[int, ...], str, tuple[int, ...]]
"""Shape and type of one example's input, and shape of its target: what a stack has in common."""

BATCH_BYTES = 2**26
"""Memory for the inputs of one step of a stack; a stack of one may take more."""


def kind_of(examples: Examples) -> Kind:
    """What all examples of a stack must have in common."""
    return (examples.inputs.shape[1:], examples.inputs.dtype.str, examples.targets.shape[1:])


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
    gradient: StackedGradient,
    work: LocalSGD,
    params: Vector,
    clients: Sequence[Client],
    deltas: Vector,
) -> NDArray[np.float64]:
    """Writes what `work` makes of each client.

    A client's delta may be infinite or NaN where it diverges, as in a loop; no other's is then.

    Args:
      gradient: of the task's loss.
      work: what the clients do.
      params: (d,) float32 parameters that all received.
      clients: of one kind.
      deltas: (k, d) float32 memory for the deltas, in the clients' order.

    Returns:
      (k,) mean losses over the steps.

    Raises:
      Exception: whatever the task raises on the examples of any of them.
    """
    rows = [
        _Row(at, examples, tuple(work.batches(len(examples), ctx)))
        for at, (ctx, examples) in enumerate(clients)
    ]
    rows.sort(key=lambda row: len(row.batches), reverse=True)
    losses = np.empty(len(rows))
    for some in _in_memory(rows):
        places = [row.at for row in some]
        losses[places] = _descend(gradient, work, params, some, deltas)
    return losses


def _in_memory(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    """The rows, as many at once as have room for their batches."""
    one = max(len(batch) for row in rows for batch in row.batches)
    inputs = rows[0].examples.inputs
    each = one * max(1, inputs[:1].nbytes)
    most = max(1, BATCH_BYTES // each)
    for start in range(0, len(rows), most):
        yield rows[start : start + most]


def _descend(
    gradient: StackedGradient,
    work: LocalSGD,
    params: Vector,
    rows: Sequence[_Row],
    deltas: Vector,
) -> NDArray[np.float64]:
    """Trains the rows of one stack, writes deltas to their places, and gives the mean losses."""
    received = gradient.room.received(params)
    arrays = gradient.room.models(len(rows), params)
    velocity = [torch.zeros_like(array) for array in arrays] if work.momentum else None
    batches = _Batches.of(rows, gradient.room)
    losses = np.zeros(len(rows))
    active, mine, speeds = 0, arrays, velocity
    for step, sizes in enumerate(batches.sizes):
        training = int(np.count_nonzero(sizes))
        if training != active:  # those who are done are the last rows
            active, mine = training, _first(arrays, training)
            speeds = None if velocity is None else _first(velocity, training)
        means = gradient.descend(work, mine, received, speeds, batches.fill(active, step))
        losses[:active] += means.numpy() * sizes[:active]
    _write_deltas(params, arrays, [row.at for row in rows], deltas)
    found: NDArray[np.float64] = losses / batches.sizes.sum(axis=0)
    return found


def _write_deltas(
    params: Vector, arrays: Sequence[torch.Tensor], places: Sequence[int], deltas: Vector
) -> None:
    """Writes how far each row of the arrays moved to its place in (k, d) memory."""
    start, first = 0, places[0]
    for array in arrays:
        moved = array.numpy().reshape(len(array), -1)
        end = start + moved.shape[1]
        given, room = params[start:end], deltas[:, start:end]
        if list(places) == list(range(first, first + len(places))):  # in one call
            np.subtract(moved, given, out=room[first : first + len(places)])
        else:
            for mine, place in zip(moved, places, strict=True):
                np.subtract(mine, given, out=room[place])
        start = end


def _first(arrays: Sequence[torch.Tensor], rows: int) -> list[torch.Tensor]:
    """The first rows of each array; shares its memory."""
    return [array[:rows] for array in arrays]


@dataclass(frozen=True, slots=True)
class _Batches:
    """The batches of all steps, (s, k, b), and memory for the inputs of one of them.

    Attributes:
      rows: the clients.
      at: positions of the examples; a batch is filled up with its own first one.
      sizes: (s, k) examples in a batch; 0 where a client is done.
      weights: of each example.
      targets: (s, k, b, ...).
      negative: whether one of the targets is below zero.
      inputs: (k, b, ...), used again by the next step.
    """

    rows: Sequence[_Row]
    at: NDArray[np.int64]
    sizes: NDArray[np.int64]
    weights: torch.Tensor
    targets: torch.Tensor
    negative: bool
    inputs: torch.Tensor

    @classmethod
    def of(cls, rows: Sequence[_Row], room: Room) -> _Batches:
        """Room for the largest batch of each row; float64 inputs become float32, as in a loop."""
        first = rows[0].examples
        steps = len(rows[0].batches)
        most = max(len(batch) for row in rows for batch in row.batches)
        at = np.zeros((steps, len(rows), most), np.int64)
        sizes = np.zeros((steps, len(rows)), np.int64)
        for number, row in enumerate(rows):
            lengths = [len(batch) for batch in row.batches]
            sizes[: len(lengths), number] = lengths
            if len(lengths) == steps and min(lengths) == most:
                at[:, number] = row.batches
                continue
            for step, batch in enumerate(row.batches):
                at[step, number, : len(batch)] = batch
                at[step, number, len(batch) :] = batch[0]
        targets = np.zeros((*at.shape, *first.targets.shape[1:]), np.int64)
        for number, row in enumerate(rows):
            targets[:, number] = row.examples.targets[at[:, number]]
        there = np.arange(most) < sizes[..., np.newaxis]
        weights = (there / np.maximum(sizes, 1)[..., np.newaxis]).astype(np.float32)
        dtype = first.inputs.dtype
        narrow = np.dtype(np.float32) if dtype == np.float64 else dtype
        shape = (len(rows), most, *first.inputs.shape[1:])
        return cls(
            rows,
            at,
            sizes,
            torch.from_numpy(weights),
            torch.from_numpy(targets),
            bool(targets.min() < 0),
            room.inputs(shape, narrow),
        )

    def fill(self, active: int, step: int) -> Batch:
        """What the first rows see in a step."""
        inputs = self.inputs.numpy()
        for row, positions, room in zip(self.rows[:active], self.at[step], inputs, strict=False):
            own = row.examples.inputs
            if own.dtype == room.dtype:
                own.take(positions, axis=0, out=room, mode="clip")
            else:
                room[...] = own[positions]
        return Batch(
            self.inputs[:active],
            self.targets[step, :active],
            self.weights[step, :active],
            self.negative,
        )
