"""One audit of one job: its plan is attacked with noise and without, and held to its claim."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

from hansa.core import events
from hansa.core.claims import sampling_words
from hansa.core.events import Event
from hansa.core.job import Job
from hansa.core.keys import ReplayKey
from hansa.core.parts import Task
from hansa.core.plan import Plan
from hansa.errors import HansaError
from hansa.privacy.accountants import best_accountant
from hansa.privacy.audit_report import AuditReport
from hansa.privacy.audits import opinions
from hansa.privacy.audits.effort import affordable, share_drawn
from hansa.privacy.audits.example_runs import canary_examples
from hansa.privacy.audits.one_run import bound
from hansa.privacy.audits.runs import canary_clients
from hansa.privacy.audits.scores import Scores
from hansa.recipes import compile_plan

DELTA = 1e-5
"""Delta of an audit where the job claims none, and the largest one where noise is off."""

FULL, QUICK = 5000, 1000
"""Canaries of an audit, and of a quick one."""

_SUREST = 0.99999


def audit(
    job: Job,
    *,
    canaries: int = 0,
    rounds: int = 0,
    quick: bool = False,
    seed: int = 0,
    confidence: float = 0.95,
    task: Task | None = None,
    on_part: Callable[[str], None] | None = None,
) -> AuditReport:
    """Attacks a job's own plan and compares what the attack shows with what the plan claims.

    Canaries and coins follow from the seed; noise and cohorts are fresh, as in a federation, so
    that two audits of one job differ a little.

    Args:
      job: what to audit.
      canaries: how many; 0 = 5,000, or 1,000 if quick.
      rounds: how many of the job's rounds; 0 = as many as fit into about a minute, or as it takes
        for most canaries to be drawn. The noise is that of the whole job, the claim that of the
        attacked rounds.
      quick: fewer canaries and rounds: some seconds.
      seed: of canaries and coins.
      confidence: of the bounds.
      task: the job's task, if it is at hand already.
      on_part: told what is done next.

    Raises:
      PlanRefused: the job's parts do not fit.
      HansaError: a number of canaries or rounds, or a confidence, that cannot be.
      RoundVoid: draws below the quorum, again and again.
    """
    from hansa.work.bundle import facts_of, load_task

    started = time.perf_counter()
    _check(canaries, rounds, confidence)
    task = load_task(job) if task is None else task
    whole = compile_plan(job, facts_of(job, task))
    count = canaries or (QUICK if quick else FULL)
    silent = max(count, FULL) if share_drawn(whole) < 1 else count
    plan = shortened(whole, rounds or affordable(whole, count + silent, quick=quick))
    delta = plan.job.privacy.delta if plan.private else DELTA
    counted = min(count, max(int(1 / (20 * delta)), 1))
    key, tell = ReplayKey.of_seed(seed).derive("audit"), on_part or _nothing

    tell(f"{count} canaries over {plan.job.rounds.count} rounds, with the job's noise")
    loud = _scores(plan, task, count, key.derive("noise on"), noise=True)
    tell(f"{silent} canaries over {plan.job.rounds.count} rounds, without noise")
    quiet = _scores(plan, task, silent, key.derive("noise off"), noise=False)

    small, part = min(delta, DELTA), loud.first(counted)
    shown = bound(part.scores, part.coins, delta, confidence)
    power = bound(quiet.scores, quiet.coins, small, confidence)
    return AuditReport(
        job=plan.job.name,
        plan_digest=whole.digest,
        hansa=version("hansa"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        mechanism=str(whole.parts.mechanism),
        unit=plan.job.privacy.unit,
        relation=plan.relation.value,
        sampling=sampling_words(plan.parts, plan.facts),
        accountant=best_accountant(plan.event, plan.relation).name if plan.private else "",
        rounds=plan.job.rounds.count,
        rounds_of_job=whole.job.rounds.count,
        delta=delta,
        epsilon_of_job=whole.epsilon,
        epsilon_claimed=claimed(plan),
        epsilon_lower_bound=shown.epsilon,
        epsilon_lower_bound_noise_off=power.epsilon,
        epsilon_ceiling=shown.ceiling,
        canaries=shown.canaries,
        guesses=shown.guesses,
        correct=shown.correct,
        confidence=confidence,
        delta_noise_off=small,
        canaries_seen=count,
        epsilon_gaussian_dp=opinions.gaussian_dp(loud.scores, loud.coins, delta, _SUREST),
        epsilon_clopper_pearson=opinions.clopper_pearson(
            loud.scores, loud.coins, delta, confidence
        ),
        epsilon_two_gaussians=opinions.two_gaussians(loud.scores, loud.coins, delta),
        gaussian=is_gaussian(plan.event),
        seconds=time.perf_counter() - started,
    )


def shortened(plan: Plan, rounds: int) -> Plan:
    """The plan of the first rounds, with the noise of all of them, and what those rounds claim.

    Raises:
      HansaError: the job declares fewer rounds.
    """
    declared = plan.job.rounds
    if rounds > declared.count:
        raise HansaError(
            f"the job declares {declared.count} rounds, the audit asks for {rounds}",
            fix=f"use --rounds {declared.count} or fewer",
        )
    if rounds == declared.count:
        return plan
    return compile_plan(replace(plan.job, rounds=replace(declared, count=rounds)), plan.task)


def claimed(plan: Plan) -> float:
    """Epsilon of the client that is attacked.

    Where examples are hidden, a plan's epsilon is what every client keeps, however many examples
    it has; that of the client with the fewest, who carries the canaries, is counted here.
    """
    if plan.job.privacy.unit != "example" or not plan.private:
        return plan.epsilon
    accountant = best_accountant(plan.event, plan.relation)
    found = accountant.epsilon(plan.event, plan.job.privacy.delta, plan.relation)
    return min(found, plan.epsilon)


def is_gaussian(event: Event) -> bool:
    """Whether an event is Gaussian noise alone, every unit in every round."""
    match event:
        case events.Gaussian() | events.DiscreteGaussianSum() | events.NoOp():
            return True
        case events.SelfComposed(event=inner):
            return is_gaussian(inner)
        case events.Composed(events=parts):
            return all(is_gaussian(part) for part in parts)
        case _:
            return False


def _scores(plan: Plan, task: Task, count: int, key: ReplayKey, *, noise: bool) -> Scores:
    units: dict[str, Callable[..., Scores]] = {"client": canary_clients, "example": canary_examples}
    return units[plan.job.privacy.unit](plan, task, count, key, noise=noise)


def _check(canaries: int, rounds: int, confidence: float) -> None:
    if canaries < 0 or rounds < 0 or not 0 < confidence < 1:
        raise HansaError(
            f"an audit of {canaries} canaries over {rounds} rounds at confidence {confidence:g} "
            "cannot be",
            fix="use counts of at least 1, and a confidence between 0 and 1",
        )


def _nothing(part: str) -> None:
    """What is done with news if nobody asked for them."""
