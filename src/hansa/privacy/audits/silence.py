"""A plan without its noise: what the power of an audit is measured on.

An audit that finds nothing proves something only if it finds a great deal where there is no noise.
To audit a part that adds noise in a way of its own, say here how it is silenced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import SecretNoise, Words
from hansa.core.parts import ClientWork, Role, Stage
from hansa.core.plan import Plan
from hansa.stages.discrete_noise import DiscreteGaussian
from hansa.work.dpsgd import DpSgd

_QUIET = 2.0**-5
"""Noise in steps that rounds to zero but once in 10**200."""

_FAINT = 1e-6
"""Noise of a step, relative to the norm of one gradient, which hides nothing."""


@dataclass(frozen=True, slots=True)
class Silence(SecretNoise):
    """A noise source that gives zeros. It protects nobody, and audits alone use it.

    It stands where rounds expect a key, because correlated noise is drawn from one.
    """

    key: bytes = bytes(32)

    @property
    def replayable(self) -> bool:
        """True: everybody knows it."""
        return True

    def derive(self, *path: str | int) -> Silence:  # noqa: ARG002  # the seam's signature
        """The same silence."""
        return self

    def normal(self, size: int) -> NDArray[np.float64]:
        """(size,) zeros."""
        return np.zeros(size)

    def words(self, *path: str | int) -> Words:  # noqa: ARG002  # the seam's signature
        """Zeros."""
        return lambda size: np.zeros(size, np.uint64)


def silenced(plan: Plan) -> Plan:
    """The plan whose clients add no noise; the coordinator's is silent if its source is.

    It is not checked again: it claims what the plan claims, and keeps none of it.
    """
    kept = tuple(_quiet(stage) for stage in plan.parts.stages if stage.role is not Role.NOISE)
    return replace(plan, parts=replace(plan.parts, stages=kept))


def silent_work(work: ClientWork[Any]) -> ClientWork[Any]:
    """The client work whose steps have no noise to speak of; batches are drawn as before."""
    if isinstance(work, DpSgd):
        return replace(work, noise_multiplier=_FAINT, promise=None)
    return work


def _quiet(stage: Stage) -> Stage:
    match stage:
        case DiscreteGaussian():
            metrics = stage.metrics_step * _QUIET if stage.metrics_sigma else 0.0
            return replace(stage, sigma=stage.step * _QUIET, metrics_sigma=metrics)
        case _:
            return stage
