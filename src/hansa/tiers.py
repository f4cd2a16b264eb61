"""What a risk tier demands of a job, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hansa.core.job import RiskTier
from hansa.errors import PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Demands on every job of a tier.

    Attributes:
      quorum: fewest updates that may make a round.
      epsilon: largest epsilon of the whole job; inf = no differential privacy is demanded.
    """

    quorum: int = 1
    epsilon: float = math.inf


TIERS: Mapping[RiskTier, Tier] = {
    "low": Tier(),
    "medium": Tier(quorum=2),
    "high": Tier(quorum=3, epsilon=10.0),
}
"""low: public or synthetic data; medium: the default; high: data about people."""


def unmet(tier: RiskTier, quorum: int, epsilon: float) -> tuple[PlanError, ...]:
    """Each demand of the tier that a job does not meet.

    Args:
      tier: the job's risk tier.
      quorum: fewest updates that make a round.
      epsilon: of the whole job; inf without differential privacy.
    """
    demands, errors = TIERS[tier], []
    part = f'risk_tier = "{tier}"'
    if quorum < demands.quorum:
        errors.append(
            PlanError(
                part,
                f"demands at least {demands.quorum} updates in a round, the quorum is {quorum}",
                f"set rounds.quorum to at least {demands.quorum}",
            )
        )
    if math.isinf(epsilon) and math.isfinite(demands.epsilon):
        errors.append(
            PlanError(
                part,
                f"demands differential privacy with epsilon <= {demands.epsilon:g}, the job has "
                "none",
                'set privacy.mechanism = "gaussian" with clip, epsilon and delta',
            )
        )
    elif epsilon > demands.epsilon:
        errors.append(
            PlanError(
                part,
                f"demands epsilon <= {demands.epsilon:g}, the job has {epsilon:.4g} at the delta "
                "and for the unit of its [privacy]",
                f"set privacy.epsilon to at most {demands.epsilon:g}",
            )
        )
    return tuple(errors)
