"""What Adagrad, Adam and Yogi share at the server: all but how the second moment moves.

With D the mean delta of a round (Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
algorithm 2):

    m = beta1 * m + (1 - beta1) * D
    v = second_moment(v, D * D)
    w = w + server_lr * m / (sqrt(v) + tau)

m starts at 0 and v at tau squared. There is no bias correction, as in the paper.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hansa.core.metrics import Floats
from hansa.core.vector import Vector, blocks, narrowed

Moments = tuple[Vector, Vector]
"""First and second moment, (d,) float32 each."""


class Adaptive(Protocol):
    """The numbers of an adaptive server optimizer, and the rule that sets it apart."""

    @property
    def server_lr(self) -> float:
        """Learning rate."""

    @property
    def beta1(self) -> float:
        """Share of the first moment that is kept."""

    @property
    def tau(self) -> float:
        """Smallest divisor."""

    def second_moment(self, second: Floats, square: Floats) -> Floats:
        """The new second moment (n,) from the old one and the squared step, in float64."""


def initial_moments(server: Adaptive, params: Vector) -> Moments:
    """The moments before the first round."""
    return np.zeros(params.shape, np.float32), np.full(params.shape, server.tau**2, np.float32)


def adaptive_step(
    server: Adaptive, moments: Moments, params: Vector, step: Vector
) -> tuple[Moments, Vector]:
    """One round's step, in float64 on pieces that stay in the cache.

    Args:
      server: the method.
      moments: the moments so far; not written to.
      params: (d,) float32 parameters; not written to.
      step: (d,) float64 mean delta.

    Returns:
      The new moments and the new (d,) float32 parameters.
    """
    after = narrowed(step)
    first, second = np.empty_like(moments[0]), np.empty_like(moments[1])
    for piece in blocks(len(params)):
        delta = step[piece]
        m = server.beta1 * moments[0][piece].astype(np.float64) + (1 - server.beta1) * delta
        v = server.second_moment(moments[1][piece].astype(np.float64), delta * delta)
        first[piece], second[piece] = m, v
        after[piece] = params[piece] + server.server_lr * m / (np.sqrt(v) + server.tau)
    return (first, second), after
