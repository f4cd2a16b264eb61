"""From a job to its plan: numbers that follow from others are filled in, then all is checked.

`compile_plan` is what everybody calls: the scientist, the coordinator and each site, who compare
digests afterwards. Which parts a job's words stand for is in `hansa.assembly`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hansa import tiers
from hansa.assembly import (
    adaptive,
    build,
    by_example,
    distributed,
    dpsgd,
    private,
    sampler_of,
    weight_of,
)
from hansa.contradictions import contradictions
from hansa.core import events
from hansa.core.events import Event, Gaussian
from hansa.core.job import Job, TaskFacts
from hansa.core.parts import Accountant, ClientSampler, Parts
from hansa.core.plan import Plan, check, quorum_of, whole_job
from hansa.errors import HansaError, PlanError, PlanRefused
from hansa.mechanisms.discrete import one_release
from hansa.normal import normal, unknown_words
from hansa.privacy.accountants import DpAccounting, best_accountant
from hansa.privacy.adaptive import default_count_noise
from hansa.privacy.calibrate import calibrate
from hansa.shares import ACCOUNTANT, Shares
from hansa.work.sgd import LocalSGD


def compile_plan(job: Job, facts: TaskFacts | None = None) -> Plan:
    """Proves that a job's parts fit, with every number filled in.

    Args:
      job: the job as written, or as another party resolved it; both give the same plan.
      facts: what is known of the task; the task itself is loaded if they are left out.

    Raises:
      PlanRefused: holds every reason why not.
    """
    if facts is None:
        from hansa.work.bundle import facts_of, load_task

        facts = facts_of(job, load_task(job))
    size = facts.schema.size
    job, errors = _resolved(job, size)
    if errors:
        job = _placeholder(job)
    parts = build(job, size)
    accountant, epsilon = _counted(job, parts, size)
    errors += tiers.unmet(job.risk_tier, quorum_of(job, parts.sampler), epsilon)
    return check(job, parts, facts, accountant, errors)


def resolve(job: Job, size: int = 1) -> Job:
    """The job with the numbers that follow from others: the noise that meets its epsilon.

    Noise that is distributed depends on the `size` of the model, too. A noise multiplier that the
    job gives is kept; whether it keeps the job's promise is checked with the plan.

    Raises:
      PlanRefused: words are missing or contradict each other.
    """
    job, errors = _resolved(job, size)
    if errors:
        raise PlanRefused(errors)
    return job


def _resolved(job: Job, size: int) -> tuple[Job, list[PlanError]]:
    """The job in its one form, with its noise, and all that is missing or contradictory.

    Raises:
      PlanRefused: a word is unknown, so that nothing more can be said.
    """
    unknown = list(unknown_words(job))
    if unknown:
        raise PlanRefused(unknown)
    job = _counting(normal(job))
    errors = contradictions(job)
    if errors or not private(job):
        return job, errors
    if distributed(job):
        return _shared(job, size)
    if job.privacy.noise_multiplier:
        return job, errors
    try:
        noise = _noise(job)
    except PlanError as error:
        return job, [error]
    return replace(job, privacy=replace(job.privacy, noise_multiplier=noise)), []


def _counting(job: Job) -> Job:
    """The job with the noise on the count of clients within an adaptive norm bound."""
    privacy = job.privacy
    if not adaptive(job) or privacy.clip_noise:
        return job
    noise = default_count_noise(sampler_of(job).expected)
    return replace(job, privacy=replace(privacy, clip_noise=noise))


def _shared(job: Job, size: int) -> tuple[Job, list[PlanError]]:
    """The job with the noise of one client, and the grid that it is on."""
    sampler = sampler_of(job)
    try:
        sampler.check()
        return Shares(job, sampler, weight_of(job), size).resolved(), []
    except PlanError as error:
        return job, [error]
    except HansaError as error:
        return job, [PlanError("privacy.epsilon", error.message, error.fix)]


def _placeholder(job: Job) -> Job:
    """A refused job with some noise, so that the other parts can be checked all the same."""
    if not private(job) or job.privacy.noise_multiplier:
        return job
    return replace(job, privacy=replace(job.privacy, noise_multiplier=1.0, epsilon=0.0))


def _noise(job: Job) -> float:
    """The noise multiplier that meets the job's epsilon.

    Raises:
      PlanError: none does, or the sampler's event cannot be counted.
    """
    privacy, sampler = job.privacy, sampler_of(job)
    sampler.check()
    try:
        method = best_accountant(_event(job, sampler, 1.0), sampler.relation).method
        return calibrate(
            lambda noise: _event(job, sampler, noise),
            privacy.epsilon,
            privacy.delta,
            method,
            sampler.relation,
        )
    except PlanError:
        raise
    except HansaError as error:
        raise PlanError("privacy.epsilon", error.message, error.fix) from error


def _event(job: Job, sampler: ClientSampler, noise: float) -> Event:
    """What the whole job reveals at a noise multiplier; the plan proves that it does."""
    work = job.algorithm.work
    if by_example(job) and isinstance(work, LocalSGD):
        return whole_job(job, sampler, dpsgd(job, work, noise).reveals)
    one = one_release if job.privacy.mechanism == "discrete" else Gaussian
    released = [one(noise)]
    if job.privacy.metrics_clip:
        released.append(one(job.privacy.metrics_noise_multiplier))
    return whole_job(job, sampler, sampler.amplify(events.compose(*released)))


def _counted(job: Job, parts: Parts, size: int) -> tuple[Accountant, float]:
    """The accountant for the job's event, and the job's epsilon: inf if it has none.

    Where the event cannot be counted, the check meets the same error and names it; the epsilon is
    then what the job promises.
    """
    if not private(job):
        return DpAccounting("rdp"), math.inf
    if not 0 < job.privacy.noise_multiplier < math.inf:
        return DpAccounting("rdp"), job.privacy.epsilon
    relation = parts.sampler.relation
    try:
        parts.sampler.check()
        if distributed(job):
            event = Shares(job, parts.sampler, weight_of(job), size).event
            return ACCOUNTANT, ACCOUNTANT.epsilon(event, job.privacy.delta, relation)
        event = _event(job, parts.sampler, job.privacy.noise_multiplier)
        accountant = best_accountant(event, relation)
        return accountant, accountant.epsilon(event, job.privacy.delta, relation)
    except HansaError:
        return DpAccounting("rdp"), job.privacy.epsilon
