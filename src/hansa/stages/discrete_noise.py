"""A client's own share of noise: conditional rounding and discrete Gaussian noise in the ring."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import Words
from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import Domain, Held, Reader, UpdateSpec
from hansa.core.vector import Layout, Segment, Vector, blocks
from hansa.errors import HansaError, PlanError, UpdateRejected
from hansa.privacy.discrete import MOST_SIGMA, discrete_gaussian
from hansa.privacy.distributed import rounded_norm
from hansa.privacy.statement_parts import Generation
from hansa.stages.norm import TOLERANCE, l2_norm
from hansa.stages.quantize import BITS, Quantize, fits, smallest_step

RARELY = 2.0**-40
"""How probable it is, in one round, that noise exceeds what is planned for."""

_TRIES = 500
"""A rounding is within its bound with probability 0.39 or more; 500 in vain mean a mistake."""

_BOUND_BY = {"delta": "set privacy.clip", "metrics": "set privacy.metrics_clip"}

CLOSE = 1 + 2.0**-20
"""A norm bound that is relatively so close to the stage's own is the same, but for rounding."""


def noise_reach(clients: int, sigma: float, size: int) -> float:
    """What no coordinate of a sum of noise exceeds, but with probability 2**-40.

    A discrete Gaussian is sub-Gaussian with its own parameter (Canonne, Kamath and Steinke,
    corollary 17), and so is a sum of `clients` of them, with sqrt(clients) times it.
    """
    return sigma * math.sqrt(2 * clients * math.log(2 * max(size, 1) / RARELY))


def smallest_noisy_step(cohort: int, peak: float, sigma: float, size: int, bits: int) -> float:
    """The smallest step of four digits that `DiscreteGaussian` accepts; inf if there is none.

    Args:
      cohort: most clients in a sum.
      peak: bound on a coordinate of one client, before noise, in model units.
      sigma: noise of each client, in model units.
      size: number of coordinates.
      bits: modulus 2**bits.
    """
    return smallest_step(cohort, peak + noise_reach(cohort, sigma, size) / cohort, bits)


