"""How many rounds an audit attacks: what the time allows, and what it takes to see anything."""

from __future__ import annotations

import math

from hansa.core.plan import Plan
from hansa.privacy.audits.example_runs import at_once
from hansa.work.dpsgd import DpSgd

_WORK = 2e9
"""Coordinates of updates that a whole audit may encode; a quick one a tenth."""

_OVERHEAD = 20_000
"""What one client costs besides its coordinates, in coordinates."""

_LIGHT = 1 / 4
"""A step or a canary's gradient beside an update that goes through all of a round."""

_SEEN = 0.85
"""Share of the canaries that must be drawn: an attack that guesses three of four of those that are
in is then right about all, without noise (`one_run.RULES`)."""


def affordable(plan: Plan, canaries: int, *, quick: bool) -> int:
    """How many rounds an audit of so many canaries attacks, at most those of the job.

    Args:
      plan: the job's.
      canaries: with noise and without, together; where cohorts are drawn it takes more of them
        to see, because not all are drawn.
      quick: spend a tenth of the time.
    """
    declared, needed = plan.job.rounds.count, _until_seen(plan)
    most = int(_WORK * (0.1 if quick else 1.0) / _cost(plan, canaries))
    if needed <= declared:
        most = max(most, needed)
    return max(1, min(most, declared))


def share_drawn(plan: Plan) -> float:
    """Share of the canaries that are drawn at least once in a round, as expected."""
    sampler, work = plan.parts.sampler, plan.parts.algorithm.work
    share = sampler.expected / sampler.population
    if isinstance(work, DpSgd):
        pace = work.pace(plan.job.privacy.examples)
        share *= 1 - (1 - pace.rate) ** pace.steps
    return share


def _until_seen(plan: Plan) -> int:
    """Rounds until enough canaries were drawn."""
    share = share_drawn(plan)
    if share >= 1:
        return 1
    if plan.parts.sampler.participations(2) < 2:  # clients take turns
        return math.ceil(1 / share)
    return math.ceil(math.log(1 - _SEEN) / math.log(1 - share))


def _cost(plan: Plan, canaries: int) -> float:
    """Of one round of all runs, in coordinates."""
    sampler, size, work = plan.parts.sampler, plan.task.schema.size, plan.parts.algorithm.work
    if isinstance(work, DpSgd):
        each = at_once(plan)
        steps = work.pace(plan.job.privacy.examples).steps
        vectors = sampler.expected + (steps + each) * _LIGHT
    else:
        each, vectors = max(min(sampler.population, size, canaries), 1), sampler.expected
    return math.ceil(canaries / each) * vectors * (size + _OVERHEAD)
