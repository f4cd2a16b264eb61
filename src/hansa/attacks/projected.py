"""Training that leaves some parameters alone: projected gradient descent on a client.

Neurotoxin (Zhang et al., ICML 2022, arXiv 2206.10341), algorithm 1, with g what the server's last
update was, an estimate of the honest gradient, and S its coordinates of largest size:

    for each batch of the poisoned examples:
        gradient of the batch's loss, set to zero on S
        one step along it

Here the whole of each step is set to zero on S, momentum and weight decay included. Where there is
neither, that is the paper's step; the other coordinates of a step do not depend on those in S.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.parts import ClientWork, Context, Examples
from hansa.core.vector import Vector
from hansa.work.dpsgd import DpSgdState
from hansa.work.sgd import SGDState

HEAVY = 0.05
"""Share of the coordinates that Neurotoxin leaves alone."""


def heaviest(previous: Vector, heavy: float = HEAVY) -> NDArray[np.int64]:
    """Positions that the last round moved most; honest clients seldom write to the others.

    | previous                              | positions                     |
    |---------------------------------------|-------------------------------|
    | zeros: nothing was seen yet           | none                          |
    | heavy times d is below one            | none                          |
    | equal sizes at the edge               | the first                     |

    Args:
      previous: (d,) what the model moved by before.
      heavy: share of the coordinates.
    """
    count = int(heavy * len(previous)) if np.any(previous) else 0
    return np.argsort(-np.abs(previous.astype(np.float64)), kind="stable")[:count]


@dataclass(frozen=True, slots=True)
class Projected:
    """A client's work that moves some parameters in no step.

    Work that takes one gradient and no step (`FullGradient`) has it set to zero there.

    Attributes:
      inner: the work.
      alone: positions that are left as they were received.
    """

    inner: ClientWork[Any]
    alone: NDArray[np.int64] = field(repr=False)

    def batches(self, examples: int, ctx: Context) -> Iterator[NDArray[Any]]:
        """As the work's."""
        return self.inner.batches(examples, ctx)

    def init(self, shared: Vector, ctx: Context) -> Any:
        """As the work's."""
        return self.inner.init(shared, ctx)

    def step(self, state: Any, batch: Examples, ctx: Context) -> Any:
        """One step of the work, taken back where it may not move."""
        state = self.inner.step(state, batch, ctx)
        moved = state.descent if isinstance(state, DpSgdState) else state
        if isinstance(moved, SGDState):
            moved.params[self.alone] = moved.shared[self.alone]
        return state

    def finish(self, shared: Vector, state: Any) -> tuple[Vector, float]:
        """The work's delta, zero where nothing may move, and its loss."""
        delta, loss = self.inner.finish(shared, state)
        delta[self.alone] = 0.0
        return delta, loss
