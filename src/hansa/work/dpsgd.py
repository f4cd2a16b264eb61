"""DP-SGD: gradient descent whose every step hides each single example (Abadi et al., CCS 2016).

One step, with C the norm bound, z the noise multiplier and L the expected number of examples:

    batch  each of the client's n examples, independently with probability q
    s      sum over the batch of each example's own gradient, scaled down to norm C
    g      (s + N(0, (z C)^2 I)) / L

Then plain SGD along g. Momentum, decay and the proximal term are post-processing, as is all that
is done with the delta afterwards. Batches and noise are secret: on a site they come from the
operating system's entropy, never from the job's key.

What one update tells of one example is `steps` Poisson-sampled Gaussians, for two datasets that
differ in one example that is there or contributes nothing; how many there are is no secret. With
fewer examples each is drawn more often, so a plan names the fewest that a client may have, and
counts for those. Where it promises an epsilon, every client with more finds its own, smaller noise
for the same promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.events import Event, Gaussian, PoissonSampled, repeat
from hansa.core.keys import Noise
from hansa.core.parts import Context, Examples, Relation
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.privacy.accountants import best_accountant
from hansa.privacy.calibrate import calibrate
from hansa.privacy.statement_parts import Generation
from hansa.work.per_example import clipped_sum
from hansa.work.poisson import poisson_batches
from hansa.work.sgd import LocalSGD, SGDState

RELATION = Relation.ZERO_OUT
"""One example contributes nothing; the number of examples stays, and may be known."""

_DIGITS = 2
"""Noise is found for numbers of examples of two digits: few different ones, whatever the clients.

A client with 1,234 examples works as if it had 1,200: it draws each a little more often.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What every client must keep, whatever the number of its examples.

    Attributes:
      epsilon: of all its updates together, for one example.
      delta: probability with which epsilon may not hold.
      updates: how many updates of one client there are at most.
    """

    epsilon: float
    delta: float
    updates: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How one client trains in one round.

    Attributes:
      rate: probability that an example is in a batch.
      steps: number of batches.
      noise: noise multiplier of a step.
    """

    rate: float
    steps: int
    noise: float

    @property
    def event(self) -> Event:
        """What one update tells of one example."""
        return _event(self.rate, self.steps, self.noise)


