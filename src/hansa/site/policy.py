"""A site's veto: every reason why a plan may not run on its data, by its own `site.toml`.

The site judges the plan that it compiled itself, never the coordinator's word about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from hansa.core.plan import Plan
from hansa.errors import PolicyRefused
from hansa.site.config import Policy, opening_hours


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is judged.

    Attributes:
      federation: by whose coordinator the job was offered, as its certificate says.
      plan: the plan that this site compiled.
      signer: Ed25519 key, in hexadecimal, that signed the task's bundle; empty if nobody did.
    """

    federation: str
    plan: Plan
    signer: str


def judge(policy: Policy, candidate: Candidate) -> None:
    """Says yes by returning.

    Raises:
      PolicyRefused: names every reason, each with the setting that decides.
    """
    reasons = reasons_against(policy, candidate)
    if reasons:
        raise PolicyRefused(
            "this site's policy refuses the job: " + "; ".join(reasons),
            fix="change the job, or let the site's owner change [policy] in site.toml",
        )


def reasons_against(policy: Policy, candidate: Candidate) -> tuple[str, ...]:
    """Every reason why not, in a fixed order."""
    plan, privacy = candidate.plan, candidate.plan.job.privacy
    found = []
    if candidate.federation not in policy.federations:
        found.append(f"federation '{candidate.federation}' is not among policy.federations")
    known = plan.task.digest in policy.tasks
    if not known and (not candidate.signer or candidate.signer not in policy.signers):
        found.append(
            f"task {plan.task.digest[:16]} is not among policy.tasks, nor signed by one of "
            "policy.signers"
        )
    if plan.job.risk_tier not in policy.tiers:
        found.append(f"risk tier '{plan.job.risk_tier}' is not among policy.tiers")
    if plan.quorum < policy.min_cohort:
        found.append(
            f"a round of {plan.quorum} updates counts, below policy.min_cohort = "
            f"{policy.min_cohort}"
        )
    if policy.max_epsilon and not plan.epsilon <= policy.max_epsilon:
        epsilon = (
            "no differential privacy" if math.isinf(plan.epsilon) else f"epsilon {plan.epsilon:.4g}"
        )
        found.append(f"{epsilon}, above policy.max_epsilon = {policy.max_epsilon:g}")
    if privacy.epsilon and plan.epsilon > privacy.epsilon * (1 + 1e-6):
        found.append("the job promises a smaller epsilon than this site computes")
    return tuple(found)


def may_work_now(policy: Policy, now: datetime) -> bool:
    """Whether `policy.hours` allow to start work at this local time; spans may cross midnight."""
    start, end = opening_hours(policy.hours)
    moment = now.time()
    if start <= end:
        return start <= moment <= end
    return moment >= start or moment <= end
