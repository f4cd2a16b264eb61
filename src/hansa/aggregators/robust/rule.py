"""Any robust rule as a part of a job, with what is mixed before it; and FLTrust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hansa.aggregators.robust.centers import CENTERS, Center, key_of
from hansa.aggregators.robust.kept import FEWEST, KeepsRows
from hansa.aggregators.robust.mixing import bucketing, mix_nearest
from hansa.aggregators.robust.parts import dropped
from hansa.aggregators.robust.similarity import fltrust
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Vector
from hansa.errors import PlanError, RoundVoid

BUCKET = 2
"""Updates in a bucket (Karimireddy et al., ICLR 2022)."""

LOOKED_AT = 10_000
"""Sizes of rounds for which it is checked that the rule has enough updates."""


@dataclass(frozen=True, slots=True)
class Robust(KeepsRows):
    """A robust centre of the clients' mean deltas, each client once, whatever it weighs.

    Breakdown point, cost and paper are the rule's own: see its function in this package. The
    updates of a round are kept until its end, O(n d) in memory; mixing writes into them.

    | clients with weight                    | result                                    |
    |----------------------------------------|-------------------------------------------|
    | none                                   | zeros                                     |
    | fewer than the rule needs              | RoundVoid                                 |
    | one with weight 0 (no examples)        | it has no say; its metric sums count      |
    | NaN, infinity, beyond the range        | UpdateRejected, the rest as it was        |
    | the same updates in another order      | the same bits                             |

    Attributes:
      rule: a word of `CENTERS`.
      bad: share of a round's clients that may be bad.
      mixing: nearest: each update becomes the mean of its closest ones (Allouah et al., AISTATS
        2023); bucketing: means of random pairs (Karimireddy et al., ICLR 2022).
    """

    rule: str
    bad: float
    mixing: Literal["none", "nearest", "bucketing"] = "none"

    def __str__(self) -> str:
        before = {
            "none": "",
            "nearest": " over nearest-neighbour mixing",
            "bucketing": " over random pairs",
        }[self.mixing]
        name = f"{self.center.name}{before}"
        if self.rule == "foolsgold":
            return f"{name} gives no weight to clients that say the same; one liar is not seen"
        if self.rule == "flame":
            return f"{name} follows a majority that points one way; no bound is proved"
        if not self._counted:
            share = "a quarter" if self.mixing == "bucketing" else "half"
            return f"{name} holds while fewer than {share} of a round's clients are bad"
        if not self.center.proved:
            return (
                f"{name} leaves out the {self.bad:.0%} of a round's clients that stand out most; "
                "no bound is proved against who knows the rule"
            )
        return f"{name} holds while at most {self.bad:.0%} of a round's clients are bad"

    @property
    def center(self) -> Center:
        """The rule."""
        return CENTERS[self.rule]

    @property
    def _counted(self) -> bool:
        return self.center.counts or self.mixing == "nearest"

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """As for every robust rule; and rounds of every size must have enough updates for it.

        Raises:
          PlanError: the share is impossible, or leaves too few honest updates, or nobody out.
        """
        if not 0 < self.bad < 0.5:
            raise PlanError(
                self,
                f"cannot bear a share of {self.bad:g} bad clients",
                "set aggregation.bad above 0 and below 0.5",
            )
        if self.mixing != "none" and not self.center.mixes:
            raise PlanError(
                self,
                "looks for clients that are alike, and mixing makes all alike",
                'set aggregation.mixing = "none"',
            )
        inferred = KeepsRows.infer(self, spec)
        if self._counted and not dropped(self.bad, spec.quorum):
            raise PlanError(
                self,
                f"bears nobody in a round of {spec.quorum} updates",
                f"set rounds.quorum to at least {_fewest_with_one(self.bad)}, raise "
                'aggregation.bad, or use rule = "median"',
            )
        most = max(spec.quorum, min(spec.cohort, spec.quorum + LOOKED_AT))
        lacking = [n for n in range(spec.quorum, most + 1) if self.lacks(n)]
        if lacking:
            raise PlanError(
                self,
                f"{self.lacks(lacking[0])}, and a round may have {lacking[0]}",
                f"set rounds.quorum to at least {self._enough(lacking[-1])}, or lower "
                "aggregation.bad",
            )
        return inferred

    def lacks(self, clients: int) -> str:
        """What a round of so many updates lacks; empty if it has enough."""
        bad = dropped(self.bad, clients)
        rows = -(-clients // BUCKET) if self.mixing == "bucketing" else clients
        least = self.center.least(bad if self._counted else 0)
        if self.mixing != "none":
            least = max(least, 2 * (bad if self._counted else 0) + 1)
        if rows >= least:
            return ""
        what = "pairs" if self.mixing == "bucketing" else "updates"
        return f"needs {least} {what} to bear {bad} bad ones"

    def fill(self, target: Vector, rows: Sequence[tuple[str, Vector]], weight: float) -> None:
        """Writes the centre of the rows, times a weight, into (d,) `target`.

        Raises:
          RoundVoid: too few clients had examples.
        """
        lack = self.lacks(len(rows))
        if lack:
            raise RoundVoid(
                f"{self.center.name} {lack}, and {len(rows)} clients had examples",
                fix="let more clients with examples take part, or lower aggregation.bad",
            )
        bad, mixed = dropped(self.bad, len(rows)), [row for _, row in rows]
        if self.mixing == "nearest":
            mix_nearest(mixed, bad)
        elif self.mixing == "bucketing":
            mixed = list(bucketing(mixed, BUCKET, key_of(mixed)))
        target[:] = self.center.find(mixed, bad)
        target *= weight

    def _enough(self, after: int) -> int:
        """The first size of a round after `after` from which it has enough, as far as is looked."""
        sizes = range(after + 1, after + 1 + LOOKED_AT)
        last = max((n for n in sizes if self.lacks(n)), default=after)
        return last + 1


@dataclass(frozen=True, slots=True)
class FLTrust(KeepsRows):
    """Updates weighed by their likeness to that of one trusted client (Cao et al., NDSS 2021).

    The paper's server has a small clean root set; here it lies at a client that everybody trusts,
    so that the coordinator needs no data. Bears any share of bad clients as long as that one is
    honest. Time O(n^2 d), memory O(n d).

    | clients with weight                    | result                                    |
    |----------------------------------------|-------------------------------------------|
    | the trusted one alone                  | its delta                                 |
    | the trusted one is not among them      | RoundVoid                                 |
    | the others point the other way         | the trusted one's delta                   |
    | NaN, infinity, beyond the range        | UpdateRejected, the rest as it was        |
    | the same updates in another order      | the same bits                             |

    Attributes:
      trusted: name of the client.
    """

    trusted: str

    def __str__(self) -> str:
        return (
            f"FLTrust counts what points where the update of '{self.trusted}' does; any number may "
            "be bad while that one is honest and its data are like the others'"
        )

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """As for every robust rule.

        Raises:
          PlanError: nobody is trusted.
        """
        if not self.trusted:
            raise PlanError(
                self,
                "has nobody to compare with",
                'set aggregation.trusted = "NAME", a client with clean examples of every kind',
            )
        return KeepsRows.infer(self, spec)

    def fill(self, target: Vector, rows: Sequence[tuple[str, Vector]], weight: float) -> None:
        """Writes the weighted mean, times a weight, into (d,) `target`.

        Raises:
          RoundVoid: the trusted client sent nothing.
        """
        reference = dict(rows).get(self.trusted)
        if reference is None:
            raise RoundVoid(
                f"'{self.trusted}', which this round is compared with, sent no update",
                fix="see why it dropped out; every cohort needs it",
            )
        target[:] = fltrust([row for _, row in rows], reference)
        target *= weight


def _fewest_with_one(bad: float) -> int:
    """The smallest round in which this share is one client."""
    return next(n for n in range(FEWEST, LOOKED_AT) if dropped(bad, n))
