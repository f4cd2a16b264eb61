"""How many updates end a round: for the network, and for a simulation of its devices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hansa.core.contribute import RoundTask

NOT_NEEDED = "was not needed: enough others were faster"


def goal_of(task: RoundTask, cohort: Sequence[str]) -> int:
    """Updates that are enough: all, or the wanted share of them where more were asked."""
    sampler = task.plan.parts.sampler
    if task.plan.job.cohort.over_selection > 1:
        return min(len(cohort), math.ceil(sampler.expected * len(cohort) / sampler.cap))
    return len(cohort)


def too_late(seconds: float) -> str:
    """Why who was slow does not count."""
    return f"sent no update within {seconds:g} s"
