"""Bounding what one client can contribute: the L2 clip."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import Domain, Held, Reader, UpdateSpec
from hansa.core.vector import Layout, Vector, blocks
from hansa.errors import HansaError, PlanError, UpdateRejected
from hansa.stages.norm import TOLERANCE, l2_norm

SLACK = 1 - 2.0**-22
"""A clipped vector aims this much below the limit: more than rounding to float32 can add."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Scales one segment down until its norm is within a limit (McMahan et al., ICLR 2018).

    The limit of the delta is `norm` times the client's weight, as the delta is multiplied by the
    weight already. The limit of any other segment is `norm` itself; scaling all metric sums of a
    client by one factor keeps their ratios, so that they still mean the same.

    | segment                          | after the stage                            |
    |----------------------------------|--------------------------------------------|
    | within the limit                 | the same bits                              |
    | beyond it                        | its norm in exact arithmetic is <= limit   |
    | limit 0 (a client without data)  | zeros                                      |
    | limit below what float32 can say | zeros                                      |
    | empty or absent                  | the same                                   |
    | not finite                       | HansaError                                 |

    Attributes:
      norm: the bound C, in model units.
      segment: what is clipped.
    """

    norm: float
    segment: str = "delta"

    def __str__(self) -> str:
        what = "delta" if self.segment == "delta" else "metric sums"
        return f"the {what} of one client is clipped to norm {self.norm:g}"

    @property
    def role(self) -> Role:
        """Between what shapes an update and what encodes it."""
        return Role.BOUND

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Bounds the segment's norm, and each coordinate by it.

        Raises:
          PlanError: the norm is not a positive number, cannot be measured here, or would not hold.
        """
        if spec.segment != self.segment or not spec.size:
            return spec
        if not 0 < self.norm < math.inf:
            raise PlanError(
                self,
                f"a norm cannot be bounded by {self.norm:g}",
                "set the clip to a positive number",
            )
        if spec.domain is not Domain.REAL:
            raise PlanError(
                self, f"cannot measure a norm over {spec.domain.value}", "clip before quantising"
            )
        if spec.reader is not Reader.EACH:
            raise PlanError(self, f"comes too late: {spec.reader.value}", "clip before masking")
        if self._weighted and math.isinf(spec.weight):
            raise PlanError(
                self,
                "a client can undo the clip by reporting a huge weight",
                'set aggregation.weighting = "uniform", or bound it by aggregation.max_weight',
            )
        l2 = min(spec.l2, self.norm * spec.weight if self._weighted else self.norm)
        return replace(spec, l2=l2, peak=min(spec.peak, l2), held=Held.CHECKED)

    def encode(self, update: Update, ctx: Context) -> Update:
        """Scales the segment down, in place.

        Raises:
          HansaError: the segment is not finite.
        """
        values, limit = update.segment(self.segment), self._limit(update)
        norm = l2_norm(values)
        if not math.isfinite(norm):
            raise HansaError(
                f"the {self.segment} of round {ctx.round} is not finite: training diverged",
                fix="lower the learning rate, or look for broken examples",
            )
        if norm > limit:
            scale(values, limit / norm * SLACK)
            if l2_norm(values) > limit:  # a limit among the denormal numbers
                values[:] = 0.0
        return update

    def admit(self, update: Update, facts: Facts) -> None:
        """Measures the norm again, where it can be seen.

        Quantised updates, and those with noise of the client's own, check their own bounds.

        Raises:
          UpdateRejected: it is above the limit by more than rounding (see `norm.TOLERANCE`).
        """
        spec = facts[self.segment]
        if spec.domain is not Domain.REAL or spec.reader is not Reader.EACH or spec.noise > 0:
            return
        if not l2_norm(update.segment(self.segment)) <= self._limit(update) * (1 + TOLERANCE):
            raise UpdateRejected(
                f"the {self.segment} of an update is not finite or exceeds its norm bound",
                fix="clip the update as the plan says",
            )

    def decode(self, total: Vector, layout: Layout) -> Vector:  # noqa: ARG002  # the seam's signature
        """A clip cannot be undone."""
        return total

    @property
    def _weighted(self) -> bool:
        return self.segment == "delta"

    def _limit(self, update: Update) -> float:
        weight = update.segment("weight")
        return self.norm * float(weight[0]) if self._weighted and len(weight) else self.norm


def scale(values: Vector, factor: float) -> None:
    """Multiplies in float64, in place: the factor may be too small for float32."""
    for block in blocks(len(values)):
        values[block] = values[block].astype(np.float64) * factor
