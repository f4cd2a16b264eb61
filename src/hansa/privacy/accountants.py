"""From events to epsilon, by the accountants of dp-accounting.

They count everything but `DiscreteGaussianSum`, for which they have no event: its Renyi divergence
is computed in `hansa.privacy.distributed`, added to theirs order by order, and turned into epsilon
by them.

Their Gaussian events state the noise relative to the sensitivity under the relation in use, and
so do ours. Importing dp-accounting takes a second, so it is imported when something is counted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hansa.core.events import KINDS, Event, PoissonSampled, SampledWithoutReplacement
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
    "SingleEpochTreeAggregation": "SingleEpochTreeAggregationDpEvent",
    "SelfComposed": "SelfComposedDpEvent",
    "Composed": "ComposedDpEvent",
}
"""Our events and theirs: the same names, the same fields, and `DiscreteGaussianSum` left out."""


@dataclass(frozen=True, slots=True)
class DpAccounting:
    """One of dp-accounting's two accountants.

    | method | bound by                       | knows                                           |
    |--------|--------------------------------|-------------------------------------------------|
    | pld    | privacy loss distributions     | Gaussian, Laplace, Poisson sampling, cut draws  |
    | rdp    | Renyi divergence, looser       | zCDP, trees, sampling without replacement,      |
    |        |                                | sums with discrete Gaussian noise, ...          |

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
        if not 0 < delta < 1:
            raise HansaError(
                f"delta is {delta:g}, which is no probability",
                fix="use a delta above 0 and well below 1 / number of clients",
            )
        reason = self.unsupported(event, relation)
        if reason is not None:
            raise HansaError(reason, fix="use the other accountant, or another sampler")
        return _epsilon(self.method, event, delta, relation)


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


def to_dp_accounting(event: Event) -> Any:
    """The same event in dp-accounting's words, by the closed table above.

    Gaussians that were released together from one sample are stated as the one Gaussian that they
    are, which is exact, because sampling is known for one Gaussian only.
    """
    from dp_accounting import dp_event

    if isinstance(event, (PoissonSampled, SampledWithoutReplacement)):
        event = _sampled_jointly(event)
    theirs = getattr(dp_event, DP_ACCOUNTING[type(event).__name__])
    return theirs(**{f.name: _field(getattr(event, f.name)) for f in fields(event)})


def _sampled_jointly(
    event: PoissonSampled | SampledWithoutReplacement,
) -> PoissonSampled | SampledWithoutReplacement:
    gaussian = joint(event.event)
    return event if gaussian is None else replace(event, event=gaussian)


def _field(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_field(item) for item in value]
    return to_dp_accounting(value) if type(value).__name__ in KINDS else value


def _supports(method: Method, event: Event, relation: Relation) -> bool:
    return bool(_accountant(method, relation).supports(to_dp_accounting(event)))


def _accountant(method: Method, relation: Relation, orders: Sequence[float] | None = None) -> Any:
    from dp_accounting import NeighboringRelation, pld, rdp

    neighbours = NeighboringRelation[relation.name]
    if method == "pld":
        return pld.PLDAccountant(neighboring_relation=neighbours)
    return rdp.RdpAccountant(orders, neighboring_relation=neighbours)


@cache
def _epsilon(method: Method, event: Event, delta: float, relation: Relation) -> float:
    """Kept, because a compiler asks for the same number more than once."""
    with _quiet():
        if distributed.holds_discrete_sum(event):
            found = _epsilon_of_discrete(event, delta, relation)
        else:
            accountant = _accountant(method, relation).compose(to_dp_accounting(event))
            found = float(accountant.get_epsilon(delta))
    return found if not math.isnan(found) else math.inf


def _epsilon_of_discrete(event: Event, delta: float, relation: Relation) -> float:
    from dp_accounting import rdp

    def theirs(part: Event, orders: Sequence[float]) -> NDArray[np.float64]:
        accountant = _accountant("rdp", relation, orders).compose(to_dp_accounting(part))
        return np.asarray(accountant.rdp, np.float64)

    divergences = distributed.curve(event, theirs)
    return float(rdp.compute_epsilon(distributed.ORDERS, divergences, delta)[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings about Renyi orders that do not converge: they are left out, validly."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
