"""Noise of whole steps that the coordinator adds to the sum: the central discrete Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hansa.core.events import DiscreteGaussianSum, Event, NoOp
from hansa.core.keys import Noise
from hansa.core.parts import Relation
from hansa.core.spec import Divisor, Domain, UpdateSpec
from hansa.core.vector import Vector, blocks
from hansa.errors import PlanError
from hansa.privacy.discrete import MOST_SIGMA, discrete_gaussian
from hansa.privacy.statement_parts import Generation

_GRID_BITS = 30
"""The grid is at least 2**30 times finer than the noise, so that rounding costs no accuracy."""

_REACH = 64.0
"""Standard deviations of noise that sums are kept exact for."""

_ROUNDING = 2.0
"""Steps by which two neighbouring sums may move apart in a coordinate when each is rounded: one for
rounding itself, and one, far too much, for the float64 arithmetic that led to the sums."""


def one_release(noise_multiplier: float) -> Event:
    """What one release with that much noise reveals, whatever the grid: its event for calibration.

    The divergence of a single discrete Gaussian depends on the ratio of noise and sensitivity only.
    """
    return DiscreteGaussianSum(noise_multiplier, shares=1, sensitivity=1.0, size=1)


@dataclass(frozen=True, slots=True)
class CentralDiscrete:
    """Adds N_Z(0, (noise multiplier * sensitivity)**2) to each coordinate of a segment's sum.

    The sum is a vector of whole steps of a grid, and so is the noise, drawn exactly (Canonne,
    Kamath and Steinke, NeurIPS 2020, arXiv 2004.00010; `hansa.privacy.discrete`). Its Renyi
    divergences are at most those of normal noise with the same ratio to the sensitivity.

    | sums                         | grid                          | sensitivity counts           |
    |------------------------------|-------------------------------|------------------------------|
    | of a ring, `aligned`         | the step of the ring          | the norm bound: no rounding  |
    | of a ring, rotated back      | power of two, `_GRID_BITS`    | two steps a coordinate more  |
    | of floats                    | the same                      | two steps a coordinate more  |

    When to prefer it over `CentralGaussian`, which is normal noise rounded to a grid as fine:

    - The proof of `CentralGaussian` is about exact normal noise; its samples come from 53-bit
      uniforms and float64 functions. What they miss (tails beyond 9 deviations, the last bits
      before rounding) is believed to be harmless, and is in no theorem. Here the samples that are
      really drawn have the distribution of the theorem, but for less than 2**-200 of delta. Prefer
      this one where the guarantee must hold for the program and not for its ideal.
    - On a ring whose step is not small beside the noise, this noise is on the ring's own grid.
    - Prefer `CentralGaussian` everywhere else. It is counted by privacy loss distributions, this
      one by Renyi divergences, which is looser: at multiplier 8 over 50 full rounds, epsilon is
      3.80 there and 4.11 here (delta 1e-5). Under Poisson sampling only the bound for any mechanism
      is known here: at rate 0.1, multiplier 1 and 200 rounds, 9.97 there and 13.53 here. Drawing
      takes about three times as long.

    | segment                      | event                 | released |
    |------------------------------|-----------------------|----------|
    | delta                        | DiscreteGaussianSum   | yes      |
    | metrics                      | the same, own noise   | yes      |
    | metrics of size 0, weight    | NoOp                  | no       |
    | within an adaptive bound     | PlanError             |          |
    | no norm bound                | PlanError             |          |
    | a mean by a realised count   | PlanError             |          |
    | noise multiplier not above 0 | PlanError             |          |
    | noise of over 2**40 steps    | PlanError             |          |

    Attributes:
      noise_multiplier: parameter of the noise on the delta's sum, relative to its sensitivity; its
        standard deviation is at most that.
      metrics_noise_multiplier: the same for the metric sums.
      relation: the two datasets that the guarantee compares.
      aligned: whether sums of a ring arrive as multiples of its step; not where they were rotated.
    """

    noise_multiplier: float
    metrics_noise_multiplier: float = 0.0
    relation: Relation = Relation.ADD_OR_REMOVE_ONE
    aligned: bool = False

    def __str__(self) -> str:
        return (
            f"discrete Gaussian noise of {self.noise_multiplier:g} sensitivities on the sum "
            f"({self.relation.value})"
        )

    def infer(self, spec: UpdateSpec) -> Event:
        """What releasing the segment reveals.

        Raises:
          PlanError: see the table.
        """
        if spec.segment == "weight" or not spec.size:
            return NoOp()
        if spec.segment == "within":
            raise PlanError(
                self,
                "has no private count of the updates within an adaptive norm bound",
                'set privacy.mechanism = "gaussian", or leave clip_quantile out',
            )
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
        multiplier, word = self._noise(spec.segment)
        if not 0 < multiplier < math.inf:
            raise PlanError(
                self,
                f"a noise multiplier of {multiplier:g} on the {spec.segment} protects nobody",
                f"set privacy.{word} to a positive number"
                + (", or privacy.epsilon" if spec.segment == "delta" else ""),
            )
        sigma, sensitivity, grid = self.scale(spec)
        if sigma > MOST_SIGMA * grid:
            raise PlanError(
                self,
                f"noise of {sigma:g} cannot be drawn in steps of {grid:g}",
                f"set quantization.step to at least {sigma / MOST_SIGMA:.4g}",
            )
        return DiscreteGaussianSum(
            noise_parameter=sigma / grid,
            shares=1,
            sensitivity=sensitivity / grid,
            size=spec.size,
        )

    def releases(self, spec: UpdateSpec) -> bool:
        """Deltas and metric sums; never a weight."""
        return spec.segment != "weight" and spec.size > 0

    def scale(self, spec: UpdateSpec) -> tuple[float, float, float]:
        """Parameter of the noise, sensitivity and step of the grid, in model units."""
        multiplier = self._noise(spec.segment)[0]
        apart = (2.0 if self.relation is Relation.REPLACE_ONE else 1.0) * spec.l2
        if self.aligned and spec.domain is Domain.RING:
            return multiplier * apart, apart, spec.quantum
        rough = multiplier * apart
        reach = spec.cohort * min(spec.l2, spec.peak) + _REACH * rough
        grid = max(
            _power_of_two_below(rough) * 2.0**-_GRID_BITS, _power_of_two_below(reach) * 2.0**-51
        )
        sensitivity = apart + _ROUNDING * grid * math.sqrt(spec.size)
        return multiplier * sensitivity, sensitivity, grid

    def generation(self, spec: UpdateSpec) -> Generation:
        """Whole steps, drawn exactly."""
        return Generation(
            "discrete Gaussian samples by rejection from random integers (after Canonne, Kamath "
            "and Steinke, NeurIPS 2020), wrong for less than 2**-200 of delta",
            self.scale(spec)[2],
            exact=True,
        )

    def apply(self, total: Vector, spec: UpdateSpec, noise: Noise) -> Vector:
        """The (size,) float64 sum with noise, both on the grid; `total` is consumed."""
        sigma, _, grid = self.scale(spec)
        words = noise.words("discrete", spec.segment)
        for block in blocks(len(total)):
            part = total[block]
            part /= grid
            np.rint(part, out=part)
            part += discrete_gaussian(len(part), sigma / grid, words)
            part *= grid
        return total

    def _noise(self, segment: str) -> tuple[float, str]:
        """Noise multiplier of a segment and the word that sets it."""
        if segment == "metrics":
            return self.metrics_noise_multiplier, "metrics_noise_multiplier"
        return self.noise_multiplier, "noise_multiplier"


def _power_of_two_below(value: float) -> float:
    """The largest power of two that is at most `value`."""
    return 2.0 ** (math.frexp(value)[1] - 1)
