"""The error of prefix sums, which are what a model consists of: to choose a matrix by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hansa.privacy.matrices import toeplitz, tree
from hansa.privacy.matrices.strategy import Strategy


@dataclass(frozen=True, slots=True)
class PrefixError:
    """Variance of one coordinate of the noise in prefix sums, at equal privacy.

    In units of the squared norm by which a client moves one row, where the whole run costs as much
    as one release with noise multiplier 1; with multiplier z it is z^2 times as much. So it is the
    squared norm of a row of A C^-1, A of ones on and under the diagonal, times the squared
    sensitivity of C.

    Attributes:
      mean: over the T prefix sums.
      max: the largest of them.
    """

    mean: float
    max: float


def prefix_error(strategy: Strategy) -> PrefixError:
    """The error of a strategy under its own schema.

    Without correlation and with a client in every round it is T (T + 1) / 2 and T^2.
    """
    if strategy.kind == "tree":
        errors = tree.prefix_variances(strategy.rounds)
    else:
        noise = toeplitz.inverse(strategy.column(strategy.rounds))
        errors = np.cumsum(np.cumsum(noise) ** 2)
    scale = strategy.sens**2
    return PrefixError(scale * float(errors.mean()), scale * float(errors.max()))
