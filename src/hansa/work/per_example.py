"""Sums of per-example clipped gradients: what DP-SGD adds noise to (Abadi et al., CCS 2016).

    batch -> pieces: (k, d) gradients -> norms -> scaled to norm <= clip -> rounded -> (d,) sum

A guarantee for one example rests on what one example can do to the sum, so it must hold for
certain: also for examples that the task's author never thought of, and in floating point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hansa.core.parts import Examples, Model
from hansa.core.vector import Vector, blocks
from hansa.errors import HansaError
from hansa.stages.norm import TOLERANCE

Piece: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""(k,) losses of k consecutive examples, and their (k, d) float32 gradients."""

_CACHED = 65_536
"""Numbers that are worked on at once, so that float64 copies of them stay in the cache."""


@runtime_checkable
class PerExample(Protocol):
    """A model that computes the gradients of many examples faster than one after the other."""

    def per_example(self, params: Vector, batch: Examples) -> Iterator[Piece]:
        """Losses and gradients of the batch's examples, in order, a piece at a time.

        Each is that of a batch of one. It follows from the parameters and the example, never from
        the examples beside it; what a module draws may follow from the parameters only. A piece's
        arrays may be reused memory; its gradients take about 64 MiB at most, or one example's.
        """


def refuse_what_mixes(model: Model) -> None:
    """Says before any training that a model has no gradients of single examples.

    Raises:
      HansaError: it mixes the examples of a batch; the message names the layer.
    """
    if isinstance(model, PerExample):
        nobody = Examples(np.zeros((0, 1), np.float32), np.zeros(0, np.int64))
        next(model.per_example(model.initial(0), nobody), None)


def pieces(model: Model, params: Vector, batch: Examples) -> Iterator[Piece]:
    """Losses and gradients of the batch's examples, in order, a piece at a time.

    A model that is no `PerExample` is asked for the gradient of each example as a batch of one.
    """
    if isinstance(model, PerExample):
        yield from model.per_example(params, batch)
        return
    for at in range(len(batch)):
        one = Examples(batch.inputs[at : at + 1], batch.targets[at : at + 1])
        with np.errstate(all="ignore"):  # a warning about an example would tell of it
            loss, gradient = model.gradient(params, one)
        yield np.array([loss]), gradient[np.newaxis]


def clipped_sum(
    model: Model, params: Vector, batch: Examples, clip: float, grid: float
) -> tuple[float, Vector]:
    """Sum of the losses, and sum of the examples' gradients, each clipped and rounded.

    With g an example's own float32 gradient, it contributes

        grid * round(g * min(1, clip / |g|) / grid)

    | it holds that                                                  | because                     |
    |----------------------------------------------------------------|-----------------------------|
    | the norm is at most `clip` before rounding                     | norms are float64, where    |
    |                                                                | squares of float32 neither  |
    |                                                                | overflow nor vanish; 1e-9   |
    |                                                                | of `clip` is left for error |
    | rounding moves a coordinate by at most grid / 2                | a power of two divides      |
    |                                                                | exactly                     |
    | a gradient with a NaN or an infinity contributes exactly zero  | an abort would tell of it   |
    | a loss that is not finite counts as zero                       | likewise                    |
    | the sum is exact, in any order, below 2**53 steps of the grid: | whole numbers are exact in  |
    | while len(batch) * (clip / grid + 1) < 2**53                   | float64                     |

    So one example moves the sum by at most clip + grid * sqrt(d) / 2 in norm, whatever the others
    are. What a model raises on an example is raised, which tells of it: that is the model's part.
    Memory: a piece of the model's, (d,) float64, and a little.

    Args:
      model: the mathematics of the task.
      params: (d,) float32 parameters.
      batch: n examples; without any the sums are zero.
      clip: bound of the norm of one example's gradient, in model units.
      grid: step of the sum in each coordinate, a power of two.

    Returns:
      The sum of the losses, and the (d,) float64 sum.

    Raises:
      HansaError: `clip` is not positive and finite, or `grid` is no power of two, or below
        clip / 2**52, or the model gives gradients of another size.
    """
    _check(clip, grid)
    losses, total, room = 0.0, np.zeros(len(params), np.float64), np.empty(_CACHED, np.float64)
    for some, gradients in pieces(model, params, batch):
        if gradients.shape != (len(some), len(total)):
            raise HansaError(
                f"{type(model).__name__} gives gradients of shape {gradients.shape} for "
                f"{len(some)} examples and {len(total):,} parameters",
                fix="give one row per example and one column per parameter",
            )
        losses += float(np.asarray(some, np.float64)[np.isfinite(some)].sum())
        for rows in blocks(len(gradients), max(1, _CACHED // max(len(total), 1))):
            _add(total, gradients[rows], clip, grid, room)
    total *= grid
    return losses, total


def _add(total: Vector, gradients: NDArray[Any], clip: float, grid: float, room: Vector) -> None:
    """Adds a few (k, d) gradients to the (d,) sum, in steps of the grid.

    `room` is memory for float64 copies of some columns at a time; at least k numbers.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # is found below, and counts as zero
        gradients = np.asarray(gradients, np.float32)
        squares = _squared_norms(gradients, room)
    finite = np.isfinite(squares)
    if not finite.all():
        gradients, squares = gradients[finite], squares[finite]
    factors = _factors(squares, clip)[:, np.newaxis] / grid
    for columns in _columns(gradients, room):
        steps = _wide(gradients[:, columns], room)
        steps *= factors
        np.rint(steps, out=steps)
        part = total[columns]
        for row in steps:
            part += row


def _squared_norms(gradients: NDArray[np.float32], room: Vector) -> NDArray[np.float64]:
    """(k,) squared norms of (k, d) rows, each from its own row; NaN or inf if a row is not finite.

    Squares of float32 numbers are exact in float64, and even their sum is far from overflow.
    """
    squares = np.zeros(len(gradients))
    for columns in _columns(gradients, room):
        wide = _wide(gradients[:, columns], room)
        np.multiply(wide, wide, out=wide)
        squares += wide.sum(axis=1)
    return squares


def _factors(squares: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """(k,) by what each gradient is multiplied: below 1 where its norm may exceed `clip`."""
    bound = clip * (1 - TOLERANCE)
    norms = np.sqrt(squares)
    factors = np.ones_like(norms)
    np.divide(bound, norms, out=factors, where=norms > bound)
    return factors


def _columns(gradients: NDArray[Any], room: Vector) -> Sequence[slice]:
    """Slices of the (k, d) gradients' columns that fit into the room."""
    rows, size = gradients.shape
    return blocks(size, max(1, len(room) // max(rows, 1)))


def _wide(part: NDArray[Any], room: Vector) -> NDArray[np.float64]:
    """A float64 copy of a part, in memory that is reused."""
    wide = room[: part.size].reshape(part.shape)
    wide[...] = part
    return wide


def _check(clip: float, grid: float) -> None:
    if not 0 < clip < math.inf:
        raise HansaError(
            f"gradients cannot be clipped to a norm of {clip:g}",
            fix="use a positive, finite norm bound",
        )
    if not 0 < grid < math.inf or math.frexp(grid)[0] != 0.5:
        raise HansaError(
            f"a grid of {grid!r} is no power of two, so that sums on it would not be exact",
            fix="use a power of two such as 2**-30",
        )
    if clip / grid >= 2**52:
        raise HansaError(
            f"float64 cannot hold a sum of gradients of norm {clip:g} in steps of {grid:g}",
            fix="use a coarser grid",
        )
