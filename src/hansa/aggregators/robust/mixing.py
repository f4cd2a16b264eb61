"""What comes before a rule: updates are mixed, so that honest ones look more alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.distances import squared
from hansa.aggregators.robust.rows import (
    Updates,
    bad_count,
    checked,
    combine,
    combined,
    ordered,
)
from hansa.core.keys import ReplayKey
from hansa.core.vector import Vector
from hansa.errors import HansaError

_NEAREST = "nearest-neighbour mixing"


def nearest_neighbor_mixing(
    x: Updates,
    f: int,
    *,
    out: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """(n, d): each update becomes the mean of the n - f closest to it, itself among them.

    Allouah et al., AISTATS 2023, algorithm 2 (NNM). Any robust rule comes after it.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | n <= 2 f                            | HansaError: bad ones could be the majority    |
    | f = 0                               | n times the mean                              |
    | two are as close                    | the first in lexicographic order              |
    | at most f are bad                   | honest ones become means of close ones        |
    | the same ones in another order      | the same rows in that order, bit by bit       |
    | NaN, infinity, another type         | HansaError                                    |

    Bears f < n / 2 with a rule that does. Time O(n^2 d). The result is as large as the updates;
    with `out=x` it takes their place and no more memory than O(n^2) is needed.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      f: how many may be bad.
      out: (n, d) float32 to write into; may be x itself. None: a new array.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, too few of them for f, or another form of `out`.
    """
    rows, weights = _nearest(x, f, threads)
    if out is not None and (out.shape != (len(rows), len(rows[0])) or out.dtype != np.float32):
        raise HansaError(
            f"{_NEAREST} of {len(rows)} updates cannot be written into {out.dtype.name} "
            f"{out.shape}",
            fix="give a float32 array of the updates' shape as `out`",
        )
    return combined(rows, weights, threads, out)


def mix_nearest(x: Sequence[Vector], f: int, *, threads: int | None = None) -> None:
    """The same for n vectors that lie anywhere, each of which is overwritten.

    Raises:
      HansaError: updates that no rule can take, or too few of them for f.
    """
    rows, weights = _nearest(x, f, threads)
    combine(rows, weights, threads, x)


def _nearest(x: Updates, f: int, threads: int | None) -> tuple[list[Vector], NDArray[np.float64]]:
    """The rows in their own order, and the (n, n) weights that mix them, in the order of x."""
    f = bad_count(f, _NEAREST)
    why = f"of the n - {f} closest to an honest one, most must be honest"
    rows = checked(x, _NEAREST, least=2 * f + 1, why=why, threads=threads)
    n, order = len(rows), ordered(rows)
    rows = [rows[i] for i in order]
    closest = np.argsort(squared(rows, threads), axis=1, kind="stable")[:, : n - f]
    weights = np.zeros((n, n), np.float64)
    for place, near in zip(order, closest, strict=True):
        weights[place, near] = 1 / (n - f)
    return rows, weights


def bucketing(
    x: Updates, size: int, key: ReplayKey, *, threads: int | None = None
) -> NDArray[np.float32]:
    """(ceil(n / size), d): means of random buckets of `size` updates.

    Karimireddy et al., ICLR 2022, algorithm 1. One bad update spoils one bucket, so the rule that
    comes after has to bear as many bad buckets as there are bad updates.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | size = 1                            | the updates, in another order                 |
    | n is no multiple of size            | the last bucket is smaller                    |
    | size >= n                           | one: the mean                                 |
    | f are bad                           | at most f buckets are                         |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Bears f < n / (2 size) with a rule that bears a minority. Time O(n^2 d / size), memory
    O(n d / size) beside the updates: the result.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      size: updates in a bucket; 2 is the paper's choice.
      key: what buckets are drawn from; a new one in each round, unknown to clients.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or a size below 1.
    """
    if size < 1:
        raise HansaError(f"buckets of {size} updates hold nothing", fix="take a size of 1 or more")
    rows = checked(x, "bucketing", threads=threads)
    n, order = len(rows), ordered(rows)
    drawn = key.generator("bucketing").permutation(n)
    weights = np.zeros((-(-n // size), n), np.float64)
    for bucket, start in zip(weights, range(0, n, size), strict=True):
        members = drawn[start : start + size]
        bucket[members] = 1 / len(members)
    return combined([rows[i] for i in order], weights, threads)
