"""How much a client counts: by its number of examples, or every client once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import Domain, Reader, UpdateSpec
from hansa.core.vector import Layout, Vector
from hansa.errors import PlanError, UpdateRejected


@dataclass(frozen=True, slots=True)
class Weight:
    """Turns a client's mean delta and its number of examples n into a weighted delta.

    | by       | n     | weight      | delta            |
    |----------|-------|-------------|------------------|
    | examples | n > 0 | min(n, cap) | delta * weight   |
    | uniform  | n > 0 | 1           | delta            |
    | either   | 0     | 0           | 0                |

    Metric sums are sums over examples already and are left alone.

    Attributes:
      by: what a client counts by.
      cap: most examples that one client can count for; inf = as many as it reports.
    """

    by: Literal["examples", "uniform"]
    cap: float = math.inf

    def __str__(self) -> str:
        if self.by == "uniform":
            return "every client counts once"
        if math.isinf(self.cap):
            return "a client counts by its examples"
        return f"a client counts by its examples, at most {self.cap:g} of them"

    @property
    def role(self) -> Role:
        """The first of all stages."""
        return Role.WEIGHT

    @property
    def bound(self) -> float:
        """Most that one client can weigh."""
        return self.cap if self.by == "examples" else 1.0

    def of(self, examples: float) -> float:
        """What a client with so many examples weighs."""
        if examples <= 0:
            return 0.0
        return 1.0 if self.by == "uniform" else min(examples, self.cap)

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Bounds the weight in all segments, and the weight segment by it.

        Raises:
          PlanError: the cap is not a positive number.
        """
        if not self.cap > 0:
            raise PlanError(
                self,
                f"a client cannot count for at most {self.cap:g} examples",
                "set aggregation.max_weight to a positive number, or to 0 for no bound",
            )
        if spec.segment != "weight":
            return replace(spec, weight=self.bound)
        whole = math.isinf(self.bound) or self.bound == math.floor(self.bound)
        return replace(
            spec,
            weight=self.bound,
            l2=self.bound,
            peak=self.bound,
            quantum=1.0 if whole else 0.0,
        )

    def encode(self, update: Update, ctx: Context) -> Update:  # noqa: ARG002  # the seam's signature
        """Multiplies the delta by the weight and writes the weight, in place."""
        weight, delta = update.segment("weight"), update.segment("delta")
        if not len(weight):
            return update
        examples = float(weight[0])
        if examples <= 0:
            weight[0] = 0.0
            delta[:] = 0.0
        elif self.by == "uniform":
            weight[0] = 1.0
        else:
            weight[0] = float32_below(min(examples, self.cap))
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused later
                delta *= weight[0]
        return update

    def encode_rows(self, rows: Vector, layout: Layout) -> None:
        """What `encode` does, for each row."""
        start, end = layout.bounds("weight")
        if end == start:
            return
        deltas = rows[:, slice(*layout.bounds("delta"))]
        for row, delta in zip(rows, deltas, strict=True):
            examples = float(row[start])
            if examples <= 0:
                row[start] = 0.0
                delta[:] = 0.0
            else:
                row[start] = 1.0 if self.by == "uniform" else float32_below(min(examples, self.cap))
        if self.by != "uniform":
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused later
                deltas *= rows[:, start:end]

    def admit_rows(self, rows: Vector, layout: Layout, facts: Facts) -> None:
        """What `admit` does: most rows have a good weight, the others are looked at closely."""
        start, end = layout.bounds("weight")
        weights = rows[:, start:end]
        fine = ((weights >= float32_below(min(1.0, self.bound))) & (weights <= self.bound)).all(1)
        fine &= np.isfinite(weights).all(1)
        for row in rows[~fine]:
            self.admit(Update(row, layout), facts)

    def admit(self, update: Update, facts: Facts) -> None:
        """Checks that the weight is one that this stage can produce.

        Raises:
          UpdateRejected: it is not, or an update without weight has a delta.
        """
        admit_weight(update, facts, float(float32_below(min(1.0, self.bound))), self.bound)

    def decode(self, total: Vector, layout: Layout) -> Vector:  # noqa: ARG002  # the seam's signature
        """The sum of weighted deltas is what the mean is taken from."""
        return total


def admit_weight(update: Update, facts: Facts, least: float, most: float) -> None:
    """Checks a weight that can be read: 0 without a delta, or from `least` to `most`.

    Raises:
      UpdateRejected: it is neither.
    """
    spec, weight = facts["weight"], update.segment("weight")
    if spec.domain is not Domain.REAL or spec.reader is not Reader.EACH or not len(weight):
        return
    value = float(weight[0])
    if not (value == 0 or (least <= value <= most and math.isfinite(value))):
        raise UpdateRejected(
            f"the weight of an update is neither 0 nor between {least:g} and {most:g}",
            fix="weigh the update as the plan says",
        )
    if value == 0 and update.segment("delta").any():
        raise UpdateRejected(
            "an update without weight carries a delta",
            fix="send zeros where there are no examples",
        )


def float32_below(value: float) -> np.float32:
    """The largest float32 number that is at most `value`."""
    near = np.float32(value)
    return near if float(near) <= value else np.nextafter(near, np.float32(0.0))
