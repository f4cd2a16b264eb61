"""The rows of wanted ranks, were each column sorted: networks as minima and maxima of whole rows.

    network -> program -> np.minimum and np.maximum of blocks of columns

A program computes what a wanted row depends on and nothing else. Where the order of the wanted rows
among themselves does not matter, for a sum, comparators between them are left out. The smallest and
the largest row of all cost a few steps more and tell whether everything was finite: infinity is at
an end, and NaN spreads to whatever it meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from hansa.aggregators.robust.network import Network, Pair, parting, sorting
from hansa.core.vector import Vector

MOST = 64
"""Rows up to which a network is used. Beyond it, it costs more than sorting each column."""

Step: TypeAlias = tuple[np.ufunc, int, int, int]
"""A minimum or a maximum, the two registers it is of, and the one that it is written into."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to compute in which order: registers below n are the rows, which are only read.

    Attributes:
      steps: minima and maxima.
      outputs: registers of the rows that were asked for.
      lowest: the register of the smallest row of all.
      highest: the register of the largest row of all.
      buffers: how many registers there are beside the rows.
    """

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    lowest: int
    highest: int
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


@dataclass(frozen=True, slots=True)
class Inner:
    """What is left of n rows where the smallest and the largest of each column were left out.

    Attributes:
      rows: (b,) each; may be views of the caller's rows, which are not to be written.
      lowest: (b,) smallest values of all. NaN where there is one in the column.
      highest: (b,) largest values of all. NaN where there is one in the column.
    """

    rows: Sequence[Vector]
    lowest: Vector
    highest: Vector

    @property
    def finite(self) -> bool:
        """Whether all rows that there were are finite."""
        return bool(np.isfinite(self.lowest.min()) and np.isfinite(self.highest.max()))


def inner(parts: Sequence[Vector], drop: int) -> Inner:
    """Leaves out the `drop` smallest and largest of n rows (b,) in each column; 2 drop < n.

    Which of the rest stands where depends on the order of `parts` too, and so does the last bit of
    their sum. Of equal zeros any sign.
    """
    if not drop:
        return Inner(parts, _end(np.minimum, parts), _end(np.maximum, parts))
    if len(parts) > MOST:
        table = _sorted_columns(parts)
        return Inner(table[drop : len(table) - drop], table[0], table[-1])
    program = leaving_out(len(parts), drop)
    registers = _run(program, parts)
    rows = [registers[output] for output in program.outputs]
    return Inner(rows, registers[program.lowest], registers[program.highest])


def ascending(parts: Sequence[Vector]) -> Sequence[Vector]:
    """Sorts each column of n rows (b,). Finite values only; of equal zeros any sign."""
    if len(parts) > MOST:
        return _sorted_columns(parts)
    program = in_order(len(parts))
    registers = _run(program, parts)
    return [registers[output] for output in program.outputs]


@lru_cache(maxsize=64)
def in_order(n: int) -> Program:
    """Sorts n rows: 790 minima and maxima for 50."""
    return _program(n, sorting(n), ordered=True)


@lru_cache(maxsize=64)
def leaving_out(n: int, drop: int) -> Program:
    """Leaves out the `drop` smallest and largest of n rows.

    For 50 rows 560 minima and maxima where ten are left out at each end, 610 for the median.
    """
    network = sorting(n)
    rest = replace(network, places=network.places[drop : n - drop])
    found = _program(n, rest, ordered=False)
    parted = parting(n, drop)
    if parted is not None:
        found = min(found, _program(n, parted, ordered=False), key=_cost)
    return found


def _cost(program: Program) -> int:
    return len(program.steps)


def _program(n: int, network: Network, *, ordered: bool) -> Program:
    steps: list[Step] = []
    registers, place = _Registers(n), list(range(n))
    for (low, high), smaller, larger in _needed(network, ordered=ordered):
        left, right = place[low], place[high]
        if smaller and larger:
            place[low] = registers.take()
            steps.append((np.minimum, left, right, place[low]))
        target = next((used for used in (left, right) if used >= n), None)
        if target is None:
            target = registers.take()
        registers.release(right if target == left else left)
        steps.append((np.maximum if larger else np.minimum, left, right, target))
        place[high if larger else low] = target
    return Program(
        steps=tuple(steps),
        outputs=tuple(place[i] for i in network.places),
        lowest=place[network.lowest],
        highest=place[network.highest],
        buffers=registers.count,
    )


def _needed(network: Network, *, ordered: bool) -> list[tuple[Pair, bool, bool]]:
    """Comparators without which something wanted would change, and which halves of them.

    Backwards: `alive` are places whose row at that time matters, `loose` those of them that may
    still be exchanged for each other, as nothing but the sum of all of them is wanted.
    """
    ends = {network.lowest, network.highest}
    alive = ends | set(network.places)
    loose = set() if ordered else set(network.places) - ends
    kept = []
    for pair in reversed(network.pairs):
        smaller, larger = (place in alive for place in pair)
        if (smaller or larger) and not loose.issuperset(pair):
            kept.append((pair, smaller, larger))
            alive.update(pair)
            loose.difference_update(pair)
    return kept[::-1]


def _end(choose: np.ufunc, parts: Sequence[Vector]) -> Vector:
    """The smallest or the largest of all rows."""
    end: Vector = choose(parts[0], parts[-1])
    for row in parts[1:-1]:
        choose(end, row, out=end)
    return end


def _run(program: Program, parts: Sequence[Vector]) -> list[Vector]:
    """All registers at the end."""
    buffers = np.empty((program.buffers, len(parts[0])), parts[0].dtype)
    registers = [*parts, *buffers]
    for choose, left, right, target in program.steps:
        choose(registers[left], registers[right], out=registers[target])
    return registers


def _sorted_columns(parts: Sequence[Vector]) -> list[Vector]:
    """All n rows, (b,) each; NaN is the largest."""
    table = np.empty((len(parts[0]), len(parts)), parts[0].dtype)
    np.copyto(table, np.stack(parts).T)  # stacked first: columns from rows far apart are slow
    table.sort(axis=1)
    return list(np.ascontiguousarray(table.T))
