"""Stochastic gradient descent on a client's own batches, in place on one flat vector.

One step, with w the client's parameters and w0 those it received (PyTorch's `optim.SGD`, whose
momentum has no dampening; the last term is FedProx, Li et al., MLSys 2020):

    g = gradient of the batch's mean loss + weight_decay * w + proximal * (w - w0)
    v = momentum * v + g
    w = w - client_lr * v

The result is the delta w - w0, so that the server adds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.parts import Context, Examples
from hansa.core.vector import Vector, blocks
from hansa.errors import PlanError
from hansa.work import bounds


@dataclass(slots=True)
class SGDState:
    """What a client holds between two steps.

    Attributes:
      shared: (d,) parameters as received; never written to.
      params: (d,) float32 parameters, the client's own copy.
      velocity: (d,) float32 momentum; None without momentum.
      loss: sum of the losses of the examples seen so far.
      examples: number of examples seen so far.
    """

    shared: Vector
    params: Vector
    velocity: Vector | None
    loss: float = 0.0
    examples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSGD:
    """Several steps of gradient descent on shuffled batches (McMahan et al., AISTATS 2017).

    | local_epochs | local_steps | a client takes                                       |
    |--------------|-------------|------------------------------------------------------|
    | 0            | 0           | one pass over its examples (recorded as 1, 0)        |
    | E            | 0           | E passes; the last batch of a pass may be short      |
    | 0            | S           | S steps, starting new passes as needed               |
    | E            | S           | refused: which of them counts?                       |

    Attributes:
      client_lr: learning rate.
      local_epochs: passes over the client's examples.
      local_steps: batches, instead of passes.
      batch_size: examples in a batch; 0 = all of them.
      momentum: share of the velocity that is kept from step to step.
      weight_decay: pull towards zero, added to the gradient.
      proximal: pull towards the received parameters, mu of FedProx.
    """

    client_lr: float
    local_epochs: int = 0
    local_steps: int = 0
    batch_size: int = 0
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0

    def __post_init__(self) -> None:
        bounds.positive(self, "client_lr")
        bounds.whole(self, "local_epochs", "local_steps", "batch_size")
        bounds.fraction(self, "momentum")
        bounds.not_negative(self, "weight_decay", "proximal")
        if self.local_epochs and self.local_steps:
            raise PlanError(
                "algorithm.local_steps",
                f"is {self.local_steps}, but local_epochs is {self.local_epochs}: a client's work "
                "is counted in one of them",
                "leave one of local_epochs and local_steps out",
            )
        if not self.local_epochs and not self.local_steps:
            object.__setattr__(self, "local_epochs", 1)  # frozen for everybody else

    def batches(self, examples: int, ctx: Context) -> Iterator[NDArray[Any]]:
        """Positions of each step's examples, shuffled anew for each pass by the client's key."""
        size = min(self.batch_size or examples, examples)
        each = -(-examples // size)
        steps = self.local_steps or self.local_epochs * each
        for epoch in range(-(-steps // each)):
            order = ctx.key.permutation(examples, "shuffle", epoch)
            for step in range(min(each, steps - epoch * each)):
                yield order[step * size : (step + 1) * size]

    def init(self, shared: Vector, ctx: Context) -> SGDState:  # noqa: ARG002  seam
        """A copy of the received parameters, at rest."""
        velocity = np.zeros(shared.shape, np.float32) if self.momentum else None
        return SGDState(shared, np.array(shared, np.float32), velocity)

    def step(self, state: SGDState, batch: Examples, ctx: Context) -> SGDState:
        """One step along the gradient of the batch's mean loss."""
        loss, gradient = ctx.model.gradient(state.params, batch)
        state.loss += loss * len(batch)
        state.examples += len(batch)
        return self.descend(state, gradient)

    def descend(self, state: SGDState, gradient: Vector) -> SGDState:
        """One step along a (d,) gradient; works in pieces that stay in the cache."""
        for piece in blocks(len(gradient)):
            params, g = state.params[piece], gradient[piece]
            if self.weight_decay:
                g = g + self.weight_decay * params
            if self.proximal:
                g = g + self.proximal * (params - state.shared[piece])
            if state.velocity is not None:
                velocity = state.velocity[piece]
                velocity *= self.momentum
                velocity += g
                g = velocity
            params -= self.client_lr * g
        return state

    def finish(self, shared: Vector, state: SGDState) -> tuple[Vector, float]:
        """The delta, in the memory of the client's copy, and the mean loss over the steps."""
        state.params -= shared
        return state.params, state.loss / max(state.examples, 1)


PIECE = 1024
"""Most examples whose gradient is computed at once by `FullGradient`."""


@dataclass(slots=True)
class GradientState:
    """The received parameters and what was seen of the client's examples so far.

    Attributes:
      shared: (d,) parameters at which the gradient is taken; never written to.
      gradient: (d,) float32 mean gradient.
      loss: sum of the losses.
      examples: number of examples.
    """

    shared: Vector
    gradient: Vector
    loss: float = 0.0
    examples: int = 0


@dataclass(frozen=True, slots=True)
class FullGradient:
    """One gradient over all of a client's examples: FedSGD (McMahan et al., AISTATS 2017).

    The delta is minus the gradient, so that the server's learning rate is the learning rate. The
    gradient is averaged over pieces of at most `PIECE` examples: the same mathematics in bounded
    memory.
    """

    def batches(self, examples: int, ctx: Context) -> Iterator[NDArray[Any]]:  # noqa: ARG002  seam
        """All positions once, in order, in pieces."""
        for start in range(0, examples, PIECE):
            yield np.arange(start, min(start + PIECE, examples))

    def init(self, shared: Vector, ctx: Context) -> GradientState:  # noqa: ARG002  seam
        """Nothing seen yet."""
        return GradientState(shared, np.zeros(shared.shape, np.float32))

    def step(self, state: GradientState, batch: Examples, ctx: Context) -> GradientState:
        """Moves the mean towards the piece's gradient by the piece's share of the examples."""
        loss, gradient = ctx.model.gradient(state.shared, batch)
        state.loss += loss * len(batch)
        state.examples += len(batch)
        share = len(batch) / state.examples
        for piece in blocks(len(gradient)):
            mean = state.gradient[piece]
            mean += share * (gradient[piece] - mean)
        return state

    def finish(self, shared: Vector, state: GradientState) -> tuple[Vector, float]:  # noqa: ARG002  seam
        """Minus the gradient, and the mean loss."""
        np.negative(state.gradient, out=state.gradient)
        return state.gradient, state.loss / max(state.examples, 1)
