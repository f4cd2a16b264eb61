"""Lower triangular Toeplitz matrices, as the coefficients of their first column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hansa.core.metrics import Floats


def column(coefficients: Sequence[float], rounds: int) -> Floats:
    """The (rounds,) first column of a banded matrix: its coefficients, then zeros."""
    kept = np.asarray(coefficients[:rounds], np.float64)
    return np.pad(kept, (0, rounds - len(kept)))


def buffered(scales: Sequence[float], decays: Sequence[float], rounds: int) -> Floats:
    """The (rounds,) first column of a buffered linear Toeplitz matrix.

    1, then sum_i scale_i decay_i^(n - 1) for n = 1, 2, ... (Dvijotham et al., FOCS 2024, arXiv
    2404.16706, section 5).
    """
    found = np.zeros(rounds)
    found[0] = 1.0
    for scale, decay in zip(scales, decays, strict=True):
        found[1:] += scale * decay ** np.arange(rounds - 1)
    return found


def square_root(count: int) -> tuple[float, ...]:
    """C(2n, n) / 4^n for n below `count`: the matrix whose square adds up prefixes.

    Of all Toeplitz matrices it has the smallest maximal error where a client takes part once
    (Fichtenberger, Henzinger and Upadhyay, ICML 2023, arXiv 2202.11205; optimal by Dvijotham et
    al., FOCS 2024, arXiv 2404.16706).
    """
    found = [1.0]
    for n in range(1, count):
        found.append(found[-1] * (2 * n - 1) / (2 * n))
    return tuple(found[:count])


def inverse(first: Floats) -> Floats:
    """The first column of the inverse, from the (rounds,) first column; its head is not 0.

    Each entry follows from those before it, as C C^-1 = 1.
    """
    found = np.zeros(len(first))
    found[0] = 1 / first[0]
    for n in range(1, len(first)):
        found[n] = -(first[1 : n + 1] @ found[n - 1 :: -1]) / first[0]
    return found
