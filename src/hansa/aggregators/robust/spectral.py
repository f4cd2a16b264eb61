"""Divide and conquer: updates that stand out along the direction of most variance are left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.rows import Updates, bad_count, checked, combined, ordered
from hansa.core.keys import ReplayKey
from hansa.core.vector import Vector
from hansa.errors import HansaError

SAMPLE = 10_000
"""Coordinates that are looked at in one iteration (the paper's b)."""


def dnc(
    x: Updates,
    f: int,
    key: ReplayKey,
    *,
    iterations: int = 3,
    sample: int = SAMPLE,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """(d,): the mean of the updates that no iteration left out.

    Shejwalkar and Houmansadr, NDSS 2021, algorithm 2, with c = 1: in each iteration, of some
    random coordinates, the f updates with the largest squared projections on the top right
    singular vector of the centred updates are left out.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | n <= 2 f, or n <= iterations * f    | HansaError: nobody might be left              |
    | f = 0                               | the mean                                      |
    | at most f bad, all the same way off | the mean of (most of) the others              |
    | bad ones of very different sizes    | no promise: the largest hides the others, so  |
    |                                     | clip before                                   |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    No proved breakdown point against who knows the rule; below 1/2 against the paper's attacks.
    Time O(n d + iterations * n^2 sample), memory O(n sample + d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      f: how many may be bad.
      key: what coordinates are drawn from. Whoever knows it knows where nobody looks.
      iterations: how often; each leaves out f.
      sample: coordinates in each iteration; all where there are fewer.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or too few of them.
    """
    f = bad_count(f, "DnC")
    if iterations < 1 or sample < 1:
        raise HansaError(
            f"DnC was given {iterations} iterations of {sample} coordinates",
            fix="take 1 or more of each",
        )
    why = f"each of {iterations} iterations leaves out {f}"
    rows = checked(x, "DnC", least=max(2, iterations) * f + 1, why=why, threads=threads)
    rows = [rows[i] for i in ordered(rows)]
    kept = set(range(len(rows)))
    for number in range(iterations):
        scores = _outlying(rows, key.generator("dnc", number), sample)
        kept &= set(np.argsort(scores, kind="stable")[: len(rows) - f].tolist())
    weights = np.full((1, len(kept)), 1 / len(kept))
    return combined([rows[i] for i in sorted(kept)], weights, threads).reshape(-1)


def _outlying(
    rows: list[Vector], generator: np.random.Generator, sample: int
) -> NDArray[np.float64]:
    """(n,) squared projections, up to one factor, of the centred rows in some coordinates.

    The projections on the top right singular vector are the top left one times its singular
    value, and that is an eigenvector of the (n, n) products.
    """
    size = len(rows[0])
    chosen = np.arange(size)
    if sample < size:
        chosen = np.sort(generator.choice(size, sample, replace=False, shuffle=False))
    seen = np.stack([row[chosen] for row in rows]).astype(np.float64)
    seen -= seen.mean(axis=0)
    _, vectors = np.linalg.eigh(seen @ seen.T)
    return np.asarray(vectors[:, -1] ** 2)
