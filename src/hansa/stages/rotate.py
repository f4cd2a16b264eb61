"""Spreading an update evenly over its coordinates: the randomized Hadamard rotation."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import Domain, UpdateSpec
from hansa.core.vector import Layout, Vector
from hansa.errors import PlanError

SLACK = 1 - 2.0**-22
"""A rotated vector is this much shorter: more than rounding to float32 can add to its norm."""

RARELY = 2.0**-40
"""How probable that is which is planned to never happen."""

_CACHED = 65_536
"""Coordinates that are worked on at once, so that they stay in the processor's second cache."""


def largest_power(size: int) -> int:
    """The largest power of two that is at most `size`, which is at least 1."""
    return 1 << (size.bit_length() - 1)


def reach(norm: float, size: int, cohort: int) -> float:
    """What a coordinate of a rotated vector stays below, almost surely.

    Over the signs, a coordinate is sub-Gaussian with deviation norm / sqrt(P), where P is the
    largest power of two below the size. The probability that any coordinate of any client of a
    cohort is larger is below 2**-40, for vectors that do not depend on the signs.
    """
    tail = 2 * math.log(2 * max(size, 1) * max(cohort, 1) / RARELY)
    return min(norm, norm * math.sqrt(tail / largest_power(max(size, 1))))


@dataclass(frozen=True, slots=True)
class Rotate:
    """Multiplies the delta by an orthogonal matrix that spreads each coordinate over all.

    A clipped delta may hold all of its norm in one coordinate; rotated, its coordinates are about
    norm / sqrt(size) each, so that small integers hold them (Suresh et al., ICML 2017; Kairouz,
    Liu and Steinke, ICML 2021, section 5).

    The fast Walsh-Hadamard transform needs a power of two, and a layout has any size d. Padding
    would nearly double what is sent in the worst case; cutting d into powers of two would leave a
    short last block whose coordinates are not spread at all. Here P is the largest power of two
    that is at most d: the first P coordinates are rotated, then the last P, unless P is d. The
    blocks overlap, so every coordinate is spread over about P > d / 2 others, the size stays d,
    and the product of two orthogonal matrices is one. The signs come from SHAKE-256, and the
    transform from additions in a fixed order: the same bits on every machine.

    | fact    | before       | after                                                       |
    |---------|--------------|-------------------------------------------------------------|
    | l2      | any          | the same: orthonormal, and shorter by 2**-22 until decoded  |
    | peak    | any          | l2, or `reach`: all may gather in one coordinate            |
    | quantum | any          | 0: a grid is lost                                           |
    | domain  | ring         | PlanError                                                   |

    Attributes:
      seed: public, and chosen before the data: who knows it can make vectors that do not spread.
      reach: coordinates are cut to this many model units once rotated, which makes the peak a
        fact for every dataset; inf = not cut. See the function `reach` for a value that cuts
        honest updates next to never.
    """

    seed: int
    reach: float = math.inf

    def __str__(self) -> str:
        cut = "" if math.isinf(self.reach) else f" and cut to {self.reach:.4g} in each coordinate"
        return f"deltas are rotated by public random signs{cut}"

    @property
    def role(self) -> Role:
        """Part of encoding: after the bound, before integers."""
        return Role.ENCODE

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Keeps the norm and gives up every bound on single coordinates but `reach`.

        Raises:
          PlanError: the update consists of integers already, or the reach is not positive.
        """
        if spec.segment != "delta" or not spec.size:
            return spec
        if spec.domain is not Domain.REAL:
            raise PlanError(
                self, f"cannot rotate {spec.domain.value}", "rotate before quantising and masking"
            )
        if not self.reach > 0:
            raise PlanError(
                self, f"a reach of {self.reach:g} would cut all to nothing", "set a positive reach"
            )
        return replace(spec, peak=min(spec.l2, self.reach), quantum=0.0)

    def encode(self, update: Update, ctx: Context) -> Update:  # noqa: ARG002  # the seam's signature
        """Rotates the delta, in place; what is not finite stays so: the next stage refuses it."""
        delta = update.segment("delta")
        if not len(delta):
            return update
        turned = delta.astype(np.float64)
        with np.errstate(invalid="ignore"):
            for part in _parts(len(turned)):
                block = _block(turned, part)
                block *= self._signs(len(block), part)
                hadamard(block)
            turned *= SLACK
            if math.isfinite(self.reach):
                np.clip(turned, -SLACK * self.reach, SLACK * self.reach, out=turned)
        delta[:] = turned
        return update

    def admit(self, update: Update, facts: Facts) -> None:
        """Nothing of its own: a norm is the same rotated, and the clip measures it."""

    def decode(self, total: Vector, layout: Layout) -> Vector:
        """Turns the sum back, in place."""
        delta = layout.slice(total, "delta")
        if not len(delta):
            return total
        turned = delta.astype(np.float64, copy=False)
        for part in reversed(_parts(len(turned))):
            block = _block(turned, part)
            hadamard(block)
            block *= self._signs(len(block), part)
        turned *= 1 / SLACK
        if turned is not delta:
            delta[:] = turned
        return total

    def _signs(self, power: int, part: int) -> NDArray[np.float64]:
        """(P,) numbers that are 1 or -1."""
        name = f"hansa/rotate/{self.seed}/{part}".encode()
        stream = hashlib.shake_256(name).digest((power + 7) // 8)
        bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=power)
        return 1.0 - 2.0 * bits.astype(np.float64)


def _parts(size: int) -> range:
    """One block where it holds everything; else two that overlap."""
    return range(1 if largest_power(size) == size else 2)


def _block(vector: Vector, part: int) -> Vector:
    """The first or the last P coordinates."""
    power = largest_power(len(vector))
    return vector[:power] if part == 0 else vector[len(vector) - power :]


def hadamard(vector: NDArray[np.float64]) -> None:
    """The orthonormal Walsh-Hadamard transform of 2**m numbers, in place; its own inverse.

    O(n log n). As a matrix of about sqrt(n) by sqrt(n) it is a transform of all columns and then
    of all rows, each done for as many at once as the cache holds.
    """
    size = len(vector)
    scale = 1 / math.sqrt(size)
    rows = 1 << (size.bit_length() // 2)
    matrix = vector.reshape(rows, -1)
    for side in (matrix, matrix.T):
        width = max(1, _CACHED // len(side))
        for start in range(0, side.shape[1], width):
            columns = np.ascontiguousarray(side[:, start : start + width])
            _butterflies(columns)
            side[:, start : start + width] = columns
    vector *= scale


def _butterflies(columns: NDArray[np.float64]) -> None:
    """The unnormalised transform along the first axis, in place."""
    half, difference = 1, np.empty(columns.size // 2, np.float64)
    while half < len(columns):
        pairs = columns.reshape(-1, 2, half * columns.shape[1])
        first, second = pairs[:, 0], pairs[:, 1]
        apart = difference.reshape(first.shape)
        np.subtract(first, second, out=apart)
        first += second
        second[...] = apart
        half *= 2
