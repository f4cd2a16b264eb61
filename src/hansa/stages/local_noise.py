"""A client's own noise on its own update, enough to protect it against everybody: local privacy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import Domain, Held, Reader, UpdateSpec
from hansa.core.vector import Layout, Vector, blocks
from hansa.errors import HansaError, PlanError, UpdateRejected
from hansa.privacy.statement_parts import Generation
from hansa.stages.discrete_noise import RARELY, noise_reach
from hansa.stages.norm import TOLERANCE, l2_norm

_EXACT = 24
"""float32 holds all whole numbers up to 2**24."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The numbers of the noise on a delta, in model units.

    Attributes:
      grid: step of what is sent, a power of two.
      sensitivity: how far any two deltas can lie apart on the grid.
      sigma: standard deviation of the noise in each coordinate.
      peak: bound on a coordinate of what is sent.
      l2: bound on the norm of what is sent.
    """

    grid: float
    sensitivity: float
    sigma: float
    peak: float
    l2: float


@dataclass(frozen=True, slots=True)
class LocalNoise:
    """Adds normal noise to the clipped delta, so that the update by itself is private.

    Any two datasets of the client give deltas within a ball of radius `norm`, hence at most twice
    `norm` apart: this is the sensitivity, and no two datasets are further apart. Epsilon is that of
    the Gaussian mechanism (Balle and Wang, ICML 2018) on the whole vector, as many times as the
    client takes part.

    Floating-point noise leaks through its low bits (Mironov, CCS 2012). Therefore the delta is
    rounded to a grid, the noise to the same grid, and what is sent is whole steps that float32
    holds exactly: the Gaussian mechanism on grid points, rounded afterwards. Rounding moves two
    deltas apart by at most one step a coordinate; the sensitivity counts that in.

    What comes after the noise is post-processing: the cut to `peak` and `l2`, which an honest
    update exceeds with a probability of about 2**-40 and which makes both bounds hold for certain;
    then rounding into a ring, masks, sums, robust rules.

    | segment              | what is sent                                                        |
    |----------------------|---------------------------------------------------------------------|
    | delta                | noisy, also from a client without examples: noise alone             |
    | weight               | 1, also from a client without examples, which would tell of itself  |
    | metrics              | PlanError: they have no noise                                       |
    | not finite           | HansaError                                                          |

    Attributes:
      norm: L2 bound of a client's delta before the noise, in model units.
      noise_multiplier: noise relative to the sensitivity.
    """

    norm: float
    noise_multiplier: float

    def __str__(self) -> str:
        return (
            "each client adds normal noise of "
            f"{2 * self.noise_multiplier:g} norm bounds to each coordinate of its own delta"
        )

    @property
    def role(self) -> Role:
        """After the norm bound, before everything that encodes."""
        return Role.NOISE

    def scale(self, size: int) -> Scale:
        """The numbers for a delta of `size` coordinates."""
        rough = self.noise_multiplier * 2 * self.norm
        reach = self.norm + noise_reach(1, rough, size)
        # Twice as coarse as needed: the noise grows a little when rounding is counted in.
        grid = 2.0 ** (math.frexp(reach)[1] + 1 - _EXACT)
        sensitivity = 2 * self.norm + grid * math.sqrt(size)
        sigma = self.noise_multiplier * sensitivity
        peak = grid * math.ceil((self.norm + noise_reach(1, sigma, size)) / grid)
        blur = sigma * (math.sqrt(size) + math.sqrt(-2 * math.log(RARELY)))
        rounding = grid * math.sqrt(size)
        l2 = min(self.norm + blur + rounding, peak * math.sqrt(size))
        return Scale(grid, sensitivity, sigma, peak, l2)

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """The facts of a delta with its noise, which hold for certain.

        Raises:
          PlanError: impossible numbers, no norm bound, weights that tell of the data, or metrics.
        """
        if spec.reader is not Reader.EACH or spec.domain is not Domain.REAL:
            raise PlanError(self, "comes too late", "add noise before rounding and masks")
        if not spec.size:
            return spec
        if spec.segment == "weight":
            return self._weight(spec)
        if spec.segment != "delta":
            raise PlanError(
                self,
                f"the {spec.segment} of one client would leave without noise",
                "leave privacy.metrics_clip and privacy.clip_quantile out",
            )
        if not (0 < self.norm < math.inf and 0 < self.noise_multiplier < math.inf):
            raise PlanError(
                self,
                f"noise of {self.noise_multiplier:g} on a norm of {self.norm:g} protects nobody",
                "set privacy.clip, and privacy.epsilon or privacy.noise_multiplier",
            )
        if spec.l2 > self.norm:
            raise PlanError(
                self,
                f"is scaled for deltas of norm {self.norm:g}, the bound is {spec.l2:g}",
                f"clip to {self.norm:g} before the noise",
            )
        scale = self.scale(spec.size)
        if not 2.0**-126 <= scale.grid <= 2.0**96 or scale.peak > scale.grid * 2**_EXACT:
            raise PlanError(
                self,
                f"float32 cannot hold noise of {scale.sigma:g} in {spec.size:,} whole steps",
                "use another privacy.clip, a smaller model or a larger epsilon",
            )
        return replace(
            spec,
            l2=scale.l2,
            peak=scale.peak,
            quantum=scale.grid,
            noise=scale.sigma,
            held=Held.CHECKED,
        )

    def generation(self, spec: UpdateSpec) -> Generation:
        """Normal samples in floating point, rounded to a grid."""
        return Generation(
            "normal samples by Box and Muller (1958) from 53-bit uniforms in float64; noise and "
            "delta are rounded to one grid before they are added",
            self.scale(spec.size).grid,
            exact=False,
        )

    def encode(self, update: Update, ctx: Context) -> Update:
        """Rounds the delta, adds noise and sets the weight, in place.

        Raises:
          HansaError: the delta is not finite.
        """
        delta = update.segment("delta")
        if len(delta):
            scale = self.scale(len(delta))
            noise = ctx.noise or ctx.key.derive("noise")
            _add(self._inside(delta, ctx.round), noise.normal(len(delta)), scale)
        update.segment("weight")[:] = 1.0
        return update

    def admit(self, update: Update, facts: Facts) -> None:
        """Checks the bounds and the weight, where they can be seen; rings check their own.

        Raises:
          UpdateRejected: an honest client cannot have sent it.
        """
        spec = facts["delta"]
        if spec.domain is not Domain.REAL or spec.reader is not Reader.EACH:
            return
        delta, weight = update.segment("delta"), update.segment("weight")
        scale = self.scale(spec.size)
        if not l2_norm(delta) <= scale.l2 * (1 + TOLERANCE):
            raise UpdateRejected(
                "the delta of an update is not finite or exceeds its bounds, even with noise",
                fix="clip the update and add noise as the plan says",
            )
        if len(weight) and weight[0] != 1.0:
            raise UpdateRejected(
                "the weight of an update is not 1, as that of every client is",
                fix="weigh the update as the plan says",
            )

    def decode(self, total: Vector, layout: Layout) -> Vector:  # noqa: ARG002  # the seam's signature
        """The noise stays in."""
        return total

    def _weight(self, spec: UpdateSpec) -> UpdateSpec:
        if spec.weight != 1:
            raise PlanError(
                self,
                "a weight tells how many examples a client has, without noise",
                'set aggregation.weighting = "uniform"',
            )
        return replace(spec, l2=1.0, peak=1.0, quantum=1.0)

    def _inside(self, delta: Vector, number: int) -> Vector:
        """The delta, for certain within the norm that the noise is scaled for."""
        norm = l2_norm(delta)
        if not math.isfinite(norm):
            raise HansaError(
                f"the delta of round {number} is not finite: training diverged",
                fix="lower the learning rate, or look for broken examples",
            )
        if norm > self.norm * (1 + TOLERANCE):
            raise HansaError(
                f"the delta of round {number} is beyond the norm that its noise is scaled for",
                fix="clip the update before the noise, as the plan says",
            )
        return delta


def _add(delta: Vector, samples: Vector, scale: Scale) -> None:
    """Whole steps with noise into the (d,) float32 delta, cut to the bounds; `samples` consumed."""
    most = scale.peak / scale.grid
    for block in blocks(len(delta)):
        part = samples[block]
        part *= scale.sigma / scale.grid
        np.rint(part, out=part)
        part += np.rint(delta[block].astype(np.float64) / scale.grid)
        np.clip(part, -most, most, out=part)
        part *= scale.grid
        delta[block] = part
    norm = l2_norm(delta)
    if norm > scale.l2:
        _shrink(delta, scale.l2 / norm, scale.grid)


def _shrink(delta: Vector, factor: float, grid: float) -> None:
    """Towards zero on the grid, by at least the factor."""
    for block in blocks(len(delta)):
        delta[block] = np.trunc(delta[block].astype(np.float64) * factor / grid) * grid
