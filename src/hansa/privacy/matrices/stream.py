"""The rows of C^-1 Z, one at a time, from a few vectors that are kept.

| kind     | work per row and coordinate      | kept                                              |
|----------|----------------------------------|---------------------------------------------------|
| identity | a sample                         | nothing                                           |
| tree     | two samples on average           | the estimates of the nodes of the last prefix     |
| banded   | a sample, and one step per band  | the last rows (Choquette-Choo et al., NeurIPS     |
|          |                                  | 2023, arXiv 2306.08153, algorithm 9)              |
| blt      | a sample, two steps per buffer   | the buffers (Dvijotham et al., FOCS 2024, arXiv   |
|          |                                  | 2404.16706, section 5; McMahan et al., 2024,      |
|          |                                  | arXiv 2408.08868)                                 |

Everything is float64. What is released is rounded to a grid that is 2^30 times finer than the
noise, and noise in float32 has only 2^24 values for each power of two: its own rounding would
show through the grid, and with it the low bits of the sum (Mironov, CCS 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hansa.core.metrics import Floats
from hansa.core.vector import blocks
from hansa.privacy.matrices import tree
from hansa.privacy.matrices.strategy import Strategy

Draw = Callable[[int], NDArray[np.float64]]
"""New (d,) standard normal samples, which the caller may write to, for the node that a row
completes at a level; level 0 is the row itself."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the next row needs of those before it; secret, as it is noise.

    Attributes:
      row: the next row, from 0.
      kept: (d,) float64 vectors. Of `banded` the last rows, newest first; of `blt` the buffers; of
        `tree` the estimates, largest node first.
    """

    row: int = 0
    kept: tuple[Floats, ...] = field(default=(), repr=False)


def advance(strategy: Strategy, memory: Memory, draw: Draw) -> tuple[Memory, Floats]:
    """The memory after the next row, and the row: (d,) float64, in units of a sample of Z.

    `memory` is consumed. The row may be kept in the new memory, so nobody writes to it.
    """
    if strategy.kind == "tree":
        kept, row = _tree(strategy, memory, draw)
    elif strategy.kind == "banded":
        kept, row = _banded(strategy, memory.kept, draw(0))
    elif strategy.kind == "blt":
        kept, row = _buffered(strategy, memory.kept, draw(0))
    else:
        kept, row = (), draw(0)
    return replace(memory, row=memory.row + 1, kept=kept), row


def _banded(
    strategy: Strategy, kept: tuple[Floats, ...], row: Floats
) -> tuple[tuple[Floats, ...], Floats]:
    """The row is (z - sum_j c_j * the row j before) / c_0."""
    for block in blocks(len(row)):
        part = row[block]
        for coefficient, earlier in zip(strategy.coefficients[1:], kept, strict=False):
            part -= coefficient * earlier[block]
        part /= strategy.coefficients[0]
    return (row, *kept)[: strategy.bands - 1], row


def _buffered(
    strategy: Strategy, kept: tuple[Floats, ...], row: Floats
) -> tuple[tuple[Floats, ...], Floats]:
    """The row is z - sum_i scale_i buffer_i; then buffer_i is decay_i buffer_i + the row."""
    kept = kept or tuple(np.zeros(len(row)) for _ in strategy.decays)
    for block in blocks(len(row)):
        part = row[block]
        for scale, buffer in zip(strategy.coefficients, kept, strict=True):
            part -= scale * buffer[block]
        for decay, buffer in zip(strategy.decays, kept, strict=True):
            buffer[block] *= decay
            buffer[block] += part
    return kept, row


def _tree(strategy: Strategy, memory: Memory, draw: Draw) -> tuple[tuple[Floats, ...], Floats]:
    """The estimate of the node that the row completes, less those that it replaces."""
    weights = tree.variances(tree.levels(strategy.rounds))
    estimate, kept, level = draw(0), list(memory.kept), 0
    replaced = np.zeros(len(estimate))
    while memory.row >> level & 1:
        left, level = kept.pop(), level + 1
        own, weight = draw(level), weights[level]
        for block in blocks(len(estimate)):
            replaced[block] += left[block]
            estimate[block] += left[block]
            estimate[block] *= 1 - weight
            estimate[block] += weight * own[block]
    return (*kept, estimate), estimate - replaced