@dataclass(slots=True)
class DpSgdState:
    """What a client holds between two steps.

    Attributes:
      descent: the state of plain SGD.
      gate: adds the noise of one step.
      pace: how this client trains.
      number: of the next step.
    """

    descent: SGDState
    gate: CentralGaussian
    pace: Pace
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DpSgd:
    """Client work that hides each training example of the client from whoever sees its delta.

    | the client has ...                         | it ...                                      |
    |--------------------------------------------|---------------------------------------------|
    | fewer than `examples`                      | refuses; its examples would be drawn more   |
    |                                            | often than was counted                      |
    | 1 / delta or more, where delta is promised | refuses; delta would promise nothing        |
    | no example in a batch                      | takes a step along noise alone              |
    | an example with a gradient that is not     | counts it as zero: to stop would tell of it |
    | finite                                     |                                             |

    Attributes:
      sgd: learning rate, steps and what plain SGD has beyond them; `batch_size` is L.
      clip: norm bound C of one example's gradient.
      noise_multiplier: z of a client with as few `examples` as are allowed, and of every client
        where nothing is promised.
      examples: fewest training examples of a client.
      delta: which must be below one by the number of examples.
      promise: what clients with more examples find their own noise for; None: they all use
        `noise_multiplier`.
    """

    sgd: LocalSGD
    clip: float
    noise_multiplier: float
    examples: int
    delta: float
    promise: Promise | None = None

    @property
    def smallest(self) -> Pace:
        """How a client with as few examples as are allowed trains."""
        return Pace(*self._drawn(self.examples), self.noise_multiplier)

    @property
    def reveals(self) -> Event:
        """What one update tells of one example at most: that of the smallest client."""
        return self.smallest.event

    def pace(self, examples: int) -> Pace:
        """How a client with so many examples trains.

        Raises:
          HansaError: it has fewer than it must have, or too many for the plan's delta. How many it
            has is not in the message, which others may read.
        """
        if examples < self.examples:
            raise HansaError(
                f"this client has fewer than the {self.examples} training examples that the plan's "
                "epsilon is counted for",
                fix="leave it out, or submit the job with a smaller privacy.examples, which takes "
                "more noise",
            )
        if self.delta * examples >= 1:
            raise HansaError(
                f"the plan's delta of {self.delta:g} is not below one by the number of this "
                "client's training examples, so that it promises nothing to one of them",
                fix="submit the job with a smaller privacy.delta",
            )
        common = Pace(*self._drawn(examples), self.noise_multiplier)
        if self.promise is None or common == self.smallest:
            return common
        return replace(common, noise=_noise_for(self.promise, common.rate, common.steps))

    def batches(self, examples: int, ctx: Context) -> Iterator[NDArray[Any]]:
        """Positions of each step's examples: each one is drawn by itself."""
        pace = self.pace(examples)
        yield from poisson_batches(examples, pace.rate, pace.steps, _source(ctx, "batches"))

    def init(self, shared: Vector, ctx: Context) -> DpSgdState:
        """A copy of the received parameters, and how this client trains."""
        pace = self.pace(ctx.examples)
        return DpSgdState(
            self.sgd.init(shared, ctx), CentralGaussian(pace.noise, relation=RELATION), pace
        )

    def step(self, state: DpSgdState, batch: Examples, ctx: Context) -> DpSgdState:
        """One noisy step.

        Raises:
          HansaError: the parameters are not finite; they tell no more than the steps before.
        """
        descent = state.descent
        if not np.isfinite(descent.params).all():
            raise HansaError(
                f"the parameters of round {ctx.round} are not finite: training diverged",
                fix="lower the learning rate or the noise",
            )
        spec = self._sum_of(len(descent.params), ctx.examples)
        _, grid = state.gate.scale(spec)
        loss, total = clipped_sum(ctx.model, descent.params, batch, self.clip, grid)
        noisy = state.gate.apply(total, spec, _source(ctx, "noise", state.number))
        noisy /= state.pace.rate * ctx.examples
        state.descent = self.sgd.descend(descent, noisy.astype(np.float32))
        state.descent.loss += loss
        state.descent.examples += len(batch)
        state.number += 1
        return state

    def finish(self, shared: Vector, state: DpSgdState) -> tuple[Vector, float]:
        """The delta, and the mean loss over the drawn examples, which has no noise."""
        return self.sgd.finish(shared, state.descent)

    def generation(self, size: int) -> Generation:
        """How the noise of a step is made, at the smallest client."""
        gate = CentralGaussian(self.noise_multiplier, relation=RELATION)
        return gate.generation(self._sum_of(size, self.examples))

    def _drawn(self, examples: int) -> tuple[float, int]:
        """Probability of one example in one step, and the number of steps."""
        counted = max(_rounded(examples), self.examples, 1)
        batch = min(self.sgd.batch_size or counted, counted)
        steps = self.sgd.local_steps or self.sgd.local_epochs * -(-counted // batch)
        return batch / counted, steps

    def _sum_of(self, size: int, examples: int) -> UpdateSpec:
        """Facts of a sum of clipped gradients, for the noise and its grid."""
        return UpdateSpec(size=size, cohort=max(examples, 1), l2=self.clip, peak=self.clip)


def _rounded(examples: int) -> int:
    """The largest number of `_DIGITS` digits that is not above `examples`."""
    unit: int = 10 ** max(len(str(examples)) - _DIGITS, 0)
    return examples // unit * unit


def _event(rate: float, steps: int, noise: float) -> Event:
    gaussian = Gaussian(noise)
    return repeat(gaussian if rate >= 1 else PoissonSampled(rate, gaussian), steps)


@lru_cache(maxsize=4096)
def _noise_for(promise: Promise, rate: float, steps: int) -> float:
    """The noise multiplier that keeps a promise.

    Raises:
      HansaError: none does.
    """

    def whole(noise: float) -> Event:
        return repeat(_event(rate, steps, noise), promise.updates)

    method = best_accountant(whole(1.0), RELATION).method
    return calibrate(whole, promise.epsilon, promise.delta, method, RELATION, quick=True)


def _source(ctx: Context, *purpose: str | int) -> Noise:
    """The client's own randomness; in a simulation a stream of the key for each purpose."""
    return ctx.noise or ctx.key.derive("dpsgd", *purpose)
