"""What a privacy statement says of an audit: only of this plan, and only if the attack could see.

| result                                   | the statement                                    |
|------------------------------------------|--------------------------------------------------|
| of another plan                          | refuses it                                       |
| counts another epsilon for this plan     | refuses it                                       |
| shows no more than claimed, but is blind | refuses it: it would have passed anything        |
| shows more than claimed                  | says so, first among the hazards, blind or not   |
| made by another version of Hansa         | says so: other code was attacked                 |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hansa.errors import Refused
from hansa.privacy.audit_report import LEAST_POWER, AuditReport

NO_AUDIT = "none yet: no privacy audit of this job is known"

REFUTED = (
    "An audit shows more than is claimed: something does not do what the plan says. Do not rely on "
    "this epsilon."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What an attack on the plan of a statement found.

    Attributes:
      plan_digest: that of the statement.
      attacked: canaries and rounds, in words.
      mechanism: that the attack went through, in its own words.
      unit: what a canary is: client or example.
      canaries: how many there were.
      rounds: that were attacked, of those of the job.
      delta: at which the bounds hold that noise was to keep.
      epsilon_claimed: of the attacked rounds; None where nothing is claimed.
      epsilon_lower_bound: what the attack shows at least.
      epsilon_lower_bound_noise_off: what it shows where the noise is taken away; above 5 if it
        can see.
      epsilon_gaussian: a closer bound by rates, 99.999 % sure, where all noise is Gaussian and
        nobody is sampled; None elsewhere.
      confidence: with which the other bounds hold.
      refuted: whether more is shown than claimed, by this bound or by one that knows the noise to
        be Gaussian.
      seed: of canaries and coins.
      hansa: version whose code was attacked.
      date: when, UTC.
    """

    plan_digest: str
    attacked: str
    mechanism: str
    unit: str
    canaries: int
    rounds: int
    delta: float
    epsilon_claimed: float | None
    epsilon_lower_bound: float
    epsilon_lower_bound_noise_off: float
    epsilon_gaussian: float | None
    confidence: float
    refuted: bool
    seed: int
    hansa: str
    date: str


def audited_of(
    report: AuditReport, plan_digest: str, epsilon: float | None, delta: float | None
) -> Audited:
    """What may be said of an audit beside the epsilon of a plan.

    Args:
      report: the audit's result.
      plan_digest: of the plan that the statement is about.
      epsilon: of that plan; None without a guarantee.
      delta: of that plan; None without a guarantee.

    Raises:
      Refused: the result is of another plan, it counts another epsilon, or the attack could not
        see.
    """
    again = "audit this job: hansa audit privacy JOB --output FILE"
    if report.plan_digest != plan_digest:
        raise Refused(
            f"the audit is of plan {report.plan_digest[:16]} ('{report.job}'), the statement of "
            f"plan {plan_digest[:16]}",
            fix=again,
        )
    claims = _finite(report.epsilon_of_job)
    if not _same(claims, epsilon) or (epsilon is not None and not _same(report.delta, delta)):
        raise Refused(
            f"the audit counts epsilon {_told(claims)} at delta {report.delta:g} for this plan, "
            f"whose unit is one {report.unit}; the statement {_told(epsilon)}",
            fix=again,
        )
    if not report.sees and not report.exceeds:
        raise Refused(
            "the audit could not see: without noise it shows an epsilon of "
            f"{report.epsilon_lower_bound_noise_off:.3g}, and it must show more than "
            f"{LEAST_POWER:g}; such an audit says nothing about a plan",
            fix="audit with more --canaries or --rounds, without --quick",
        )
    return Audited(
        plan_digest=plan_digest,
        attacked=(
            f"{report.canaries_seen:,} canaries, each one {report.unit}, over {report.rounds:,} "
            f"of {report.rounds_of_job:,} rounds"
        ),
        mechanism=report.mechanism,
        unit=report.unit,
        canaries=report.canaries_seen,
        rounds=report.rounds,
        delta=report.delta,
        epsilon_claimed=_finite(report.epsilon_claimed),
        epsilon_lower_bound=report.epsilon_lower_bound,
        epsilon_lower_bound_noise_off=report.epsilon_lower_bound_noise_off,
        epsilon_gaussian=_finite(report.epsilon_gaussian_dp) if report.gaussian else None,
        confidence=report.confidence,
        refuted=report.exceeds,
        seed=report.seed,
        hansa=report.hansa,
        date=report.date,
    )


def audit_words(audited: Audited | None, hansa: str) -> str:
    """One paragraph, as it may be quoted.

    Args:
      audited: what an audit found, if there was one.
      hansa: the version that makes the statement.
    """
    if audited is None:
        return NO_AUDIT
    claimed = audited.epsilon_claimed
    if claimed is None:
        verdict = "nothing is claimed"
    else:
        found = "it does NOT hold" if audited.refuted else "consistent with the plan"
        verdict = f"the plan claims {claimed:.4g} for these rounds; {found}"
    other = (
        ""
        if audited.hansa == hansa
        else f". It attacked the code of Hansa {audited.hansa}, not of this version"
    )
    closer = (
        ""
        if audited.epsilon_gaussian is None
        else f", by the rates of Gaussian noise {audited.epsilon_gaussian:.3g} (99.999% sure)"
    )
    return (
        f"{audited.attacked}: epsilon is at least {audited.epsilon_lower_bound:.3g} at delta "
        f"{audited.delta:g} with {audited.confidence:.0%} confidence{closer}; {verdict}. Without "
        f"the noise the same attack shows {audited.epsilon_lower_bound_noise_off:.3g}. An audit "
        f"can refute a claim, never prove it{other}"
    )


def _finite(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-6)


def _told(figure: float | None) -> str:
    return "none" if figure is None else f"{figure:.6g}"
