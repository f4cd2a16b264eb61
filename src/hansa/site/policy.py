"""A site's veto: every reason why a plan may not run on its data, by its own `site.toml`.

The site judges the plan that it compiled itself, never the coordinator's word about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from hansa.core.contribute import Purpose
from hansa.core.keys import ReplayKey
from hansa.core.parts import Context, Model
from hansa.core.plan import Plan
from hansa.engines.masking import session_of
from hansa.errors import PolicyRefused
from hansa.secagg.faults import Misuse
from hansa.site.config import Policy, SecureAggregation, opening_hours
from hansa.stages.mask import mask_of


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


def judge(policy: Policy, masking: SecureAggregation, candidate: Candidate) -> None:
    """Says yes by returning.

    Raises:
      PolicyRefused: names every reason, each with the setting that decides.
    """
    reasons = (*reasons_against(policy, candidate), *masking_against(masking, candidate.plan))
    if reasons:
        raise PolicyRefused(
            "this site's policy refuses the job: " + "; ".join(reasons),
            fix="change the job, or let the site's owner change site.toml",
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
        promise = (
            "no differential privacy"
            if math.isinf(plan.epsilon)
            else f"epsilon {plan.epsilon:.4g} at delta {privacy.delta:g} (unit: one "
            f"{privacy.unit}; relation: {plan.relation.value})"
        )
        found.append(f"{promise}, above policy.max_epsilon = {policy.max_epsilon:g}")
    if plan.private and privacy.unit not in policy.units:
        found.append(f"the job hides one {privacy.unit}, which is not among policy.units")
    if privacy.epsilon and plan.epsilon > privacy.epsilon * (1 + 1e-6):
        found.append("the job promises a smaller epsilon than this site computes")
    return tuple(found)


def masking_against(masking: SecureAggregation, plan: Plan) -> tuple[str, ...]:
    """Why not, by `[secure_aggregation]`; the protocol checks the same again in every round."""
    mask = mask_of(plan)
    if mask is None:
        if not masking.required:
            return ()
        return ("the coordinator could read each update, and secure_aggregation.required is true",)
    found = []
    fewest, most = plan.facts["weight"].quorum, plan.facts["weight"].cohort
    if fewest < masking.min_cohort:
        found.append(
            f"the sum of {fewest} updates may be revealed, below "
            f"secure_aggregation.min_cohort = {masking.min_cohort}"
        )
    session = session_of(plan, mask, Purpose.TRAIN, (0, 0), "", federation="", job=plan.job.name)
    try:
        masking.floor.check_session(session)
        masking.floor.check_scheme(mask.scheme(fewest))
        masking.floor.check_scheme(mask.scheme(most))
    except Misuse as error:
        found.append(f"{error.message}, by [secure_aggregation]")
    return tuple(found)


def check_examples(fewest: int, plan: Plan, model: Model, examples: int) -> None:
    """An update without noise of the client's own must be made of several training examples.

    Whoever reads the gradient of one or two can rebuild them (Geiping et al., NeurIPS 2020), and a
    masked sum over two clients hides them little better.

    Args:
      fewest: by `policy.min_examples`.
      plan: of the job.
      model: the mathematics of the task.
      examples: how many this site trains on.

    Raises:
      PolicyRefused: it is made of fewer. How many is not in the message, which others may read.
    """
    delta = plan.facts["delta"]
    if not examples or delta.noise > 0 or delta.reveals is not None:
        return
    key = ReplayKey.of_seed(plan.job.seed)
    seen: set[int] = set()
    for index in plan.parts.algorithm.work.batches(examples, Context("", 0, key, model)):
        seen.update(index.tolist())
        if len(seen) >= fewest:
            return
    raise PolicyRefused(
        "this site's policy refuses the job: an update would be made of fewer training examples "
        f"than policy.min_examples = {fewest}",
        fix="train in larger batches or more steps, or let the clients add noise of their own",
    )


def may_work_now(policy: Policy, now: datetime) -> bool:
    """Whether `policy.hours` allow to start work at this local time; spans may cross midnight."""
    start, end = opening_hours(policy.hours)
    moment = now.time()
    if start <= end:
        return start <= moment <= end
    return moment >= start or moment <= end
