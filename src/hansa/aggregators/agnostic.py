"""The mean for the worst mixture of clients: agnostic federated learning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hansa.aggregators.linear import RANGES, Mean
from hansa.aggregators.robust.kept import KeepsRows, Rows
from hansa.core.parts import Facts, Partial, Update
from hansa.core.spec import Divisor, Domain, Reader, UpdateSpec
from hansa.core.standing import Likeness
from hansa.core.vector import Vector, blocks
from hansa.errors import PlanError

_SUM = Mean(Divisor.REALISED)


@dataclass(frozen=True, slots=True)
class Agnostic(KeepsRows):
    """min over models of the max over mixtures of the clients' losses (Mohri et al., ICML 2019).

    Mixtures give each of n clients at most 1 / (tail * n): the worst one is taken by the clients
    with the largest losses. It is found exactly in each round, where the paper's algorithm steps
    towards it by projected ascent and remembers it; `docs/fairness.md` says what else differs. A
    round needs no memory of the ones before, and the objective is the same. It is also the
    superquantile of Laguel et al. (CISS 2021).

    A client's weight is its loss (`LossWeight`), and rows hold it as their last coordinate.

    | clients with weight                    | result                                    |
    |----------------------------------------|-------------------------------------------|
    | none                                   | zeros                                     |
    | tail = 1                               | the mean, each client once                |
    | tail * n <= 1                          | the delta of the one with the largest loss |
    | equal losses at the edge               | the first by name                         |
    | NaN, infinity, beyond the range        | UpdateRejected, the rest as it was        |
    | the same updates in another order      | the same bits                             |

    Attributes:
      tail: share of the clients that the smallest mixture is of.
    """

    tail: float

    def __str__(self) -> str:
        return (
            f"the mean follows the {self.tail:.0%} of a round's clients that say that their losses "
            "are largest; nothing checks a loss, and no bad client is left out"
        )

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """One client's influence on the worst mixture has no bound in terms of its own norm.

        Raises:
          PlanError: the share is impossible, or losses cannot be told apart.
        """
        if not 0 < self.tail <= 1:
            raise PlanError(
                self,
                f"has no mixture of a share of {self.tail:g} of the clients",
                "set aggregation.tail above 0 and to at most 1, such as 0.5",
            )
        if spec.reader is Reader.SUM:
            raise PlanError(
                self,
                f"needs every client's loss, but {spec.reader.value}",
                "switch secure aggregation off, or use the mean with aggregation.fairness, which "
                "needs sums only",
            )
        if spec.domain is not Domain.REAL:
            raise PlanError(
                self, f"has no losses over {spec.domain.value}", "leave quantization.step out"
            )
        if spec.segment != "delta":
            return _SUM.infer(spec)
        peak = spec.peak if math.isfinite(spec.peak) else RANGES["delta"]
        return replace(spec, l2=math.inf, peak=peak, divisor=Divisor.REALISED)

    def add_discounted(
        self, partial: Partial, client: str, update: Update, facts: Facts, weight: float
    ) -> Partial:
        """Keeps the client's mean delta and its loss; a client without weight has no say.

        The loss is not multiplied: it is of the model that the client began with.

        Raises:
          UpdateRejected: as for every rule that keeps rows.
        """
        before = len(partial.value.deltas)
        partial = KeepsRows.add_discounted(self, partial, client, update, facts, weight)
        rows = partial.value.deltas
        if len(rows) > before:
            rows[-1] = (client, np.append(rows[-1][1], update.segment("weight")[:1]))
        return partial

    def likeness(self, partial: Partial) -> Likeness:
        """Products of all deltas, without the losses."""
        rows: Rows = partial.value
        deltas = [(client, row[:-1]) for client, row in rows.deltas]
        return KeepsRows.likeness(self, Partial(Rows(rows.rest, deltas), partial.members))

    def fill(self, target: Vector, rows: Sequence[tuple[str, Vector]], weight: float) -> None:
        """Writes the worst mixture's mean of the rows, times a weight, into (d,) `target`."""
        mixture = worst_mixture(np.array([row[-1] for _, row in rows], np.float64), self.tail)
        for block in blocks(len(target)):
            total = np.zeros(block.stop - block.start, np.float64)
            for share, (_, row) in zip(mixture.tolist(), rows, strict=True):
                if share:
                    total += share * row[block].astype(np.float64)
            target[block] = total * weight


def worst_mixture(losses: NDArray[np.float64], tail: float) -> NDArray[np.float64]:
    """(n,) shares that add up to 1, none above 1 / (tail n), with the largest mean of (n,) losses.

    The largest losses get all that they may; of equal ones the first. A linear programme over
    such shares has its optimum there.
    """
    most = min(1.0 / (tail * len(losses)), 1.0)
    shares, left = np.zeros(len(losses), np.float64), 1.0
    for place in np.argsort(-losses, kind="stable").tolist():
        shares[place] = min(most, left)
        left = max(left - most, 0.0)
    return shares
