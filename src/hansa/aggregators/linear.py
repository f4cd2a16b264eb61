"""The mean: a sum whose bits depend on the set of updates alone, in the memory of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hansa.core.parts import Facts, Partial, Update
from hansa.core.spec import Divisor, Domain, UpdateSpec
from hansa.core.vector import Layout, Vector, blocks
from hansa.errors import HansaError, UpdateRejected

RANGES: Mapping[str, float] = {"delta": 2.0**24, "weight": 2.0**32, "metrics": 2.0**32}
"""Coordinates of each segment are within this range where nothing else bounds them.

A sum of integers needs a range. A delta is a change of parameters times a number of examples:
2**24 leaves room for a change by 16 of a client with a million examples. Weights and metric sums
are counts and totals over examples.
"""

_SMALLEST = -149
"""All float32 numbers are multiples of 2**-149: a finer grid says nothing more."""


_BLOCK = 16_384
"""Coordinates that are folded at once: what that needs stays in the processor's second cache."""


_SHIFT = 1.5 * 2.0**52
"""To add this to a float64 rounds it to a whole number."""

_NEAR = 2.0**51
"""Magnitudes below this stay between 2**52 and 2**53 when `_SHIFT` is added."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The sum of all updates, to be divided by their weight.

    Floating-point addition depends on the order. Here real updates are rounded to a grid that is
    fine enough to keep float32 deltas as they are (62 bits for the sum), and added as int64;
    ring updates are added as uint32 that wrap. Both are exact, so any order, any grouping and
    any engine give the same bits.

    | update                            | result                                      |
    |-----------------------------------|---------------------------------------------|
    | none                              | zeros                                       |
    | the same ones in another order    | the same bits                               |
    | NaN, infinity, beyond the range   | UpdateRejected, the partial sum as it was   |
    | another type or length            | UpdateRejected, the partial sum as it was   |
    | more updates than the cohort      | HansaError: the plan proved no more         |

    It breaks down with the first bad client: one update moves the mean as far as its bound lets
    it. An update from an older model can count for less: its delta, and nothing else, is multiplied
    in float64 before it is rounded to the grid. `add` is O(d) in time, with temporaries of one
    block; memory is one buffer of d numbers, whatever the cohort.

    Attributes:
      divisor: what the sum is divided by afterwards.
    """

    divisor: Divisor

    def __str__(self) -> str:
        return f"the mean over clients: the sum divided by {self.divisor.value}"

    @property
    def linear(self) -> bool:
        """True: a sum."""
        return True

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Chooses the grid: a power of two with which the whole cohort stays below 2**62."""
        if spec.domain is Domain.RING:
            return replace(spec, divisor=self.divisor)
        peak = spec.peak if math.isfinite(spec.peak) else RANGES[spec.segment]
        _, exponent = math.frexp(spec.cohort * peak)  # the sum is below 2**exponent
        quantum = 2.0 ** max(exponent - 61, _SMALLEST)
        rounding = quantum / 2 * math.sqrt(spec.size)
        return replace(
            spec, divisor=self.divisor, peak=peak, quantum=quantum, l2=spec.l2 + rounding
        )

    def zero(self, layout: Layout, facts: Facts) -> Partial:
        """A buffer of zeros: int64 on the grid, or uint32 in the ring."""
        return Partial(np.zeros(layout.size, _sum_type(layout, facts)), ())

    def add(self, partial: Partial, client: str, update: Update, facts: Facts) -> Partial:
        """Checks the whole update, then adds it block by block, in place.

        Raises:
          UpdateRejected: its type, its length, or a coordinate; the partial sum is unchanged.
        """
        return self.add_discounted(partial, client, update, facts, 1.0)

    def add_discounted(
        self, partial: Partial, client: str, update: Update, facts: Facts, weight: float
    ) -> Partial:
        """As `add`, the delta times `weight`, which is above 0 and at most 1.

        Raises:
          UpdateRejected: as `add`.
          HansaError: the update is of integers in a ring, which cannot be divided.
        """
        total: Vector = partial.value
        if total.dtype == np.uint32:
            _check_undivided(weight)
            _check_form(update, total, np.dtype(np.uint32))
            np.add(total, update.vector, out=total)
        else:
            _check_form(update, total, np.dtype(np.float32))
            names = [segment.name for segment in update.layout.segments]
            largest = {
                name: check_range(update.segment(name), facts[name].peak, name) for name in names
            }
            for name in names:
                quantum = facts[name].quantum
                fold = _fold_near if largest[name] < _NEAR * quantum else _fold
                scale = _scale(name, quantum, weight)
                fold(update.layout.slice(total, name), update.segment(name), scale)
        return Partial(total, (*partial.members, client))

    def add_rows(
        self,
        partial: Partial,
        clients: Sequence[str],
        rows: Vector,
        layout: Layout,
        facts: Facts,
        weight: float = 1.0,
    ) -> Partial:
        """Checks all of the (k, d) updates, then adds them, some coordinates at a time.

        Their deltas are multiplied by `weight`, as by `add_discounted`.

        Raises:
          UpdateRejected: one of them would be rejected alone; the partial sum is unchanged.
        """
        total: Vector = partial.value
        if total.dtype != np.int64 or rows.dtype != np.float32 or rows.shape[1:] != total.shape:
            raise UpdateRejected(
                f"updates of {rows.dtype.name} {rows.shape} cannot be added to a sum of "
                f"{total.dtype.name} {total.shape} in one pass",
                fix="add one after the other",
            )
        segments = [(s.name, slice(*layout.bounds(s.name))) for s in layout.segments if s.size]
        largest = {
            name: check_range(rows[:, place], facts[name].peak, name) for name, place in segments
        }
        for name, place in segments:
            quantum = facts[name].quantum
            near = largest[name] < _NEAR * quantum
            _fold_rows(total[place], rows[:, place], _scale(name, quantum, weight), near=near)
        return Partial(total, (*partial.members, *clients))

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Adds the right sum to the left one, in place."""
        np.add(left.value, right.value, out=left.value)
        return Partial(left.value, left.members + right.members)

    def finish(self, partial: Partial, layout: Layout, facts: Facts) -> Vector:
        """The sum: float64 in model units, in the same buffer, or uint32 modulo 2**bits.

        Raises:
          HansaError: more updates were added than the plan says, so the sum may have overflowed.
        """
        total: Vector = partial.value
        cohort = facts[layout.segments[0].name].cohort
        if len(partial.members) > cohort:
            raise HansaError(
                f"{len(partial.members):,} updates were added up, the plan says at most {cohort:,}",
                fix="draw cohorts with the plan's own sampler",
            )
        if total.dtype == np.uint32:
            bits = facts[layout.segments[0].name].bits
            return np.bitwise_and(total, np.uint32(2**bits - 1), out=total)
        real = total.view(np.float64)
        for segment in layout.segments:
            start, end = layout.bounds(segment.name)
            for block in blocks(end - start):
                place = slice(start + block.start, start + block.stop)
                real[place] = total[place].astype(np.float64) * facts[segment.name].quantum
        return real

    def dump(self, partial: Partial) -> memoryview:
        """The bytes of a partial sum, without a copy, so that it can be made durable."""
        value: Vector = partial.value
        return value.astype(value.dtype.newbyteorder("<"), copy=False).data.cast("B")

    def load(
        self, buffer: bytes | memoryview, members: tuple[str, ...], layout: Layout, facts: Facts
    ) -> Partial:
        """A partial sum from its bytes.

        Raises:
          HansaError: the bytes are not a sum of this layout.
        """
        kind = _sum_type(layout, facts)
        if len(buffer) != kind.itemsize * layout.size:
            raise HansaError(
                f"a partial sum has {len(buffer):,} bytes, the plan says "
                f"{kind.itemsize * layout.size:,}",
                fix="open the accumulator with the plan it was written for",
            )
        return Partial(np.frombuffer(buffer, kind.newbyteorder("<")).astype(kind), members)


