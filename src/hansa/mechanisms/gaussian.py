"""Noise that the coordinator adds to the sum: the central Gaussian mechanism."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hansa.core.events import Event, Gaussian, NoOp
from hansa.core.keys import Noise
from hansa.core.parts import Relation
from hansa.core.spec import Divisor, UpdateSpec
from hansa.core.vector import Vector, blocks
from hansa.errors import HansaError, PlanError
from hansa.privacy.adaptive import delta_multiplier
from hansa.privacy.statement_parts import Generation

_GRID_BITS = 30
"""The grid is at least 2**30 times finer than the noise, so that rounding costs no accuracy."""

_REACH = 64.0
"""Standard deviations that are kept exact; normal samples from 53 bits stay below 9."""


@dataclass(frozen=True, slots=True)
class CentralGaussian:
    """Adds N(0, (noise multiplier * sensitivity)**2) to each coordinate of a segment's sum.

    The sensitivity is the L2 bound of one client's update as it reaches the sum, after clipping
    and after every rounding; twice that where neighbours differ by a replaced client.

    Floating-point noise leaks through the low bits of what is released (Mironov, CCS 2012).
    Therefore the sum is rounded to a grid first, and the noise to the same grid: what is released
    is the exact Gaussian mechanism on a sum of grid points, rounded afterwards, which is
    post-processing. The grid is a power of two, so the addition itself is exact in float64.
    Rounding moves the sums of two neighbouring datasets apart by at most two steps in each
    coordinate; the sensitivity counts that in.

    | segment                      | event                          | released |
    |------------------------------|--------------------------------|----------|
    | delta, with the count within | Gaussian(noise_multiplier)     | yes      |
    | within                       | counted with the delta         | yes      |
    | metrics                      | Gaussian(metrics_noise_...)    | yes      |
    | metrics of size 0            | NoOp                           | no       |
    | weight                       | NoOp                           | no       |
    | no norm bound                | PlanError                      |          |
    | a mean by a realised count   | PlanError                      |          |
    | noise multiplier not above 0 | PlanError                      |          |
    | count noise too small        | PlanError                      |          |

    Where the norm bound adapts, deltas and the count of those within it share the noise, so that
    both together cost the one Gaussian (see `hansa.privacy.adaptive`).

    Attributes:
      noise_multiplier: standard deviation on the delta's sum, relative to its sensitivity.
      metrics_noise_multiplier: the same for the metric sums.
      relation: the two datasets that the guarantee compares.
      count_noise: standard deviation on the count of clients within an adaptive norm bound.
    """

    noise_multiplier: float
    metrics_noise_multiplier: float = 0.0
    relation: Relation = Relation.ADD_OR_REMOVE_ONE
    count_noise: float = 0.0

    def __str__(self) -> str:
        return (
            f"Gaussian noise of {self.noise_multiplier:g} sensitivities on the sum "
            f"({self.relation.value})"
        )

    def infer(self, spec: UpdateSpec) -> Event:
        """What releasing the segment reveals.

        Raises:
          PlanError: the segment has no norm bound, no noise, or a divisor that reveals a count.
        """
        if spec.segment == "weight" or not spec.size:
            return NoOp()
        if not 0 < spec.l2 < math.inf:
            raise PlanError(
                self,
                f"one client can move the {spec.segment} arbitrarily far",
                "set privacy.clip and use the mean"
                if spec.segment == "delta"
                else "set privacy.metrics_clip",
            )
        if spec.segment == "delta" and spec.divisor is Divisor.REALISED:
            raise PlanError(
                self,
                "a private mean divided by a realised count reveals the count and has another "
                "sensitivity",
                "divide by the expected weight: a mean with a fixed divisor",
            )
        if spec.segment == "within":
            return self._counted()
        multiplier, word = self._noise(spec.segment)
        if not 0 < multiplier < math.inf:
            raise PlanError(
                self,
                f"a noise multiplier of {multiplier:g} on the {spec.segment} protects nobody",
                f"set privacy.{word} to a positive number"
                + (", or privacy.epsilon" if spec.segment == "delta" else ""),
            )
        return Gaussian(multiplier)

    def releases(self, spec: UpdateSpec) -> bool:
        """Deltas and metric sums; never a weight."""
        return spec.segment != "weight" and spec.size > 0

    def scale(self, spec: UpdateSpec) -> tuple[float, float]:
        """Standard deviation of the noise and the step of its grid, in model units."""
        multiplier = self._share(spec.segment)
        neighbours = 2.0 if self.relation is Relation.REPLACE_ONE else 1.0
        rough = multiplier * neighbours * spec.l2
        reach = spec.cohort * min(spec.l2, spec.peak) + _REACH * rough
        grid = max(
            _power_of_two_below(rough) * 2.0**-_GRID_BITS, _power_of_two_below(reach) * 2.0**-51
        )
        sensitivity = neighbours * spec.l2 + 2 * grid * math.sqrt(spec.size)
        return multiplier * sensitivity, grid

    def generation(self, spec: UpdateSpec) -> Generation:
        """Normal samples in floating point, rounded to a grid."""
        return Generation(
            "normal samples by Box and Muller (1958) from 53-bit uniforms in float64; noise and "
            "sum are rounded to one grid before they are added",
            self.scale(spec)[1],
            exact=False,
        )

    def apply(self, total: Vector, spec: UpdateSpec, noise: Noise) -> Vector:
        """The (size,) float64 sum with noise, both on the grid; `total` is consumed."""
        sigma, grid = self.scale(spec)
        samples = noise.normal(len(total))
        for block in blocks(len(total)):
            part, drawn = total[block], samples[block]
            drawn *= sigma / grid
            part /= grid
            np.rint(drawn, out=drawn)
            np.rint(part, out=part)
            part += drawn
            part *= grid
        return total

    def _counted(self) -> Event:
        """NoOp: what the count reveals is in the delta's event, if the noise can be split."""
        try:
            delta_multiplier(self.noise_multiplier, self.count_noise)
        except HansaError as error:
            raise PlanError(self, error.message, error.fix) from error
        return NoOp()

    def _share(self, segment: str) -> float:
        """Noise multiplier of a segment's own noise, relative to its own sensitivity."""
        if segment == "within":
            return 2 * self.count_noise
        if segment == "delta" and self.count_noise:
            return delta_multiplier(self.noise_multiplier, self.count_noise)
        return self._noise(segment)[0]

    def _noise(self, segment: str) -> tuple[float, str]:
        """Noise multiplier of a segment and the word that sets it."""
        if segment == "metrics":
            return self.metrics_noise_multiplier, "metrics_noise_multiplier"
        return self.noise_multiplier, "noise_multiplier"


def _power_of_two_below(value: float) -> float:
    """The largest power of two that is at most `value`."""
    return 2.0 ** (math.frexp(value)[1] - 1)
