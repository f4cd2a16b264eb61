"""What every robust rule does as a part of a job: it keeps one row per client until the end."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hansa.aggregators.linear import RANGES, Mean, check_range
from hansa.aggregators.robust.distances import products
from hansa.core.parts import Facts, Partial, Update
from hansa.core.spec import Divisor, Domain, Reader, UpdateSpec
from hansa.core.standing import Likeness
from hansa.core.vector import Layout, Vector
from hansa.errors import PlanError, RoundVoid, UpdateRejected

FEWEST = 5
"""Clients among which a rule can tell a bad one from the honest differences of the others."""

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
class KeepsRows(ABC):
    """Keeps one row per client, and fills in the centre of all rows at the end."""

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
        if spec.quorum < FEWEST:
            raise PlanError(
                self,
                f"protects against nobody in a round of {spec.quorum} updates",
                f"set rounds.quorum to at least {FEWEST}, or use the mean",
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
        return self.add_discounted(partial, client, update, facts, 1.0)

    def add_discounted(
        self, partial: Partial, client: str, update: Update, facts: Facts, weight: float
    ) -> Partial:
        """As `add`, the mean delta times `weight`, which is above 0 and at most 1.

        The rule then sees an older update as a shorter one, and takes it for one client like any
        other: how many bad clients it bears does not depend on who is late.

        Raises:
          UpdateRejected: as `add`, whatever the weight: what is refused fresh is refused old.
        """
        rows: Rows = partial.value
        rest, delta = _without_delta(update), update.segment("delta")
        its = float(update.segment("weight")[0])
        check_range(delta, facts["delta"].peak, "delta")
        row = _per_unit_of_weight(delta, its) if its else None
        if row is not None and weight != 1:
            row *= np.float32(weight)
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
        """The centre times the total weight, so that dividing by the weight gives the centre.

        Raises:
          RoundVoid: the rule cannot say anything of the updates that came.
        """
        return self.finish_capped(partial, layout, facts, frozenset(), 1.0)

    def finish_capped(
        self, partial: Partial, layout: Layout, facts: Facts, capped: frozenset[str], cap: float
    ) -> Vector:
        """As `finish`, where what some clients change in the centre counts a share `cap`.

        The result is (1 - cap) times the centre of the others plus cap times the centre of all: no
        robust centre weighs clients, but any of them can be mixed. It lies between both, so it
        bears what both bear. Where the others are too few for the rule, all count as ever.

        Raises:
          RoundVoid: the rule cannot say anything of the updates that came.
        """
        rows: Rows = partial.value
        others = layout.without("delta")
        sums = _SUM.finish(rows.rest, others, facts)
        total = np.zeros(layout.size, np.float64)
        for segment in others.segments:
            layout.slice(total, segment.name)[:] = others.slice(sums, segment.name)
        target = layout.slice(total, "delta")
        if rows.deltas and len(target):  # a measurement has none
            rows.deltas.sort(key=_name)
            weight = float(others.slice(sums, "weight")[0])
            self._fill_capped(target, rows.deltas, weight, capped, cap)
        return total

    def likeness(self, partial: Partial) -> Likeness:
        """Products of all deltas per unit of weight: O(n^2 d) time, O(n^2) memory."""
        rows = sorted(partial.value.deltas, key=_name)
        found = np.zeros((0, 0))
        if rows and len(rows[0][1]):
            found = products([row for _, row in rows], None)
        return Likeness(tuple(name for name, _ in rows) if len(found) else (), found)

    def _fill_capped(
        self,
        target: Vector,
        rows: Sequence[tuple[str, Vector]],
        weight: float,
        capped: frozenset[str],
        cap: float,
    ) -> None:
        """Writes the centre, mixed with that without the capped clients, into (d,) `target`."""
        kept = [row for row in rows if row[0] not in capped]
        if len(kept) == len(rows) or len(kept) < FEWEST:
            self.fill(target, rows, weight)
            return
        others = [(name, row.copy()) for name, row in kept]  # the rule may write into them
        without = np.zeros_like(target)
        try:
            self.fill(without, others, weight)
        except RoundVoid:
            self.fill(target, rows, weight)
            return
        self.fill(target, rows, weight)
        target *= cap
        target += (1 - cap) * without

    @abstractmethod
    def fill(self, target: Vector, rows: Sequence[tuple[str, Vector]], weight: float) -> None:
        """Writes the centre of the rows, times a weight, into (d,) `target`.

        Args:
          target: float64.
          rows: (name, (d,) float32) of each client that has weight, by name, at least one; they
            may be overwritten.
          weight: total weight.

        Raises:
          RoundVoid: these rows are too few for the rule, or the one that it needs is not there.
        """


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
