"""A robust rule over masked sums: each small group shows its sum, the rule looks at the groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import Median, TrimmedMean, dropped, fill
from hansa.aggregators.robust.distances import products
from hansa.core.parts import Facts, Partial, Update
from hansa.core.spec import Divisor, Reader, UpdateSpec
from hansa.core.standing import GroupLikeness
from hansa.core.vector import Layout, Vector
from hansa.errors import PlanError, RoundVoid

FEWEST = 3
"""Groups among which one can be wrong and is seen to be."""

SUM = Mean(Divisor.REALISED)
"""What adds up the updates of one group, masked or not."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """The centre, by coordinate, of the means of random groups of clients.

    Nobody can read an update inside a group, so one bad client spoils its whole group, and the rule
    must bear that group: with g groups, a median holds while fewer than g / 2 clients are bad,
    however the bad ones fall (bucketing; Karimireddy et al., ICLR 2022, section 4). Groups are
    drawn anew in each round.

    | groups                                   | result                                    |
    |------------------------------------------|-------------------------------------------|
    | fewer than 3 left                        | RoundVoid                                 |
    | one whose members have no examples       | no say; its metric sums count             |
    | a minority anywhere in the ring          | within the range of the others            |
    | weight or metrics that none can have     | left out, as if it had not come           |
    | the same ones in another order           | the same bits                             |

    Attributes:
      rule: the centre over the groups' means.
      groups: how many groups.
    """

    rule: Median | TrimmedMean
    groups: int

    def __str__(self) -> str:
        return (
            f"over the means of {self.groups} random groups, each of which one bad client spoils: "
            f"{self.rule}, where clients are groups"
        )

    @property
    def linear(self) -> bool:
        """False: the sum of every group is kept until the end."""
        return False

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """One group's influence on a robust centre has no bound in terms of its own norm.

        Raises:
          PlanError: there are no masks, too few groups, or nothing is trimmed.
        """
        if spec.reader is not Reader.SUM:
            raise PlanError(
                self,
                "groups hide nothing where each update can be read",
                "set secure_aggregation.enabled = true, or leave secure_aggregation.groups out",
            )
        if self.groups < FEWEST:
            raise PlanError(
                self,
                f"protects against nobody with {self.groups} groups",
                f"set secure_aggregation.groups to at least {FEWEST}",
            )
        if isinstance(self.rule, TrimmedMean) and dropped(self.rule.trim, self.groups) < 1:
            raise PlanError(
                self,
                f"drops none of {self.groups} groups",
                f"set secure_aggregation.groups to at least {math.ceil(1 / self.rule.trim)}, or "
                'use rule = "median"',
            )
        l2 = math.inf if spec.segment == "delta" else spec.l2
        return replace(spec, l2=l2, divisor=Divisor.REALISED)

    def zero(self, layout: Layout, facts: Facts) -> Partial:  # noqa: ARG002  # the seam's signature
        """No groups."""
        return Partial([], ())

    def group(self, total: Vector, members: tuple[str, ...]) -> Partial:
        """One group: the (d,) sum over its members, in the stages' encoding."""
        return Partial([(tuple(sorted(members)), total)], members)

    def add(self, partial: Partial, client: str, update: Update, facts: Facts) -> Partial:  # noqa: ARG002  # the seam's signature
        """A group of one, for whoever adds by hand; engines add `group`s."""
        return self.merge(partial, self.group(update.vector.copy(), (client,)))

    def merge(self, left: Partial, right: Partial) -> Partial:
        """The groups of both."""
        return Partial([*left.value, *right.value], left.members + right.members)

    def finish(self, partial: Partial, layout: Layout, facts: Facts) -> Vector:
        """As `finish_decoded`, where the stages encode nothing."""
        return self.finish_decoded(partial, lambda total: total.astype(np.float64), layout, facts)

    def finish_decoded(
        self,
        partial: Partial,
        decode: Callable[[Vector], Vector],
        layout: Layout,
        facts: Facts,
    ) -> Vector:
        """The centre times the total weight, in model units, float64.

        Raises:
          RoundVoid: too few groups are left to tell a bad one.
        """
        real_groups = self._decoded(partial, decode, layout, facts)
        groups = [real for _, real, honest in real_groups if honest]
        if len(groups) < FEWEST:
            raise RoundVoid(
                f"{len(groups)} groups are left, {FEWEST} are needed",
                fix="wait for more clients; the next attempt draws other groups",
            )
        total, rows = np.zeros(layout.size, np.float64), []
        for real in groups:
            weight = float(layout.slice(real, "weight")[0])
            for segment in layout.segments:
                if segment.name != "delta":
                    layout.slice(total, segment.name)[:] += layout.slice(real, segment.name)
            if weight > 0:
                rows.append(layout.slice(real, "delta") / weight)
        if rows:
            weight = float(layout.slice(total, "weight")[0])
            fill(self.rule, layout.slice(total, "delta"), rows, weight)
        return total

    def group_likeness(
        self,
        partial: Partial,
        decode: Callable[[Vector], Vector],
        layout: Layout,
        facts: Facts,
    ) -> GroupLikeness:
        """Products of the groups' means: O(g^2 d) time, O(g d) memory."""
        copied = Partial([(names, total.copy()) for names, total in partial.value], partial.members)
        groups, rows, refused = [], [], []
        for members, real, honest in self._decoded(copied, decode, layout, facts):
            weight = float(layout.slice(real, "weight")[0])
            if not honest:
                refused.append(members)
            elif weight > 0 and layout.slice(real, "delta").size:
                groups.append(members)
                rows.append(layout.slice(real, "delta") / weight)
        found = products(rows, None) if rows else np.zeros((0, 0))
        return GroupLikeness(tuple(groups), found, tuple(refused))

    def _decoded(
        self,
        partial: Partial,
        decode: Callable[[Vector], Vector],
        layout: Layout,
        facts: Facts,
    ) -> Iterator[tuple[tuple[str, ...], Vector, bool]]:
        """Members, sum in model units, and whether honest clients can have it, by members."""
        for members, encoded in sorted(partial.value, key=lambda group: group[0]):
            real = decode(SUM.finish(Partial(encoded, members), layout, facts))
            yield members, real, _honest(real, layout, facts, len(members))


def _honest(real: Vector, layout: Layout, facts: Facts, members: int) -> bool:
    """Whether honest clients can have such sums beside the delta, which the rule bears anyway."""
    others = [segment for segment in layout.segments if segment.name != "delta" and segment.size]
    return all(
        facts[segment.name].possible(float(values.min()), float(values.max()), members)
        for segment in others
        for values in (layout.slice(real, segment.name),)
    )