@dataclass(frozen=True, slots=True)
class _Noised:
    """Norm, step and noise of a segment, in model units."""

    norm: float
    step: float
    sigma: float

    def bound(self, size: int) -> float:
        """B_r: the norm that conditional rounding keeps it to, in steps."""
        return rounded_norm(self.norm / self.step, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteGaussian:
    """Rounds the delta to a grid and adds discrete Gaussian noise, in place of `Quantize`.

    Each client adds a share of the noise, so that the sum is noisy before anybody can read it
    (Kairouz, Liu and Steinke, ICML 2021):

    1. What exceeds `norm` is scaled down to it.
    2. Conditional rounding: each coordinate is rounded at random to one of its two neighbours on
       the grid, without bias, and the whole vector again until its norm is at most B_r (formula
       in `privacy.distributed.rounded_norm`). B_r holds for every dataset, so it is the
       sensitivity; plain rounding would have norm + step * sqrt(size).
    3. Each coordinate gets an independent N_Z(0, (sigma / step)**2), exactly sampled.
    4. Modulo 2**bits. Whether the ring overflows does not matter to privacy, only to the result.

    | segment               | what is sent                                                   |
    |-----------------------|----------------------------------------------------------------|
    | delta                 | rounded and noisy                                              |
    | metrics               | the same with `metrics_sigma`; without, rounded as `Quantize`  |
    | weight                | 0: the sum of the weights would tell of a client without noise |
    | not finite            | HansaError                                                     |
    | a client without data | noise alone: others rely on its share                          |

    `infer` states what the data contribute, as `l2` and `peak`, and the noise beside it. The
    coordinator could check the bound only as far as the noise lets it: it is held HONEST.

    Attributes:
      norm: L2 bound of the weighted delta that is enforced here, in model units.
      step: width of one integer step of the delta, in model units.
      sigma: parameter of one client's noise on the delta, in model units.
      metrics_norm: the same three for the metric sums.
      metrics_step: ...
      metrics_sigma: ... 0 = no noise on them.
      bits: modulus 2**bits: 16, 24 or 32.
    """

    norm: float
    step: float
    sigma: float
    metrics_norm: float = 0.0
    metrics_step: float = 1.0
    metrics_sigma: float = 0.0
    bits: int = 32

    def __str__(self) -> str:
        return (
            f"each client rounds its delta to multiples of {self.step:g} and adds discrete "
            f"Gaussian noise of standard deviation {self.sigma:g}, {self.bits} bits each"
        )

    @property
    def role(self) -> Role:
        """After everything that needs real numbers."""
        return Role.ENCODE

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Moves the segment to the ring, with the bound of conditional rounding and the noise.

        Raises:
          PlanError: impossible numbers, no norm bound, or a sum that may overflow the ring.
        """
        if spec.reader is not Reader.EACH:
            raise PlanError(self, f"comes too late: {spec.reader.value}", "add noise before masks")
        noised = self._noised.get(spec.segment)
        if noised is None and spec.segment != "weight":
            return self._rounding.infer(spec)
        if self.bits not in BITS:
            raise PlanError(self, f"cannot pack {self.bits} bits", "set quantization.bits = 32")
        if spec.domain is not Domain.REAL:
            raise PlanError(self, "the update is quantised already", "use it instead of Quantize")
        inside = replace(spec, domain=Domain.RING, bits=self.bits, held=Held.HONEST)
        if noised is None:
            return replace(inside, quantum=1.0, l2=0.0, peak=0.0)
        self._check_numbers(spec, noised)
        inside = replace(inside, quantum=noised.step, noise=noised.sigma)
        if not spec.size:
            return inside
        self._check_bounds(spec, noised)
        l2 = noised.bound(spec.size) * noised.step
        return replace(inside, l2=l2, peak=min(spec.peak + noised.step, l2))

    def generation(self, spec: UpdateSpec) -> Generation:
        """Integers, sampled exactly."""
        return Generation(
            "discrete Gaussian samples by rejection from random integers (after Canonne, Kamath "
            "and Steinke, NeurIPS 2020), wrong for less than 2**-200 of delta",
            spec.quantum,
            exact=True,
        )

    def encode(self, update: Update, ctx: Context) -> Update:
        """Rounds and adds noise, each segment with random bits of its own.

        Raises:
          HansaError: a segment is not finite, or does not fit into the ring.
        """
        noise = ctx.noise or ctx.key.derive("noise")
        ring = np.zeros(update.layout.size, np.uint32)
        for segment in update.layout.segments:
            name, values = segment.name, update.segment(segment.name)
            target, noised = update.layout.slice(ring, name), self._noised.get(name)
            if noised is not None:
                whole = _rounded(values, noised, name, noise.words("round", name))
                whole += discrete_gaussian(
                    len(whole), noised.sigma / noised.step, noise.words("noise", name)
                )
                target[:] = whole.astype(np.uint32) & np.uint32(2**self.bits - 1)
            elif name != "weight":
                target[:] = self._rounding.encode(Update(values, Layout((segment,))), ctx).vector
        return Update(ring, update.layout)

    def admit(self, update: Update, facts: Facts) -> None:
        """Checks the form of an update and, where it can be read, its bounds with the noise.

        Raises:
          UpdateRejected: it is not in the ring, or a segment is beyond what its bound and its
            noise reach, which an honest update is with probability 2**-40.
        """
        blurred = {
            name: replace(spec, reader=Reader.SUM) if name in self._noised else spec
            for name, spec in facts.items()
        }
        self._rounding.admit(update, blurred)
        for name in self._noised:
            spec = facts[name]
            if spec.size and spec.reader is Reader.EACH:
                self._check_norm(update, spec)

    def decode(self, total: Vector, layout: Layout) -> Vector:
        """The sum in model units, float64."""
        return self._rounding.decode(total, layout)

    @property
    def _noised(self) -> Mapping[str, _Noised]:
        """The segments that get noise."""
        delta = _Noised(self.norm, self.step, self.sigma)
        metrics = _Noised(self.metrics_norm, self.metrics_step, self.metrics_sigma)
        return {"delta": delta} if self.metrics_sigma == 0 else {"delta": delta, "metrics": metrics}

    @property
    def _rounding(self) -> Quantize:
        """What is done to a segment without noise, and how all are read back."""
        return Quantize(self.step, metrics_step=self.metrics_step, bits=self.bits)

    def _check_numbers(self, spec: UpdateSpec, noised: _Noised) -> None:
        """What does not depend on the update."""
        word = "quantization.step" if spec.segment == "delta" else f"step of the {spec.segment}"
        if not 0 < noised.step < math.inf:
            raise PlanError(self, f"cannot step by {noised.step:g}", f"set a positive {word}")
        if not 0 < noised.norm < math.inf:
            raise PlanError(
                self,
                f"a norm of {noised.norm:g} bounds no {spec.segment}",
                _BOUND_BY[spec.segment],
            )
        if not 0 < noised.sigma / noised.step <= MOST_SIGMA:
            raise PlanError(
                self,
                f"noise of {noised.sigma:g} cannot be added in steps of {noised.step:g}",
                f"use noise above 0, and {word} >= {noised.sigma / MOST_SIGMA:.4g}",
            )

    def _check_bounds(self, spec: UpdateSpec, noised: _Noised) -> None:
        if math.isinf(spec.l2):
            raise PlanError(
                self,
                f"one client can move the {spec.segment} arbitrarily far",
                _BOUND_BY[spec.segment],
            )
        if spec.l2 > noised.norm * CLOSE:
            raise PlanError(
                self,
                f"would cut the {spec.segment} to norm {noised.norm:g}, the bound is {spec.l2:g}",
                f"use the same norm: {spec.l2!r}",
            )
        peak = min(spec.peak, noised.norm)
        noisy = peak + noise_reach(spec.cohort, noised.sigma, spec.size) / spec.cohort
        if fits(spec.cohort, noisy, noised.step, self.bits):
            return
        needed = smallest_noisy_step(spec.cohort, peak, noised.sigma, spec.size, self.bits)
        word = "quantization.step" if spec.segment == "delta" else f"step of the {spec.segment}"
        raise PlanError(
            self,
            f"{spec.cohort} clients with {spec.segment} up to {peak:.4g} and noise of "
            f"{noised.sigma:.4g} each may overflow 2**{self.bits - 1} steps of {noised.step:g}",
            f"use {word} >= {needed!r}, more bits or a smaller cohort"
            if math.isfinite(needed)
            else "use more bits or a smaller cohort",
        )

    def _check_norm(self, update: Update, spec: UpdateSpec) -> None:
        alone = Layout((Segment(spec.segment, len(update.segment(spec.segment))),))
        real = self._rounding.decode(update.segment(spec.segment), alone)
        # The norm of d sub-Gaussian numbers is below sigma * (sqrt(d) + sqrt(2 t)) but with
        # probability exp(-t) (Hsu, Kakade and Zhang, 2012).
        blur = spec.noise * (math.sqrt(spec.size) + math.sqrt(-2 * math.log(RARELY)))
        if not l2_norm(real) <= (spec.l2 + blur) * (1 + TOLERANCE):
            raise UpdateRejected(
                f"the {spec.segment} of an update exceeds its bounds, even with noise",
                fix="encode the update as the plan says",
            )


def _rounded(values: Vector, noised: _Noised, name: str, words: Words) -> NDArray[np.int64]:
    """Conditional rounding: (d,) integers whose norm is at most the segment's bound, for sure."""
    norm = l2_norm(values)
    if not math.isfinite(norm):
        raise HansaError(
            f"the {name} of an update is not finite: training diverged",
            fix="lower the learning rate, or look for broken examples",
        )
    scale = min(1.0, noised.norm / norm) / noised.step if norm > 0 else 0.0
    most = Fraction(noised.bound(len(values))) ** 2
    for _ in range(_TRIES):
        whole, squares = np.empty(len(values), np.int64), 0
        for block in blocks(len(values)):
            share = values[block].astype(np.float64) * scale
            near = np.floor(share)
            share -= near
            near += (words(len(near)) >> np.uint64(11)) * 2.0**-53 < share
            whole[block] = near
            squares += _squares(whole[block])
        if squares <= most:
            return whole
    raise HansaError(
        f"the {name} of an update cannot be rounded within its norm bound",
        fix="use a smaller quantization.step",
    )


def _squares(whole: NDArray[np.int64]) -> int:
    """The sum of the squares of at most 2**16 integers below 2**43, exactly."""
    high, low = whole >> 20, whole & (2**20 - 1)
    return (int(high @ high) << 40) + (int(high @ low) << 21) + int(low @ low)
