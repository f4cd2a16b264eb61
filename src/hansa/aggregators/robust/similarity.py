"""Rules that weigh updates by where they point: FLTrust, FLAME, FoolsGold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.distances import products
from hansa.aggregators.robust.rows import Updates, checked, combined, ordered
from hansa.core.keys import ReplayKey
from hansa.core.vector import Vector
from hansa.errors import HansaError

TINY = 1e-290
"""Stands for a norm of zero where one is divided by; a zero vector has a cosine of 0 with all."""


def fltrust(x: Updates, reference: Vector, *, threads: int | None = None) -> NDArray[np.float32]:
    """(d,): updates as long as a trusted one, weighed by how much they point where it does.

    Cao et al., NDSS 2021, algorithm 2: weight max(0, cos(x_i, r)), each x_i scaled to |r|.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | none points where the reference does| zeros                                         |
    | one is zero, or the reference is    | it has no weight; zeros                       |
    | all the same as the reference       | the reference                                 |
    | any number is bad                   | no longer than the reference                  |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Bears any share of bad clients while the reference is honest and made of data like theirs; it
    is as good as that data. Time O(n d + n^2 d / cores), memory O(d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      reference: (d,) float32: the update that is trusted.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or a reference of another length.
    """
    rows = checked(x, "FLTrust", threads=threads)
    checked([reference], "FLTrust", threads=threads)
    if len(reference) != len(rows[0]):
        raise HansaError(
            f"FLTrust was given a reference of {len(reference):,} coordinates for updates of "
            f"{len(rows[0]):,}",
            fix="give the trusted client's own update",
        )
    rows = [rows[i] for i in ordered(rows)]
    gram = products([*rows, reference], threads)
    norms = np.sqrt(np.diagonal(gram))
    length, lengths = norms[-1], np.maximum(norms[:-1], TINY)
    trust = np.maximum(gram[-1, :-1] / lengths / max(length, TINY), 0.0)
    weights = trust * (length / lengths) / max(float(trust.sum()), TINY)
    return combined(rows, weights[None], threads).reshape(-1)


def flame(
    x: Updates, key: ReplayKey, *, noise: float = 0.0, threads: int | None = None
) -> NDArray[np.float32]:
    """(d,): the mean of a majority that points one way, cut to the median length.

    Nguyen et al., USENIX Security 2022, algorithm 1. HDBSCAN with clusters of more than n / 2
    never splits, so what it admits is the first majority that single linkage joins, by cosine
    distance. The angles are those of updates, not of models, which all start from one point.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | one                                 | that one                                      |
    | all the same                        | that one                                      |
    | one is zero                         | its cosine distance to all others is 1        |
    | a minority points elsewhere         | it is left out, however long                  |
    | a minority points the same way      | it counts, no longer than the median          |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Breakdown point 1/2. Time O(n^2 d), memory O(n^2 + d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      key: what the noise is drawn from.
      noise: standard deviation as a share of the median length (the paper's lambda, which is
        sqrt(2 ln(1.25 / delta)) / epsilon). It blurs backdoors; it is no differential privacy,
        since nothing bounds what the choice of a cluster tells.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or a noise that is negative.
    """
    if not 0 <= noise < math.inf:
        raise HansaError(f"FLAME was given a noise of {noise:g}", fix="take one of 0 or more")
    rows = checked(x, "FLAME", threads=threads)
    rows = [rows[i] for i in ordered(rows)]
    gram = products(rows, threads)
    lengths = np.sqrt(np.diagonal(gram))
    bound = float(np.median(lengths))
    admitted = majority(1 - _cosines(gram))
    cut = np.minimum(1.0, bound / np.maximum(lengths[admitted], TINY)) / len(admitted)
    found = combined([rows[i] for i in admitted], cut[None], threads).reshape(-1)
    if noise:
        found += (noise * bound * key.derive("flame").normal(len(found))).astype(np.float32)
    return found


def majority(distances: NDArray[np.float64]) -> list[int]:
    """Positions, ascending, of the first cluster of more than n / 2 that single linkage makes.

    Args:
      distances: (n, n), symmetric.
    """
    n = len(distances)
    clusters = {i: [i] for i in range(n)}
    of = list(range(n))
    left, right = np.triu_indices(n, 1)
    for pair in np.argsort(distances[left, right], kind="stable"):
        one, other = of[left[pair]], of[right[pair]]
        if len(clusters[one]) > n / 2:
            break
        if one == other:
            continue
        joined = clusters[one] + clusters.pop(other)
        clusters[one] = joined
        for member in joined:
            of[member] = one
        if len(joined) > n / 2:
            break
    sizes = {name: len(cluster) for name, cluster in clusters.items()}
    return sorted(clusters[max(sizes, key=sizes.__getitem__)])


def foolsgold(
    x: Updates, histories: Updates | None = None, *, threads: int | None = None
) -> NDArray[np.float32]:
    """(d,): the mean in which clients that say nearly the same as others hardly count.

    Fung et al., RAID 2020, algorithm 1, with confidence 1: the weight falls with the largest
    cosine between a client's history and another's. Weights are scaled to sum to 1.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | one                                 | that one                                      |
    | all the same                        | zeros: nobody can be told from a Sybil        |
    | pairwise orthogonal                 | the mean                                      |
    | k copies of one among others        | the copies have no weight                     |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Against Sybils only, of which there may be any number; a single liar is not seen, and honest
    clients with like data look like Sybils. Time O(n^2 d), memory O(n^2 + d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      histories: the sum of all updates of each client so far, in the order of x; None: x itself.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or another number of histories.
    """
    rows = checked(x, "FoolsGold", threads=threads)
    past = rows if histories is None else checked(histories, "FoolsGold", threads=threads)
    if len(past) != len(rows):
        raise HansaError(
            f"FoolsGold was given {len(past)} histories of {len(rows)} clients",
            fix="give one history for each update, in the same order",
        )
    order = ordered(rows)
    rows, past = [rows[i] for i in order], [past[i] for i in order]
    weights = _apart(_cosines(products(past, threads)))
    weights /= max(float(weights.sum()), TINY)
    return combined(rows, weights[None], threads).reshape(-1)


def _apart(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) weights between 0 and 1 by unlikeness to all others, with the paper's pardon."""
    if len(cosines) == 1:
        return np.ones(1)
    alike = cosines.copy()
    np.fill_diagonal(alike, -np.inf)
    most = alike.max(axis=1)
    pardoned = np.where(most > 0, most, TINY)
    scale = np.minimum(1.0, pardoned[:, None] / pardoned[None, :])
    alike = np.where(alike > 0, alike * scale, alike)
    weights = np.clip(1 - alike.max(axis=1), 0.0, 1.0)
    if weights.max() < 1e-9:  # the same up to rounding: to scale this up would be to draw lots
        return np.zeros(len(weights))
    weights /= weights.max()
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = np.clip(np.log(weights / (1 - weights)) + 0.5, 0.0, 1.0)
    return found


def _cosines(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) cosines from scalar products; 0 with a zero vector."""
    norms = np.maximum(np.sqrt(np.diagonal(gram)), TINY)
    found: NDArray[np.float64] = np.clip(gram / norms[:, None] / norms, -1.0, 1.0)
    return found
