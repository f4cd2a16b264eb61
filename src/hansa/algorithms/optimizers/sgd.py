"""The server's gradient descent, with or without momentum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hansa.core.vector import Vector, blocks, narrowed
from hansa.work import bounds

State = tuple[Vector, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSGD:
    """Moves the model along the mean delta D (Hsu et al., 2019, algorithm FedAvgM).

        v = server_momentum * v + D
        w = w + server_lr * v

    Without momentum there is no state, and `server_lr` 1 replaces the model by the mean of the
    clients' models (McMahan et al., AISTATS 2017).

    Attributes:
      server_lr: learning rate of the server.
      server_momentum: share of the velocity that is kept from round to round.
    """

    server_lr: float = 1.0
    server_momentum: float = 0.0

    def __post_init__(self) -> None:
        bounds.positive(self, "server_lr")
        bounds.fraction(self, "server_momentum")

    def init(self, params: Vector) -> State:
        """The velocity, (d,) float32 and at rest; nothing without momentum."""
        return (np.zeros(params.shape, np.float32),) if self.server_momentum else ()

    def apply(self, state: State, params: Vector, step: Vector) -> tuple[State, Vector]:
        """The new velocity and parameters; `step` (d,) float64 is consumed."""
        after = narrowed(step)
        velocities = tuple(np.empty_like(old) for old in state)
        for piece in blocks(len(params)):
            v = step[piece]
            for old, new in zip(state, velocities, strict=True):
                v += self.server_momentum * old[piece]
                new[piece] = v
            after[piece] = params[piece] + self.server_lr * v
        return velocities, after
