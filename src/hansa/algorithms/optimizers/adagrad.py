"""Adagrad at the server: a coordinate's learning rate only falls."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.algorithms.optimizers.adaptive import Moments, adaptive_step, initial_moments
from hansa.core.metrics import Floats
from hansa.core.vector import Vector
from hansa.work import bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAdagrad:
    """`v = v + D * D`, with D the mean delta (Reddi et al., ICLR 2021).

    Attributes:
      server_lr: learning rate of the server.
      beta1: share of the first moment that is kept from round to round.
      tau: smallest divisor: the smaller, the more adaptive.
    """

    server_lr: float
    beta1: float = 0.0
    tau: float = 1e-3

    def __post_init__(self) -> None:
        bounds.positive(self, "server_lr", "tau")
        bounds.fraction(self, "beta1")

    def init(self, params: Vector) -> Moments:
        """The moments before the first round."""
        return initial_moments(self, params)

    def apply(self, state: Moments, params: Vector, step: Vector) -> tuple[Moments, Vector]:
        """The new moments and the new (d,) float32 parameters."""
        return adaptive_step(self, state, params, step)

    def second_moment(self, second: Floats, square: Floats) -> Floats:
        """The rule above."""
        return second + square
