"""Rules that pick updates with close neighbours: Krum, multi-Krum, Bulyan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.by_coordinate import BLOCK, mean
from hansa.aggregators.robust.distances import squared
from hansa.aggregators.robust.ranks import ascending
from hansa.aggregators.robust.rows import (
    Updates,
    bad_count,
    checked,
    columns,
    combined,
    in_threads,
    ordered,
)
from hansa.core.vector import Vector


def krum(x: Updates, f: int, *, threads: int | None = None) -> NDArray[np.float32]:
    """(d,): the update with the closest n - f - 2 others (Blanchard et al., NeurIPS 2017, sec. 4).

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | n < 2 f + 3                         | HansaError: the proof needs them              |
    | all the same                        | that one                                      |
    | two have the same score             | the first in lexicographic order              |
    | at most f are bad                   | one update that has honest neighbours         |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Breakdown point below 1/2. Only one client's update counts: noisy, and poor on skewed data.
    Time O(n^2 d), memory O(n^2 + d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      f: how many may be bad.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or too few of them for f.
    """
    rows, f = _for_krum(x, f, "Krum", threads)
    scores = _scores(squared(rows, threads), f)
    return rows[int(np.argmin(scores))] + np.float32(0)  # a copy, and no -0.0


def multi_krum(x: Updates, f: int, *, threads: int | None = None) -> NDArray[np.float32]:
    """(d,): the mean of the n - f updates with the best scores of Krum (Blanchard et al., sec. 6).

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | n < 2 f + 3                         | HansaError: the proof needs them              |
    | f = 0                               | the mean                                      |
    | at most f are bad and far away      | the mean of the others                        |
    | at most f are bad and close         | near the others; bad ones may be in the mean  |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Breakdown point below 1/2. Time O(n^2 d), memory O(n^2 + d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      f: how many may be bad.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or too few of them for f.
    """
    rows, f = _for_krum(x, f, "multi-Krum", threads)
    scores = _scores(squared(rows, threads), f)
    best = np.argsort(scores, kind="stable")[: len(rows) - f]
    weights = np.full((1, len(best)), 1 / len(best))
    return combined([rows[i] for i in sorted(best)], weights, threads).reshape(-1)


def bulyan(x: Updates, f: int, *, threads: int | None = None) -> NDArray[np.float32]:
    """(d,): Krum chooses, then each coordinate is a mean around its median.

    El Mhamdi et al., ICML 2018, section 4: Krum takes n - 2 f updates, one after the other; of
    their values in a coordinate the n - 4 f closest to the median are averaged.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | n < 4 f + 3                         | HansaError: the proof needs them              |
    | f = 0                               | the mean                                      |
    | two values are as far from a median | the smaller one counts                        |
    | at most f are bad                   | close to the others in every coordinate       |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Breakdown point below 1/4. Time O(n^2 d + n^3), memory O(n^2 + d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      f: how many may be bad.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or too few of them for f.
    """
    f = bad_count(f, "Bulyan")
    why = f"more than three quarters must be honest, here all but {f}"
    rows = checked(x, "Bulyan", least=4 * f + 3, why=why, threads=threads)
    rows = [rows[i] for i in ordered(rows)]
    chosen = [rows[i] for i in _krum_in_turn(squared(rows, threads), f)]
    found = np.empty(len(rows[0]), np.float32)

    def fill(block: slice) -> None:
        values = ascending([row[block] for row in chosen])
        found[block] = _around_the_median(values, 2 * f)

    for _ in in_threads(fill, columns(len(found), len(chosen), BLOCK), threads):
        pass
    return found


def _for_krum(x: Updates, f: int, name: str, threads: int | None) -> tuple[list[Vector], int]:
    """Rows in lexicographic order, and f."""
    f = bad_count(f, name)
    why = f"each is compared with its n - {f} - 2 closest others, most of which must be honest"
    rows = checked(x, name, least=2 * f + 3, why=why, threads=threads)
    return [rows[i] for i in ordered(rows)], f


def _scores(distances: NDArray[np.float64], f: int) -> NDArray[np.float64]:
    """(n,) sums of squared distances to the n - f - 2 closest others, at least one."""
    others = np.sort(distances, axis=1)[:, 1:]  # a row's distance to itself is 0, hence first
    return np.asarray(others[:, : max(1, len(distances) - f - 2)].sum(axis=1))


def _krum_in_turn(distances: NDArray[np.float64], f: int) -> list[int]:
    """Positions of n - 2 f rows, ascending: Krum's choice, its choice among the rest, and so on."""
    left, chosen = list(range(len(distances))), []
    for _ in range(len(distances) - 2 * f):
        best = int(np.argmin(_scores(distances[np.ix_(left, left)], f)))
        chosen.append(left.pop(best))
    return sorted(chosen)


def _around_the_median(values: Sequence[Vector], drop: int) -> NDArray[np.float64]:
    """(b,) means of all but `drop` of the sorted values, those closest to their median.

    The closest values are neighbours in the order, so they are found by their first one.
    """
    size = len(values) - drop
    middle = mean(values[(len(values) - 1) // 2 : len(values) // 2 + 1])
    first = np.zeros(len(middle), np.int64)
    reach = np.full(len(middle), np.inf)
    for start in range(drop + 1):
        further = np.maximum(middle - values[start], values[start + size - 1] - middle)
        closer = further < reach
        first[closer], reach[closer] = start, further[closer]
    total = np.zeros(len(middle), np.float64)
    for place, row in enumerate(values):
        inside = (first <= place) & (place < first + size)
        total += np.where(inside, row, np.float32(0))
    return total / size
