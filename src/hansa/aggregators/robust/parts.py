"""Means that a minority of bad clients cannot move: by coordinate, over the clients' own means."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.linear import RANGES, Mean, check_range
from hansa.core.parts import Facts, Partial, Update
from hansa.core.spec import Divisor, Domain, Reader, UpdateSpec
from hansa.core.vector import Layout, Vector, blocks
from hansa.errors import PlanError, UpdateRejected

_SUM = Mean(Divisor.REALISED)
"""What the weight and the metric sums are added with."""


@dataclass(slots=True)
class Rows:
    """The deltas that were added, and the exact sum of all that is not a delta.

    Attributes:
      deltas: (name, (d,) float32 delta per unit of weight) of each client that has weight.
      rest: partial sum of the other segments.
    """

    rest: Partial
    deltas: list[tuple[str, Vector]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _ByCoordinate(ABC):
    """Keeps one row per client and takes a robust centre of each coordinate at the end."""

    @property
    def linear(self) -> bool:
        """False: every delta is kept until the end, O(clients * d) in memory."""
        return False

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """One client's influence on a robust centre has no bound in terms of its own norm.

        Raises:
          PlanError: updates cannot be told apart or ordered, or too few of them make a round.
        """
        if spec.reader is Reader.SUM:
            raise PlanError(
                self,
                f"needs every update, but {spec.reader.value}",
                "switch secure aggregation off, or use it over masked sums of small groups "
                "(secure_aggregation.groups)",
            )
        if spec.domain is not Domain.REAL:
            raise PlanError(
                self, f"has no order over {spec.domain.value}", "leave quantization.step out"
            )
        if spec.quorum < 3:
            raise PlanError(
                self,
                f"protects against nobody in a round of {spec.quorum} updates",
                "set rounds.quorum to at least 3, or use the mean",
            )
        if spec.segment != "delta":
            return _SUM.infer(spec)
        peak = spec.peak if math.isfinite(spec.peak) else RANGES["delta"]
        return replace(spec, l2=math.inf, peak=peak, divisor=Divisor.REALISED)

    def zero(self, layout: Layout, facts: Facts) -> Partial:
        """No rows."""
        return Partial(Rows(_SUM.zero(layout.without("delta"), facts)), ())

    def add(self, partial: Partial, client: str, update: Update, facts: Facts) -> Partial:
        """Keeps the client's mean delta; a client without weight has no say.

        Raises:
          UpdateRejected: a coordinate is not finite or out of range, or the weight is negative.
        """
        rows: Rows = partial.value
        rest, delta = _without_delta(update), update.segment("delta")
        weight = float(update.segment("weight")[0])
        check_range(delta, facts["delta"].peak, "delta")
        row = _per_unit_of_weight(delta, weight) if weight else None
        rows.rest = _SUM.add(rows.rest, client, rest, facts)
        if row is not None:
            rows.deltas.append((client, row))
        return Partial(rows, (*partial.members, client))

    def merge(self, left: Partial, right: Partial) -> Partial:
        """All rows of both."""
        rows: Rows = left.value
        rows.rest = _SUM.merge(rows.rest, right.value.rest)
        rows.deltas.extend(right.value.deltas)
        return Partial(rows, left.members + right.members)

    def finish(self, partial: Partial, layout: Layout, facts: Facts) -> Vector:
        """The centre times the total weight, so that dividing by the weight gives the centre."""
        rows: Rows = partial.value
        others = layout.without("delta")
        sums = _SUM.finish(rows.rest, others, facts)
        total = np.zeros(layout.size, np.float64)
        for segment in others.segments:
            layout.slice(total, segment.name)[:] = others.slice(sums, segment.name)
        deltas = [delta for _, delta in sorted(rows.deltas, key=_name)]
        if deltas:
            weight = float(others.slice(sums, "weight")[0])
            fill(self, layout.slice(total, "delta"), deltas, weight)
        return total

    @abstractmethod
    def centre(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        """(b,) centres of (b, n) sorted values, n > 0."""


@dataclass(frozen=True, slots=True)
class Median(_ByCoordinate):
    """The median of each coordinate over the clients' mean deltas (Yin et al., ICML 2018).

    Breakdown point 1/2: while fewer than half of the n clients of a round are bad, each
    coordinate stays between the smallest and the largest honest value. Clients count once each,
    whatever they weigh. Time O(d n log n), memory O(d n).

    | clients with weight                    | result                                    |
    |----------------------------------------|-------------------------------------------|
    | none                                   | zeros                                     |
    | one                                    | its delta                                 |
    | an even number                         | the mean of the two middle values         |
    | fewer than half say 1e9 or -1e9        | within the range of the others            |
    | one with weight 0 (no examples)        | it has no say; its metric sums count      |
    | NaN, infinity, beyond the range        | UpdateRejected, the rest as it was        |
    | the same updates in another order      | the same bits                             |
    """

    def __str__(self) -> str:
        return (
            "the median of each coordinate holds while fewer than half of a round's clients are bad"
        )

    def centre(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        """(b,) centres of (b, n) sorted values, n > 0."""
        n = columns.shape[1]
        low, high = columns[:, (n - 1) // 2], columns[:, n // 2]
        middle: NDArray[np.float64] = (low.astype(np.float64) + high) / 2
        return middle


@dataclass(frozen=True, slots=True)
class TrimmedMean(_ByCoordinate):
    """The mean of each coordinate without its k smallest and k largest values (Yin et al., 2018).

    k = floor(trim * n). Breakdown point `trim`: while at most k of the n clients of a round are
    bad, each coordinate stays between the smallest and the largest honest value. Clients count
    once each, whatever they weigh. Time O(d n log n), memory O(d n).

    | clients with weight                    | result                                    |
    |----------------------------------------|-------------------------------------------|
    | none                                   | zeros                                     |
    | n < 1 / trim, hence k = 0              | the plain mean; the plan's quorum forbids |
    | k say 1e9 or -1e9                      | within the range of the others            |
    | one with weight 0 (no examples)        | it has no say; its metric sums count      |
    | NaN, infinity, beyond the range        | UpdateRejected, the rest as it was        |
    | the same updates in another order      | the same bits                             |

    Attributes:
      trim: share of the clients that is dropped at each end, below one half.
    """

    trim: float

    def __str__(self) -> str:
        return (
            f"the mean without the {self.trim:.0%} largest and smallest values of each coordinate "
            f"holds while at most {self.trim:.0%} of a round's clients are bad"
        )

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """As for every robust rule; and something must be trimmed even in the smallest round.

        Raises:
          PlanError: the share is impossible, or trims nothing from a round of the quorum.
        """
        if not 0 < self.trim < 0.5:
            raise PlanError(
                self,
                f"cannot drop a share of {self.trim:g} at each end",
                "set aggregation.trim between 0 and 0.5",
            )
        inferred = _ByCoordinate.infer(self, spec)
        if dropped(self.trim, spec.quorum) < 1:
            raise PlanError(
                self,
                f"drops nobody from a round of {spec.quorum} updates",
                f"set rounds.quorum to at least {math.ceil(1 / self.trim)}, raise "
                'aggregation.trim, or use rule = "median"',
            )
        return inferred

    def centre(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        """(b,) centres of (b, n) sorted values, n > 0."""
        n = columns.shape[1]
        k = dropped(self.trim, n)
        kept: NDArray[np.float64] = columns[:, k : n - k].mean(axis=1, dtype=np.float64)
        return kept


def fill(rule: _ByCoordinate, target: Vector, rows: Sequence[Vector], weight: float) -> None:
    """The centre of all rows, times a weight, into (d,) `target`.

    Works on a few columns of all rows at a time; the rows are never copied as a whole.
    """
    for block in blocks(len(target), max(1, 2**20 // len(rows))):
        columns = np.stack([row[block] for row in rows], axis=1)
        columns.sort(axis=1)
        target[block] = rule.centre(columns) * weight


def dropped(trim: float, clients: int) -> int:
    """floor(trim * n), where a share like 0.29 of 100 means 29 and not 28.999999999999996."""
    return math.floor(trim * clients + 1e-9)


def _name(row: tuple[str, Any]) -> str:
    return row[0]


def _without_delta(update: Update) -> Update:
    layout = update.layout.without("delta")
    parts = [update.segment(segment.name) for segment in layout.segments]
    return Update(np.concatenate(parts), layout)


def _per_unit_of_weight(delta: Vector, weight: float) -> Vector:
    """A new (d,) float32 vector: the buffer that an update came in is used again.

    Raises:
      UpdateRejected: the weight is negative, or so small that the delta is not finite.
    """
    with np.errstate(all="ignore"):
        row = np.divide(delta, np.float32(weight))
    if not weight > 0 or not np.isfinite(row).all():
        raise UpdateRejected(
            "the weight of an update is negative, or its delta is too large for its weight",
            fix="weigh the update as the plan says",
        )
    return row
