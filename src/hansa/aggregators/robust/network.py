"""Sorting networks: the order of n rows in each column, by minima and maxima of whole rows.

x0 ──┬──── min          A comparator puts the smaller of two rows first, in every column at
     │                  once. Which rows meet does not depend on values, so there are no
x1 ──┴──── max          branches, and NumPy computes each minimum with vector instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from hansa.core.vector import Vector

MOST = 64
"""Rows up to which a network is faster than sorting each column: ten times for 5, 1.5 for 50."""


@dataclass(frozen=True, slots=True)
class Step:
    """register[target] = the minimum or the maximum of two registers."""

    smaller: bool
    left: int
    right: int
    target: int


@dataclass(frozen=True, slots=True)
class Program:
    """What to compute in which order: registers below n are the rows, which are only read.

    Attributes:
      steps: minima and maxima.
      outputs: registers of the rows that were asked for, in ascending order.
      buffers: how many registers there are beside the rows.
    """

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    buffers: int


@dataclass(slots=True)
class _Registers:
    """Gives out buffers, those that were used last first: they are still in the cache."""

    n: int
    count: int = 0
    free: list[int] = field(default_factory=list)

    def take(self) -> int:
        """A buffer that nobody needs."""
        if self.free:
            return self.free.pop()
        self.count += 1
        return self.n + self.count - 1

    def release(self, register: int) -> None:
        """Nobody needs it any more; a row of the caller is never given out."""
        if register >= self.n:
            self.free.append(register)


def batcher(n: int) -> list[tuple[int, int]]:
    """Pairs of an odd-even merge sort of n rows, the smaller one first (Batcher, AFIPS 1968).

    The network of the next power of two without the pairs that reach beyond n: those would
    compare with infinity. O(n log^2 n) pairs, 403 for 50 rows.
    """
    size = 1
    while size < n:
        size *= 2
    return [(low, high) for low, high in _sort(0, size) if high < n]


def _sort(start: int, size: int) -> Iterator[tuple[int, int]]:
    if size > 1:
        yield from _sort(start, size // 2)
        yield from _sort(start + size // 2, size // 2)
        yield from _merge(start, size, 1)


def _merge(start: int, size: int, gap: int) -> Iterator[tuple[int, int]]:
    if 2 * gap >= size:
        yield start, start + gap
        return
    yield from _merge(start, size, 2 * gap)
    yield from _merge(start + gap, size, 2 * gap)
    for low in range(start + gap, start + size - gap, 2 * gap):
        yield low, low + gap


@lru_cache(maxsize=64)
def program(n: int, first: int, last: int) -> Program:
    """Computes the rows that are first .. last - 1 in each column, counted from the smallest.

    What no wanted row depends on is left out: a median of 50 needs 612 of 806 minima and maxima.
    """
    alive, kept = set(range(first, last)), []
    for low, high in reversed(batcher(n)):
        if low in alive or high in alive:
            kept.append((low, high, low in alive, high in alive))
            alive |= {low, high}
    steps: list[Step] = []
    registers, place = _Registers(n), list(range(n))
    for low, high, smaller, larger in reversed(kept):
        left, right = place[low], place[high]
        if smaller and larger:
            place[low] = registers.take()
            steps.append(Step(smaller=True, left=left, right=right, target=place[low]))
        target = next((used for used in (left, right) if used >= n), None)
        if target is None:
            target = registers.take()
        registers.release(right if target == left else left)
        steps.append(Step(smaller=not larger, left=left, right=right, target=target))
        place[high if larger else low] = target
    return Program(tuple(steps), tuple(place[first:last]), registers.count)


def smallest(rows: Sequence[Vector], block: slice, first: int, last: int) -> list[Vector]:
    """The rows first .. last - 1 of a block of columns, were each column sorted.

    (b,) float32 each, which may be views of the rows and are not to be written. Finite values
    only. Both ways give the same values; of equal zeros any sign.
    """
    parts = [row[block] for row in rows]
    if len(rows) > MOST:
        table = np.stack(parts, axis=1)
        table.sort(axis=1)
        return list(np.ascontiguousarray(table[:, first:last].T))
    plan = program(len(rows), first, last)
    registers = [*parts, *np.empty((plan.buffers, len(parts[0])), np.float32)]
    for step in plan.steps:
        choose = np.minimum if step.smaller else np.maximum
        choose(registers[step.left], registers[step.right], out=registers[step.target])
    return [registers[output] for output in plan.outputs]
