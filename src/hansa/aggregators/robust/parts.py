"""Means that a minority of bad clients cannot move: by coordinate, over the clients' own means."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from hansa.aggregators.robust.by_coordinate import around_middle, write_means
from hansa.aggregators.robust.kept import KeepsRows
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Vector
from hansa.errors import PlanError


@dataclass(frozen=True, slots=True)
class _ByCoordinate(KeepsRows):
    """Takes a robust centre of each coordinate."""

    def fill(self, target: Vector, rows: Sequence[tuple[str, Vector]], weight: float) -> None:
        """Writes the centre of the rows, times a weight, into (d,) `target`."""
        fill(self, target, [row for _, row in rows], weight)

    @abstractmethod
    def drops(self, n: int) -> int:
        """How many of n > 0 values of a coordinate are left out at each end."""


@dataclass(frozen=True, slots=True)
class Median(_ByCoordinate):
    """The median of each coordinate over the clients' mean deltas (Yin et al., ICML 2018).

    Breakdown point 1/2: while fewer than half of the n clients of a round are bad, each
    coordinate stays between the smallest and the largest honest value. Clients count once each,
    whatever they weigh. Time O(d n log^2 n), memory O(d n).

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

    def drops(self, n: int) -> int:
        """All but the middle one, or the two in the middle."""
        return around_middle(n)


@dataclass(frozen=True, slots=True)
class TrimmedMean(_ByCoordinate):
    """The mean of each coordinate without its k smallest and k largest values (Yin et al., 2018).

    k = floor(trim * n). Breakdown point `trim`: while at most k of the n clients of a round are
    bad, each coordinate stays between the smallest and the largest honest value. Clients count
    once each, whatever they weigh. Time O(d n log^2 n), memory O(d n).

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

    def drops(self, n: int) -> int:
        """The share of n, in whole clients."""
        return dropped(self.trim, n)


def fill(rule: _ByCoordinate, target: Vector, rows: Sequence[Vector], weight: float) -> None:
    """The centre of all rows, times a weight, into (d,) float64 `target`; rows are only read."""
    write_means(rows, rule.drops(len(rows)), target, type(rule).__name__)
    target *= weight


def dropped(trim: float, clients: int) -> int:
    """floor(trim * n), where a share like 0.29 of 100 means 29 and not 28.999999999999996."""
    return math.floor(trim * clients + 1e-9)
