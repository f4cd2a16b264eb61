"""Rules that look at each coordinate alone: the median and the trimmed mean (Yin et al., 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.network import smallest
from hansa.aggregators.robust.rows import Updates, bad_count, checked, columns, in_threads
from hansa.core.vector import Vector

BLOCK = 2**20 - 2**18
"""Numbers of all updates that are sorted at once: few calls, and still in the cache."""


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
    rows = checked(x, "the median", threads=threads)
    n, found = len(rows), np.empty(len(rows[0]), np.float32)

    def fill(block: slice) -> None:
        middle = smallest(rows, block, (n - 1) // 2, n // 2 + 1)
        found[block] = mean(middle)

    for _ in in_threads(fill, columns(len(found), n, BLOCK), threads):
        pass
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

    Breakdown point f / n. Values are added in ascending order, in float64. Time O(d n log^2 n),
    memory O(d) beside the updates.

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
    rows = checked(x, name, least=2 * f + 1, why=why, threads=threads)
    n, found = len(rows), np.empty(len(rows[0]), np.float32)

    def fill(block: slice) -> None:
        found[block] = mean(smallest(rows, block, f, n - f))

    for _ in in_threads(fill, columns(len(found), n, BLOCK), threads):
        pass
    return found


def mean(rows: list[Vector]) -> NDArray[np.float64]:
    """(b,) means, added in float64 in the order of the rows; never -0.0."""
    total = np.zeros(len(rows[0]), np.float64)
    for row in rows:
        total += row
    total /= len(rows)
    return total
