"""Rules that look at each coordinate alone: the median and the trimmed mean (Yin et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.ranks import inner
from hansa.aggregators.robust.rows import (
    Updates,
    bad_count,
    columns,
    in_threads,
    not_finite,
    ordered,
    shaped,
)
from hansa.core.vector import Vector

BLOCK = 2**20
"""Numbers of all updates that are looked at at once: few calls, and still in the cache."""


def median(x: Updates, *, threads: int | None = None) -> NDArray[np.float32]:
    """(d,) medians of n updates by coordinate (Yin et al., ICML 2018, section 4).

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | one                                 | that one                                      |
    | an even number                      | the mean of the two middle values             |
    | fewer than n / 2 are bad            | within the range of the others, by coordinate |
    | n / 2 or more are bad               | anything                                      |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Breakdown point 1/2. Time O(d n log^2 n), memory O(d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take.
    """
    name = "the median"
    rows = shaped(x, name)
    found = np.empty(len(rows[0]), np.float32)
    write_means(rows, around_middle(len(rows)), found, name, threads)
    return found


def trimmed_mean(x: Updates, f: int, *, threads: int | None = None) -> NDArray[np.float32]:
    """(d,) means by coordinate without the f smallest and f largest (Yin et al., section 4).

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | f = 0                               | the mean                                      |
    | n <= 2 f                            | HansaError: nothing would be left             |
    | at most f are bad                   | within the range of the others, by coordinate |
    | more than f are bad                 | anything                                      |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Breakdown point f / n. Values are added in float64. Time O(d n log^2 n), memory O(d) beside the
    updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      f: how many may be bad.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or too few of them for f.
    """
    name = "the trimmed mean"
    f = bad_count(f, name)
    why = f"it drops {f} values at each end of every coordinate"
    rows = shaped(x, name, least=2 * f + 1, why=why)
    found = np.empty(len(rows[0]), np.float32)
    write_means(rows, f, found, name, threads)
    return found


def around_middle(n: int) -> int:
    """How many of n values at each end are not the middle one, or one of the two in the middle."""
    return (n - 1) // 2


def write_means(
    rows: Sequence[Vector],
    drop: int,
    target: NDArray[Any],
    rule: str,
    threads: int | None = None,
) -> None:
    """Writes means by coordinate without the `drop` smallest and largest into (d,) `target`.

    The same bits for the same rows in another order. A sum depends on the order of what is added,
    and what is left is not sorted: so where more than two are added, the rows are put in order
    before. Rows are read once: whether they are finite is seen on the way.

    Args:
      rows: n > 2 drop vectors (d,) of one floating-point type.
      drop: how many at each end.
      target: floating-point numbers.
      rule: its name.
      threads: how many; None for one per core.

    Raises:
      HansaError: a coordinate is not finite; what is in `target` then means nothing.
    """
    if len(rows) - 2 * drop > 2:
        rows = [rows[i] for i in ordered(rows)]

    def fill(block: slice) -> None:
        left = inner([row[block] for row in rows], drop)
        if not left.finite:
            raise not_finite(rule)
        target[block] = mean(left.rows)

    for _ in in_threads(fill, columns(len(target), len(rows), BLOCK), threads):
        pass


def mean(rows: Sequence[Vector]) -> NDArray[np.float64]:
    """(b,) means, added in float64 in the order of the rows; never -0.0."""
    total = np.zeros(len(rows[0]), np.float64)
    for row in rows:
        total += row
    total /= len(rows)
    return total
