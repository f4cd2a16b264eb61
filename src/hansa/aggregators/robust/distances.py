"""Squared distances of all pairs of updates, from one pass over blocks of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.robust.rows import columns, in_threads
from hansa.core.vector import Vector


def products(rows: Sequence[Vector], threads: int | None) -> NDArray[np.float64]:
    """(n, n) scalar products, symmetric.

    In float64: the squares of the largest float32 numbers do not overflow, and what one huge row
    loses to rounding is its own. Blocks are added in their order, so that threads change nothing.
    """

    def block_products(block: slice) -> NDArray[np.float64]:
        real = np.empty((len(rows), block.stop - block.start), np.float64)
        for target, row in zip(real, rows, strict=True):
            target[:] = row[block]
        return np.asarray(real @ real.T)

    total = np.zeros((len(rows), len(rows)), np.float64)
    for part in in_threads(block_products, columns(len(rows[0]), len(rows), 2**18), threads):
        total += part
    return total


def squared(rows: Sequence[Vector], threads: int | None) -> NDArray[np.float64]:
    """(n, n) squared Euclidean distances. Time O(n^2 d), memory O(n^2)."""
    return from_products(products(rows, threads))


def from_products(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) squared Euclidean distances, zeros on the diagonal.

    |a|^2 + |b|^2 - 2 ab loses what is below 1e-15 of the squared norms: rows that differ by less
    than 3e-8 of their norm, half a float32, may seem equal.
    """
    norms = np.diagonal(gram)
    found = np.maximum(norms[:, None] + norms - 2 * gram, 0.0)
    np.fill_diagonal(found, 0.0)
    return found
