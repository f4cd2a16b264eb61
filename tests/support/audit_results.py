"""Results of audits by hand: what a good attack on a plan would find, or whatever is asked."""

from __future__ import annotations

from typing import Any

import hansa
from hansa.core.plan import Plan
from hansa.privacy.audit_report import AuditReport


def result(plan: Plan, **words: Any) -> AuditReport:
    """The result of an attack on all rounds of a plan that sees, and shows half of the claim."""
    usual: dict[str, Any] = {
        "job": plan.job.name,
        "plan_digest": plan.digest,
        "hansa": hansa.__version__,
        "date": "2026-03-04T05:06:07+00:00",
        "seed": 11,
        "mechanism": str(plan.parts.mechanism),
        "unit": "client",
        "relation": plan.relation.value,
        "sampling": "none",
        "accountant": "PLD",
        "rounds": plan.job.rounds.count,
        "rounds_of_job": plan.job.rounds.count,
        "delta": plan.job.privacy.delta or 1e-5,
        "epsilon_of_job": plan.epsilon,
        "epsilon_claimed": plan.epsilon,
        "epsilon_lower_bound": min(plan.epsilon, 10.0) / 2,
        "epsilon_lower_bound_noise_off": 6.125,
        "epsilon_ceiling": 6.5,
        "canaries": 5000,
        "guesses": 1250,
        "correct": 900,
        "confidence": 0.95,
        "delta_noise_off": 1e-5,
        "canaries_seen": 5000,
        "epsilon_gaussian_dp": 0.0,
        "epsilon_clopper_pearson": 0.0,
        "epsilon_two_gaussians": 0.0,
        "gaussian": False,
        "seconds": 1.0,
    }
    return AuditReport(**{**usual, **words})