def check_range(values: Vector, peak: float, segment: str) -> float:
    """Checks that all coordinates, of one update or (k, d), are finite and within the range.

    Returns:
      The largest magnitude of a coordinate.

    Raises:
      UpdateRejected: one is not; the message does not tell its value.
    """
    largest = 0.0
    with np.errstate(invalid="ignore"):  # comparisons with NaN are false, which is what is asked
        for block in blocks(values.shape[-1]):
            part = values[..., block]
            low, high = float(part.min()), float(part.max())
            if not (-peak <= low and high <= peak):
                raise UpdateRejected(
                    f"the {segment} of an update is not finite or beyond {peak:.4g}",
                    fix="lower the learning rate, clip updates, or look for broken examples",
                )
            largest = max(largest, -low, high)
    return largest


def _check_form(update: Update, total: Vector, kind: np.dtype[Any]) -> None:
    if update.vector.dtype != kind or update.vector.shape != total.shape:
        raise UpdateRejected(
            f"an update of {update.vector.dtype.name} {update.vector.shape} arrived where the "
            f"plan says {kind.name} {total.shape}",
            fix="encode the update as the plan says",
        )


def _check_undivided(weight: float) -> None:
    if weight != 1:
        raise HansaError(
            "an update of integers in a ring cannot count for less than another",
            fix="set cohort.staleness_exponent = 0, or leave quantization.step out",
        )


