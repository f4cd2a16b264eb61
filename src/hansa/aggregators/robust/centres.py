"""Rules that look for one centre of all updates: geometric median, centred clipping."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.distances import from_products, products
from hansa.aggregators.robust.rows import (
    Updates,
    checked,
    columns,
    combined,
    in_threads,
    ordered,
)
from hansa.core.vector import Vector
from hansa.errors import HansaError

STEPS = 1_000
"""Steps of Weiszfeld at most; each is O(n^2), nothing beside one pass over the updates."""

PRECISION = 0.1
"""Steps end where one moves by less than this share of nu."""


def geometric_median(
    x: Updates, *, smoothing: float = 1e-6, threads: int | None = None
) -> NDArray[np.float32]:
    """(d,): the point with the smallest sum of distances to all updates.

    Smoothed Weiszfeld (Pillutla et al., IEEE TSP 2022, algorithm 2): weights 1 / max(distance, nu).
    Every iterate is a weighted mean of the updates, so distances follow from scalar products of
    updates, which are computed once. nu is relative to the median distance between updates (the
    paper has an absolute one), so that the rule does not depend on the scale.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | one                                 | that one                                      |
    | more than half are the same         | that one                                      |
    | fewer than n / 2 are bad            | within 2 (n - f) / (n - 2 f) of the honest    |
    |                                     | radius from the honest centre                 |
    | n / 2 or more are bad               | anything                                      |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    Breakdown point 1/2. Time O(n^2 d), memory O(n^2 + d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      smoothing: nu, a share of the median distance between updates.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or a smoothing that is not positive.
    """
    name = "the geometric median"
    if not 0 < smoothing < 1:
        raise HansaError(
            f"{name} was given a smoothing of {smoothing:g}", fix="take one between 0 and 1"
        )
    rows = checked(x, name, threads=threads)
    rows = [rows[i] for i in ordered(rows)]
    weights = weiszfeld(products(rows, threads), smoothing)
    return combined(rows, weights[None], threads).reshape(-1)


def weiszfeld(gram: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    """(n,) weights of the updates in their geometric median, from their (n, n) scalar products.

    For a point with weights a that sum to 1, the squared distance to update i is
    G_ii - 2 (G a)_i + a G a. A liar at distance R has a weight of about 1 / R, so no term is much
    larger than honest distances, and rounding does no harm; from squared distances alone there
    would be terms of R. Nor does a sum of distances, which a liar dominates, say when to end.

    The start gives each update the weight 1 / (its median distance to the others): a minority
    that lies far away hardly counts from the first step on.
    """
    n = len(gram)
    typical = np.sqrt(np.sort(from_products(gram), axis=1)[:, n // 2])
    # A tiny number instead of zero: weights of a majority that is one point stay finite.
    nu = max(smoothing * float(np.sort(typical)[(n - 1) // 2]), 1e-290)
    norms = np.diagonal(gram)
    weights = _shares(typical, nu)
    for _ in range(STEPS):
        along = gram @ weights
        gaps = np.sqrt(np.maximum(norms - 2 * along + weights @ along, 0.0))
        before, weights = weights, _shares(gaps, nu)
        step = weights - before
        if step @ gram @ step <= (PRECISION * nu) ** 2:
            break
    return weights


def _shares(gaps: NDArray[np.float64], nu: float) -> NDArray[np.float64]:
    inverse = 1 / np.maximum(gaps, nu)
    return np.asarray(inverse / inverse.sum())


def centered_clipping(
    x: Updates,
    radius: float,
    center: Vector,
    *,
    iterations: int = 1,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """(d,): the centre, moved by the mean of what updates differ from it, each cut to a length.

    v <- v + mean_i (x_i - v) min(1, radius / |x_i - v|), repeated (Karimireddy et al., ICML 2021,
    algorithm 2). The centre is what is known from before, the last round's result.

    | updates                             | result                                        |
    |-------------------------------------|-----------------------------------------------|
    | all within the radius of the centre | the mean, after one iteration                 |
    | any, all of them bad                | within iterations * radius of the centre      |
    | f are bad                           | moved by them by at most f radius / n, in one |
    |                                     | iteration                                     |
    | the same ones in another order      | the same bits, with any number of threads     |
    | NaN, infinity, another type         | HansaError                                    |

    No breakdown point of its own: a bad majority pulls by the radius in each round, and a bad
    centre is never left by more. Needs momentum on the clients to be proved. Time O(n d) for each
    iteration, memory O(d) beside the updates.

    Args:
      x: (n, d) float32, or n vectors (d,) float32.
      radius: the length that differences are cut to, in the updates' own units.
      center: (d,) float32.
      iterations: how often.
      threads: how many; None for one per core.

    Raises:
      HansaError: updates that no rule can take, or a radius, a centre or a count that is none.
    """
    name = "centred clipping"
    rows = checked(x, name, threads=threads)
    checked([center], name, threads=threads)
    if len(center) != len(rows[0]) or not 0 < radius < math.inf or iterations < 1:
        raise HansaError(
            f"{name} was given a radius of {radius:g}, {iterations} iterations and a centre of "
            f"{len(center):,} coordinates for updates of {len(rows[0]):,}",
            fix="take a positive radius, 1 or more iterations, and a centre as long as an update",
        )
    rows = [rows[i] for i in ordered(rows)]
    everything = [*rows, center]
    shares = np.zeros(len(everything), np.float64)
    shares[-1] = 1.0
    place: Vector = center
    for _ in range(iterations):
        gaps = np.sqrt(_squares_from(rows, place, threads))
        cut = radius / np.maximum(gaps, radius) / len(rows)
        shares *= 1 - cut.sum()
        shares[:-1] += cut
        place = combined(everything, shares[None], threads)[0]
    return place


def _squares_from(rows: list[Vector], place: Vector, threads: int | None) -> NDArray[np.float64]:
    """(n,) squared distances from a (d,) place."""

    def block_squares(block: slice) -> NDArray[np.float64]:
        here = place[block].astype(np.float64)
        return np.array([_square(row[block] - here) for row in rows])

    total = np.zeros(len(rows), np.float64)
    for part in in_threads(block_squares, columns(len(place), len(rows), 2**18), threads):
        total += part
    return total


def _square(values: NDArray[np.float64]) -> float:
    return float(np.einsum("i,i->", values, values))
