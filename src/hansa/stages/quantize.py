"""Updates as integers: what masks, exact sums and small messages are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import Domain, Reader, UpdateSpec
from hansa.core.vector import Layout, Vector, blocks
from hansa.errors import HansaError, PlanError, UpdateRejected
from hansa.figures import round_up, step_up
from hansa.stages.adaptive_clip import HALF
from hansa.stages.norm import TOLERANCE

BITS = (16, 24, 32)
"""Moduli that can be packed into whole bytes."""

_BOUND_BY = {
    "delta": "set privacy.clip or aggregation.clip",
    "weight": 'set aggregation.max_weight, or aggregation.weighting = "uniform"',
    "metrics": "set aggregation.max_weight, or privacy.metrics_clip in a private job",
}


def fits(cohort: int, peak: float, step: float, bits: int) -> bool:
    """Whether a sum over the cohort stays inside the ring, each coordinate rounded up."""
    return cohort * (peak / step + 1) < 2.0 ** (bits - 1)


def smallest_step(cohort: int, peak: float, bits: int) -> float:
    """The smallest step of four digits with which a cohort fits; inf if there is none."""
    room = 2.0 ** (bits - 1) / cohort - 1
    if room <= 0 or not math.isfinite(peak):
        return math.inf
    step = round_up(peak / room)
    while not fits(cohort, peak, step, bits):
        step = step_up(step)
    return step


@dataclass(frozen=True, slots=True)
class Quantize:
    """Unbiased stochastic rounding to multiples of a step, as integers modulo 2**bits.

    x becomes floor(x / step) or the integer above it, the latter with probability x / step -
    floor(x / step), so that the expectation is x and the error is less than one step. Integers
    are carried as uint32 in two's complement: sums wrap, and are right as long as the true sum
    is inside the ring, which `infer` proves.

    | value             | after encode and decode                              |
    |-------------------|------------------------------------------------------|
    | multiple of step  | itself                                               |
    | any other         | one of its two neighbours on the grid, mean = value  |
    | not finite        | HansaError                                           |
    | beyond the ring   | HansaError                                           |

    Rounding may move one client's norm by up to step * sqrt(size): the facts say so, and the
    noise is scaled for it, whatever the rounding draws (Kairouz, Liu and Steinke, ICML 2021).

    Attributes:
      step: width of one integer step of the delta, in model units.
      weight_step: of the weight; 1 keeps whole weights exact.
      metrics_step: of the metric sums; counts of adaptive clipping are whole halves.
      bits: modulus 2**bits: 16, 24 or 32.
    """

    step: float
    weight_step: float = 1.0
    metrics_step: float = 1.0
    bits: int = 32

    def __str__(self) -> str:
        return f"updates are rounded to multiples of {self.step:g}, {self.bits} bits each"

    @property
    def role(self) -> Role:
        """After everything that needs real numbers."""
        return Role.ENCODE

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Moves the segment to the ring and adds what rounding can add.

        Raises:
          PlanError: impossible step or bits, no bound on a coordinate, or the sum may overflow.
        """
        step = self._step(spec.segment)
        if self.bits not in BITS:
            raise PlanError(self, f"cannot pack {self.bits} bits", "set quantization.bits = 32")
        if not 0 < step < math.inf:
            raise PlanError(self, f"cannot step by {step:g}", "set a positive quantization.step")
        if spec.domain is not Domain.REAL:
            raise PlanError(self, "the update is quantised already", "quantise once")
        inside = replace(spec, domain=Domain.RING, bits=self.bits, quantum=step)
        if not spec.size:
            return inside
        if math.isinf(spec.peak):
            raise PlanError(
                self, f"the {spec.segment} may overflow: it has no bound", _BOUND_BY[spec.segment]
            )
        if not fits(spec.cohort, spec.peak, step, self.bits):
            self._refuse_overflow(spec, step)
        if spec.quantum > 0 and (spec.quantum / step).is_integer():
            return inside  # on a grid already: nothing moves
        return replace(inside, l2=spec.l2 + step * math.sqrt(spec.size), peak=spec.peak + step)

    def encode(self, update: Update, ctx: Context) -> Update:
        """Rounds each segment to its step.

        Raises:
          HansaError: a coordinate is not finite or does not fit into the ring.
        """
        rng = ctx.key.generator("quantize")
        ring = np.empty(update.layout.size, np.uint32)
        for segment in update.layout.segments:
            values, target = update.segment(segment.name), update.layout.slice(ring, segment.name)
            for block in blocks(segment.size):
                target[block] = self._round(values[block], self._step(segment.name), rng)
        return Update(ring, update.layout)

    def admit(self, update: Update, facts: Facts) -> None:
        """Decodes one update, where it can be read, and checks its bounds.

        Raises:
          UpdateRejected: it is not in the ring, or a segment exceeds its bounds.
        """
        vector = update.vector
        if vector.dtype != np.uint32:
            raise UpdateRejected(
                f"an update holds {vector.dtype.name} where the plan says uint32",
                fix="encode the update as the plan says",
            )
        if self.bits < 32 and (vector >> np.uint32(self.bits)).any():
            raise UpdateRejected(
                f"an update holds integers of more than {self.bits} bits",
                fix="encode the update as the plan says",
            )
        for segment in update.layout.segments:
            if facts[segment.name].reader is Reader.EACH:
                self._check(update.segment(segment.name), facts[segment.name])

    def decode(self, total: Vector, layout: Layout) -> Vector:
        """The sum in model units, float64."""
        real = np.empty(layout.size, np.float64)
        for segment in layout.segments:
            values, target = layout.slice(total, segment.name), layout.slice(real, segment.name)
            for block in blocks(segment.size):
                np.multiply(
                    self._signed(values[block]), self._step(segment.name), out=target[block]
                )
        return real

    def _step(self, segment: str) -> float:
        steps = {"weight": self.weight_step, "metrics": self.metrics_step, "within": HALF}
        return steps.get(segment, self.step)

    def _refuse_overflow(self, spec: UpdateSpec, step: float) -> None:
        needed = smallest_step(spec.cohort, spec.peak, self.bits)
        word = "quantization.step" if spec.segment == "delta" else f"step of the {spec.segment}"
        raise PlanError(
            self,
            f"{spec.cohort} clients with {spec.segment} up to {spec.peak:.4g} overflow "
            f"2**{self.bits - 1} steps of {step:g}",
            f"use {word} >= {needed!r}, more bits or a smaller cohort"
            if math.isfinite(needed)
            else "use more bits or a smaller cohort",
        )

    def _round(self, values: Vector, step: float, rng: np.random.Generator) -> NDArray[np.uint32]:
        scaled = values.astype(np.float64) / step
        if not np.abs(scaled).max() < 2.0 ** (self.bits - 1) - 1:
            raise HansaError(
                "an update is not finite or too large to be quantised: training diverged",
                fix="lower the learning rate, or look for broken examples",
            )
        low = np.floor(scaled)
        scaled -= low
        low += rng.random(len(scaled)) < scaled
        return low.astype(np.int64).astype(np.uint32) & np.uint32(2**self.bits - 1)

    def _signed(self, values: Vector) -> NDArray[np.int32]:
        """Integers modulo 2**bits as the signed integers they stand for."""
        shift = 32 - self.bits
        return (values << np.uint32(shift)).view(np.int32) >> shift

    def _check(self, values: Vector, spec: UpdateSpec) -> None:
        step, squares, least, most = self._step(spec.segment), 0.0, 0.0, 0.0
        for block in blocks(len(values)):
            real = self._signed(values[block]) * step
            squares += float(real @ real)
            least, most = min(least, float(real.min())), max(most, float(real.max()))
        within = max(most, -least) <= spec.peak * (1 + TOLERANCE)
        within &= math.sqrt(squares) <= spec.l2 * (1 + TOLERANCE)
        if not within or (spec.segment == "weight" and least < 0):
            raise UpdateRejected(
                f"the {spec.segment} of an update exceeds its bounds",
                fix="encode the update as the plan says",
            )