def _scale(segment: str, quantum: float, weight: float) -> float:
    """From model units to steps of the grid. Only a delta follows from the model's age.

    The quotient by a power of two is exact, so one product gives what weight and grid give one
    after the other.
    """
    return (weight if segment == "delta" else 1.0) / quantum


def _fold(total: Vector, values: Vector, scale: float) -> None:
    """Rounds to the grid and adds; a product with a power of two is exact in float64."""
    scaled, steps = np.empty(_BLOCK, np.float64), np.empty(_BLOCK, np.int64)
    for block in blocks(len(values), _BLOCK):
        count = block.stop - block.start
        real, whole, place = scaled[:count], steps[:count], total[block]
        real[...] = values[block]
        real *= scale
        np.rint(real, out=real)
        np.copyto(whole, real, casting="unsafe")
        place += whole


def _fold_near(total: Vector, values: Vector, scale: float) -> None:
    """The same with fewer passes, where every coordinate is below `_NEAR` quanta.

    A float64 between 2**52 and 2**53 counts whole numbers in its last bits, and one between 2**52
    and 2**53 quanta counts quanta. So adding `_SHIFT` of them rounds, to even at a tie as `np.rint`
    does, and the difference of the bits is the integer.
    """
    shift, factor = _shift(scale)
    bits = np.float64(shift).view(np.int64)
    scaled = np.empty(_BLOCK, np.float64)
    for block in blocks(len(values), _BLOCK):
        real, place = scaled[: block.stop - block.start], total[block]
        real[...] = values[block]
        if factor is not None:
            real *= factor
        real += shift
        whole = real.view(np.int64)
        whole -= bits
        place += whole


def _fold_rows(total: Vector, rows: Vector, scale: float, *, near: bool) -> None:
    """As `_fold` and `_fold_near`, for (k, d) values."""
    if not near:
        for row in rows:
            _fold(total, row, scale)
        return
    shift, factor = _shift(scale)
    bits = int(np.float64(shift).view(np.int64))
    all_bits = np.uint64(bits * len(rows) % 2**64).view(np.int64)  # int64 wraps, and wraps back
    scaled = np.empty(_BLOCK, np.float64)
    for block in blocks(len(total), _BLOCK):
        real, place = scaled[: block.stop - block.start], total[block]
        place -= all_bits
        for row in rows:
            real[...] = row[block]
            if factor is not None:
                real *= factor
            real += shift
            place += real.view(np.int64)


def _shift(scale: float) -> tuple[float, float | None]:
    """What rounds to the grid when it is added, and by what to multiply before; None: by nothing.

    Where one over the quantum is a power of two, the numbers as they are have quanta for last bits.
    """
    plain = math.frexp(scale)[0] == 0.5  # as of all powers of two
    return (_SHIFT / scale, None) if plain else (_SHIFT, scale)


def _sum_type(layout: Layout, facts: Facts) -> np.dtype[Any]:
    ring = facts[layout.segments[0].name].domain is Domain.RING
    return np.dtype(np.uint32 if ring else np.int64)
