"""From events to epsilon, by the accountants of dp-accounting.

They count everything but `DiscreteGaussianSum`, for which they have no event: its Renyi divergence
is computed in `hansa.privacy.distributed`, added to theirs order by order, and turned into epsilon
by them.

Our Gaussian events state the noise relative to the sensitivity under the relation in use: to what
one unit can change, which is twice its norm bound where it is replaced. So do theirs for RDP. Their
PLD states it relative to the norm bound, and is told so.

Importing dp-accounting takes a second, so it is imported when something is counted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hansa.core.events import (
    KINDS,
    Event,
    Gaussian,
    PoissonSampled,
    SampledWithoutReplacement,
    TruncatedSubsampledGaussian,
)
from hansa.core.parts import Relation
from hansa.errors import HansaError
from hansa.privacy import distributed
from hansa.privacy.joint import joint

Method: TypeAlias = Literal["rdp", "pld"]

DP_ACCOUNTING: Mapping[str, str] = {
    "NoOp": "NoOpDpEvent",
    "NonPrivate": "NonPrivateDpEvent",
    "Gaussian": "GaussianDpEvent",
    "Laplace": "LaplaceDpEvent",
    "DiscreteLaplace": "DiscreteLaplaceDpEvent",
    "RandomizedResponse": "RandomizedResponseDpEvent",
    "ZCDp": "ZCDpEvent",
    "PoissonSampled": "PoissonSampledDpEvent",
    "SampledWithReplacement": "SampledWithReplacementDpEvent",
    "SampledWithoutReplacement": "SampledWithoutReplacementDpEvent",
    "TruncatedSubsampledGaussian": "TruncatedSubsampledGaussianDpEvent",
    "MixtureOfGaussians": "MixtureOfGaussiansDpEvent",
    "SingleEpochTreeAggregation": "SingleEpochTreeAggregationDpEvent",
    "RepeatAndSelect": "RepeatAndSelectDpEvent",
    "SelfComposed": "SelfComposedDpEvent",
    "Composed": "ComposedDpEvent",
}
"""Our events and theirs: the same names, the same fields, and `DiscreteGaussianSum` left out."""

RELATIONS: Mapping[Relation, str] = {
    Relation.ADD_OR_REMOVE_ONE: "ADD_OR_REMOVE_ONE",
    Relation.REPLACE_ONE: "REPLACE_ONE",
    Relation.ZERO_OUT: "REPLACE_SPECIAL",
}
"""Our relations and theirs."""

FINE = 1e-4
"""Grid of the privacy losses that epsilon is counted on; theirs."""

MOST_POINTS = 500_000
"""Points of that grid up to epsilon; an epsilon above 50 is counted on a coarser one."""

FEW = (1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, 256.0)
"""Renyi orders of an estimate; all orders give bounds."""


@dataclass(frozen=True, slots=True)
class DpAccounting:
    """One of dp-accounting's two accountants.

    | method | bound by                       | knows                                           |
    |--------|--------------------------------|-------------------------------------------------|
    | pld    | privacy loss distributions     | Gaussian, Laplace, Poisson sampling, cut draws, |
    |        |                                | groups of sampled units                         |
    | rdp    | Renyi divergence, looser       | zCDP, trees, sampling without replacement,      |
    |        |                                | sums with discrete Gaussian noise, tuning, ...  |

    Attributes:
      method: which one.
    """

    method: Method

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """Method and version, as claims name it."""
        from importlib.metadata import version

        return f"{self.method.upper()} of dp-accounting {version('dp-accounting')}"

    def unsupported(self, event: Event, relation: Relation) -> str | None:
        """Why it cannot account for the event under the relation; None if it can."""
        unknown = f"{self.name} does not know {event!r} under the relation '{relation.value}'"
        if not distributed.holds_discrete_sum(event):
            return None if _supports(self.method, event, relation) else unknown
        if self.method != "rdp":
            return f"{unknown}: discrete noise is counted by Renyi divergence"
        why = distributed.why_unknown(
            event, relation, lambda e: None if _supports("rdp", e, relation) else f"not {e!r}"
        )
        return None if why is None else f"{unknown}: {why}"

    def epsilon(self, event: Event, delta: float, relation: Relation) -> float:
        """Smallest epsilon it can prove at this delta; inf without a guarantee.

        Raises:
          HansaError: delta is no probability, or the event is not supported.
        """
        self._check(event, delta, relation)
        return _epsilon(self.method, event, delta, relation)

    def estimate(self, event: Event, delta: float, relation: Relation, grid: float) -> float:
        """Epsilon on a coarser grid, or by few Renyi orders: a fast bound, not below `epsilon`.

        A search can start from it; what a plan promises is always `epsilon`.

        Args:
          event: as for `epsilon`.
          delta: as for `epsilon`.
          relation: as for `epsilon`.
          grid: width of a step, for PLD: the wider, the faster, and the looser.

        Raises:
          HansaError: delta is no probability, or the event is not supported.
        """
        self._check(event, delta, relation)
        return _epsilon(self.method, event, delta, relation, grid)

    def _check(self, event: Event, delta: float, relation: Relation) -> None:
        if not 0 < delta < 1:
            raise HansaError(
                f"delta is {delta:g}, which is no probability",
                fix="use a delta above 0 and well below 1 / number of clients",
            )
        reason = self.unsupported(event, relation)
        if reason is not None:
            raise HansaError(reason, fix="use the other accountant, or another sampler")


def epsilon(
    event: Event,
    delta: float,
    accountant: Method = "pld",
    relation: Relation = Relation.ADD_OR_REMOVE_ONE,
) -> float:
    """Epsilon of an event at a delta.

    Args:
      event: what was done to the data.
      delta: probability with which epsilon may not hold.
      accountant: pld, or rdp, which knows more events.
      relation: the two datasets that are compared.

    Raises:
      HansaError: delta is no probability, or the accountant does not support the event.
    """
    return DpAccounting(accountant).epsilon(event, delta, relation)


def renyi(event: Event, order: int, relation: Relation) -> float:
    """Renyi divergence of an event at one order: what budgets across jobs are counted in.

    Divergences of the same order add up, also where each event was chosen after the results of the
    ones before (Feldman and Zrnic, NeurIPS 2021, arXiv 2008.11193); epsilons do not.

    Args:
      event: what was done to the data.
      order: a whole number from 2 to 256.
      relation: the two datasets that are compared.

    Returns:
      An upper bound; inf where the event has none at this order.

    Raises:
      HansaError: there is no such order, or no bound is known for the event.
    """
    if order not in distributed.ORDERS:
        raise HansaError(f"{order!r} is no Renyi order here", fix="use a whole number, 2 to 256")
    reason = DpAccounting("rdp").unsupported(event, relation)
    if reason is not None:
        raise HansaError(reason, fix="use a mechanism and a sampler with a known Renyi divergence")
    return _renyi(event, order, relation)


def best_accountant(event: Event, relation: Relation) -> DpAccounting:
    """PLD where it can account for the event, else RDP.

    Raises:
      HansaError: neither can.
    """
    for accountant in (DpAccounting("pld"), DpAccounting("rdp")):
        if accountant.unsupported(event, relation) is None:
            return accountant
    raise HansaError(
        f"no accountant knows {event!r} under the relation '{relation.value}'",
        fix="use another sampler",
    )


def to_dp_accounting(event: Event, scale: float = 1.0) -> Any:
    """The same event in dp-accounting's words, by the closed table above.

    Gaussians that were released together from one sample are stated as the one Gaussian that they
    are, which is exact, because sampling is known for one Gaussian only.

    Args:
      event: what happened.
      scale: of our noise multipliers, in theirs.
    """
    from dp_accounting import dp_event

    if isinstance(event, (PoissonSampled, SampledWithoutReplacement)):
        event = _sampled_jointly(event)
    if isinstance(event, (Gaussian, TruncatedSubsampledGaussian)):
        event = replace(event, noise_multiplier=scale * event.noise_multiplier)
    theirs = getattr(dp_event, DP_ACCOUNTING[type(event).__name__])
    return theirs(**{f.name: _field(getattr(event, f.name), scale) for f in fields(event)})


def _stated(method: Method, event: Event, relation: Relation) -> Any:
    """The event as one of their accountants understands it."""
    norms = method == "pld" and relation is Relation.REPLACE_ONE
    return to_dp_accounting(event, 2.0 if norms else 1.0)


def _sampled_jointly(
    event: PoissonSampled | SampledWithoutReplacement,
) -> PoissonSampled | SampledWithoutReplacement:
    gaussian = joint(event.event)
    return event if gaussian is None else replace(event, event=gaussian)


def _field(value: Any, scale: float) -> Any:
    if isinstance(value, tuple):
        return [_field(item, scale) for item in value]
    return to_dp_accounting(value, scale) if type(value).__name__ in KINDS else value


def _supports(method: Method, event: Event, relation: Relation) -> bool:
    return bool(_accountant(method, relation).supports(_stated(method, event, relation)))


def _accountant(
    method: Method,
    relation: Relation,
    orders: Sequence[float] | None = None,
    grid: float = FINE,
) -> Any:
    from dp_accounting import NeighboringRelation, pld, rdp

    neighbours = NeighboringRelation[RELATIONS[relation]]
    if method == "pld":
        return pld.PLDAccountant(neighbours, value_discretization_interval=grid)
    return rdp.RdpAccountant(orders, neighboring_relation=neighbours)


@cache
def _epsilon(
    method: Method, event: Event, delta: float, relation: Relation, grid: float = FINE
) -> float:
    """Kept, because a compiler asks for the same number more than once."""
    if distributed.holds_discrete_sum(event):
        found = _epsilon_of_discrete(event, delta, relation)
    else:
        if method == "pld":
            grid = max(grid, _coarsest(event, delta, relation))
        accountant = _accountant(method, relation, FEW if grid > FINE else None, grid)
        accountant.compose(_stated(method, event, relation))
        found = float(accountant.get_epsilon(delta))
    return found if not math.isnan(found) else math.inf


def _coarsest(event: Event, delta: float, relation: Relation) -> float:
    """A grid on which the losses of an event with a huge epsilon still fit into memory.

    What a coarser grid gives is an upper bound all the same, relatively as close as elsewhere.
    """
    if not _supports("rdp", event, relation):
        return 0.0
    rough = _epsilon("rdp", event, delta, relation, 2 * FINE)  # by few orders
    return rough / MOST_POINTS if math.isfinite(rough) else 0.0


def _epsilon_of_discrete(event: Event, delta: float, relation: Relation) -> float:
    from dp_accounting import rdp

    divergences = distributed.curve(event, _theirs(relation))
    return float(rdp.compute_epsilon(distributed.ORDERS, divergences, delta)[0])


@cache
def _renyi(event: Event, order: int, relation: Relation) -> float:
    if distributed.holds_discrete_sum(event):
        curve = distributed.curve(event, _theirs(relation))
        found = float(curve[distributed.ORDERS.index(order)])
    else:
        found = float(_theirs(relation)(event, [order])[0])
    return found if not math.isnan(found) else math.inf


def _theirs(relation: Relation) -> distributed.Theirs:
    """The curves that dp-accounting knows."""

    def curve(part: Event, orders: Sequence[float]) -> NDArray[np.float64]:
        accountant = _accountant("rdp", relation, orders).compose(to_dp_accounting(part))
        return np.asarray(accountant.rdp, np.float64)

    return curve


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a warning of theirs says more than that a Renyi order is left out, which is valid."""
    return "failed to converge" not in str(record.msg)


logging.getLogger("absl").addFilter(_worth_a_line)
