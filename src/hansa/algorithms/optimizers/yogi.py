"""Yogi at the server: the second moment moves by no more than a share of the squared step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hansa.algorithms.optimizers.adaptive import Moments, adaptive_step, initial_moments
from hansa.core.metrics import Floats
from hansa.core.vector import Vector
from hansa.work import bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerYogi:
    """`v = v - (1 - beta2) * D * D * sign(v - D * D)`, with D the mean delta (Reddi, ICLR 2021).

    Attributes:
      server_lr: learning rate of the server.
      beta1: share of the first moment that is kept from round to round.
      beta2: share of the second moment that is kept from round to round.
      tau: smallest divisor: the smaller, the more adaptive.
    """

    server_lr: float
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        bounds.positive(self, "server_lr", "tau")
        bounds.fraction(self, "beta1", "beta2")

    def init(self, params: Vector) -> Moments:
        """The moments before the first round."""
        return initial_moments(self, params)

    def apply(self, state: Moments, params: Vector, step: Vector) -> tuple[Moments, Vector]:
        """The new moments and the new (d,) float32 parameters."""
        return adaptive_step(self, state, params, step)

    def second_moment(self, second: Floats, square: Floats) -> Floats:
        """The rule above."""
        return second - (1 - self.beta2) * square * np.sign(second - square)
