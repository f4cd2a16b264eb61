"""Updates as rows that are never copied as a whole: checks, one fixed order, blocks of columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hansa.core.vector import Vector, blocks
from hansa.errors import HansaError

Updates: TypeAlias = NDArray[np.float32] | Sequence[Vector]
"""An (n, d) float32 array, or n vectors (d,) float32 that lie anywhere. They are only read."""

SMALL = 2**18
"""Multiplications in a product of matrices that OpenBLAS does not share among threads of its own.

There are threads already; more would wait for each other, and on a busy machine for long.
"""

Answer = TypeVar("Answer")
Piece = TypeVar("Piece")


def cores() -> int:
    """How many threads are of use: the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(
    work: Callable[[Piece], Answer], pieces: Sequence[Piece], threads: int | None
) -> Iterator[Answer]:
    """The answers in the order of the pieces, whoever is done first.

    NumPy lets go of the interpreter's lock while it computes, so threads are enough.
    """
    count = min(cores() if threads is None else threads, len(pieces))
    if count <= 1:
        yield from map(work, pieces)
        return
    with ThreadPoolExecutor(count) as pool:
        yield from pool.map(work, pieces)


def columns(size: int, clients: int, numbers: int) -> Sequence[slice]:
    """Blocks of columns, so that one of all clients has about `numbers` numbers."""
    return blocks(size, max(256, numbers // clients))


def checked(
    updates: Updates, rule: str, *, least: int = 1, why: str = "", threads: int | None = None
) -> list[Vector]:
    """The n rows, each a view, after the checks that all rules share.

    | updates                                  | result                                |
    |------------------------------------------|---------------------------------------|
    | n vectors of d float32, n >= least       | the rows, not copied                  |
    | denormal, huge or -0.0 coordinates       | the same: they are finite             |
    | NaN or infinity anywhere                 | HansaError: validation comes before   |
    | none, no coordinates, another type       | HansaError                            |
    | vectors of different lengths             | HansaError                            |
    | n < least                                | HansaError                            |

    Raises:
      HansaError: see the table. No message tells a value or whose it is.
    """
    rows = shaped(updates, rule, least=least, why=why)
    if not all(in_threads(_finite, rows, threads)):
        raise not_finite(rule)
    return rows


def shaped(updates: Updates, rule: str, *, least: int = 1, why: str = "") -> list[Vector]:
    """As `checked`, but for the values, for rules that look at them as they go.

    Raises:
      HansaError: these are not vectors of d float32 numbers each, or too few.
    """
    rows = list(updates)
    if not rows or not _is_vector(rows[0]) or any(_form(row) != _form(rows[0]) for row in rows):
        raise HansaError(
            f"{rule} was given something else than n vectors of d float32 numbers",
            fix="give an (n, d) float32 array, or a list of (d,) float32 arrays of one length",
        )
    if len(rows) < least:
        raise HansaError(
            f"{rule} was given {len(rows)} updates and needs at least {least}: {why}",
            fix="wait for more clients, or bear fewer bad ones",
        )
    return rows


def not_finite(rule: str) -> HansaError:
    """NaN or infinity is somewhere."""
    return HansaError(
        f"{rule} was given an update that is not finite",
        fix="reject updates with NaN or infinity before they are aggregated",
    )


def bad_count(bad: object, rule: str) -> int:
    """How many bad updates are to be borne.

    Raises:
      HansaError: it is not a number of clients.
    """
    if isinstance(bad, bool) or not isinstance(bad, int | np.integer) or bad < 0:
        raise HansaError(
            f"{rule} was told to bear {bad!r} bad updates",
            fix="say how many of the updates may be bad, 0 or more",
        )
    return int(bad)


def _form(row: Any) -> tuple[Any, Any]:
    return getattr(row, "dtype", None), getattr(row, "shape", None)


def _is_vector(row: Any) -> bool:
    kind, shape = _form(row)
    return kind == np.float32 and len(shape) == 1 and shape[0] > 0


def _finite(row: Vector) -> bool:
    """Squares do not cancel: a finite sum of squares means finite coordinates, without a copy."""
    if np.isfinite(np.einsum("i,i->", row, row)):
        return True
    return all(bool(np.isfinite(row[block]).all()) for block in blocks(len(row)))


def ordered(rows: Sequence[Vector]) -> list[int]:
    """Positions of the rows in one order that depends on their values alone: lexicographic.

    Sums of floating-point numbers depend on the order, and so do choices between equals. Rules
    that work in this order give the same bits whatever the order of their input. Rows that are
    equal may stand in any order. O(n d) comparisons at most, and n where first coordinates differ.
    """
    found: list[int] = []
    open_groups = [(list(range(len(rows))), 0)]
    while open_groups:
        group, start = open_groups.pop()
        column = _first_difference([rows[i] for i in group], start)
        if column is None:
            found += group
            continue
        values = {i: float(rows[i][column]) for i in group}
        group.sort(key=values.__getitem__)
        parts = [list(part) for _, part in groupby(group, key=values.__getitem__)]
        open_groups += [(part, column + 1) for part in reversed(parts)]
    return found


def _first_difference(rows: Sequence[Vector], start: int) -> int | None:
    """The first column from `start` on in which not all rows are the same, if there is one."""
    step = 64
    while len(rows) > 1 and start < len(rows[0]):
        block = slice(start, start + step)
        differing = [np.flatnonzero(row[block] != rows[0][block]) for row in rows[1:]]
        places = [int(columns[0]) for columns in differing if columns.size]
        if places:
            return start + min(places)
        start, step = start + step, min(2 * step, 65_536)
    return None


def combined(
    rows: Sequence[Vector],
    weights: NDArray[np.float64],
    threads: int | None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """(m, d) float32: m weighted sums of n rows, in float64, by (m, n) weights; may be in place."""
    result = np.empty((len(weights), len(rows[0])), np.float32) if out is None else out
    combine(rows, weights, threads, result)
    return result


def combine(
    rows: Sequence[Vector], weights: NDArray[np.float64], threads: int | None, out: Updates
) -> None:
    """Writes m weighted sums of n rows into m vectors (d,) float32.

    Each block of columns is copied before anything of it is written, so `out` may be the rows.
    """
    n, d = len(rows), len(rows[0])
    narrow = max(16, SMALL // weights.size)

    def fill(block: slice) -> None:
        real = np.empty((n, block.stop - block.start), np.float64)
        for target, row in zip(real, rows, strict=True):
            target[:] = row[block]
        mixed = np.empty((len(weights), real.shape[1]), np.float64)
        for piece in blocks(real.shape[1], narrow):
            np.matmul(weights, real[:, piece], out=mixed[:, piece])
        mixed += 0.0  # no -0.0: it would tell the order of zeros
        for target, values in zip(out, mixed, strict=True):
            target[block] = values

    for _ in in_threads(fill, columns(d, n, 2**18), threads):
        pass
