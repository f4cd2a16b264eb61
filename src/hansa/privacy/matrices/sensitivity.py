"""How far one client moves C X, in units of how far it moves one row of X.

    max over patterns of || sum over a client's rounds of C[:, round] u ||,   ||u|| <= 1

Entries of C are not negative, or columns do not overlap; then it is largest where the client does
the same in all its rounds, and only the pattern is to be found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hansa.core.metrics import Floats
from hansa.errors import HansaError


def of_separate_columns(coefficients: Sequence[float], participations: int) -> float:
    """sqrt(k) times the norm of a column, of a Toeplitz matrix of at most b bands.

    Columns b rounds apart share no row, so that they are orthogonal whatever their signs
    (Choquette-Choo et al., NeurIPS 2023, arXiv 2306.08153). Columns that are cut off at the end of
    the run are counted as if they were not: so is each participation alone at most a k-th of it.
    """
    return math.sqrt(participations * math.fsum(c * c for c in coefficients))


def of_decreasing(first: Floats, separation: int, participations: int) -> float:
    """Exact sensitivity of a Toeplitz matrix whose coefficients fall and are not negative.

    The worst client takes part in rounds 0, b, 2b, ..., (k-1)b (Kalinin and Lampert, NeurIPS 2024,
    arXiv 2405.13763, theorem 2).

    Args:
      first: (rounds,) first column of C.
      separation: b, fewest rounds from one participation to the next.
      participations: k, most participations.

    Raises:
      HansaError: a coefficient is negative, or larger than the one before it.
    """
    if not (np.isfinite(first).all() and first[-1] >= 0 and (first[1:] <= first[:-1]).all()):
        raise HansaError(
            "the sensitivity of a matrix whose coefficients do not fall, or are negative, is not "
            "known",
            fix="use a recorded matrix, or bands up to the separation",
        )
    total = np.zeros(len(first))
    for start in range(0, min(len(first), participations * separation), separation):
        total[start:] += first[: len(first) - start]
    return math.sqrt(math.fsum((total * total).tolist()))
