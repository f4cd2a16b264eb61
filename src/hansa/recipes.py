"""From the words of a job to the parts that run: everything that is composed, at one glance.

    [algorithm]     Algorithm: client work, server optimizer
    [cohort]        Everyone | Poisson | FixedSize
    [aggregation]   Weight ──► Clip(delta)      a norm bound, if the job has one
    [privacy]                  Clip(metrics)    where the metric sums need a bound
    [quantization]             Quantize         if the job has a step, after Rotate if it says so
    [secure_aggregation]       Mask             if it is enabled
    [aggregation]   Mean | Median | TrimmedMean | Grouped
    [privacy]       NoNoise | CentralGaussian | DistributedGaussian

    Where the clients add the noise, Rotate and DiscreteGaussian stand in place of Quantize.

`compile_plan` is what everybody calls: the scientist, the coordinator and each site, who compare
digests afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from hansa import tiers
from hansa.aggregators.grouped import Grouped
from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import Median, TrimmedMean
from hansa.core import events
from hansa.core.events import Event, Gaussian
from hansa.core.job import Job, TaskFacts
from hansa.core.parts import (
    Accountant,
    Aggregator,
    ClientSampler,
    Mechanism,
    Parts,
    Stage,
)
from hansa.core.plan import Plan, check, quorum_of, whole_job
from hansa.core.spec import Divisor
from hansa.errors import HansaError, PlanError, PlanRefused, Refused
from hansa.figures import round_up
from hansa.mechanisms.distributed import DistributedGaussian
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.mechanisms.none import NoNoise
from hansa.normal import normal, unknown_words
from hansa.privacy.accountants import DpAccounting, best_accountant
from hansa.privacy.calibrate import calibrate
from hansa.samplers import Everyone, FixedSize, Poisson
from hansa.shares import ACCOUNTANT, Shares
from hansa.stages.clip import Clip
from hansa.stages.mask import Mask
from hansa.stages.quantize import Quantize, fits, smallest_step
from hansa.stages.rotate import Rotate, reach
from hansa.stages.weight import Weight

METRICS_PER_EXAMPLE = 16.0
"""Norm of one example's metric sums that fits under `aggregation.max_weight` without scaling.

An example adds its loss twice and a handful of ones (counts, a hit, a place in a histogram): with
a loss of up to 10 nats its norm is about 14.5. A client with more is scaled down as a whole.
"""


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


def build(job: Job, size: int = 1) -> Parts:
    """The parts that a job's words stand for, in order, for a model of `size` parameters.

    Nothing is checked here.
    """
    sampler = _sampler(job)
    return Parts(
        algorithm=job.algorithm,
        sampler=sampler,
        stages=tuple(_stages(job, sampler, size)),
        aggregator=_aggregator(job),
        mechanism=_mechanism(job, sampler),
    )


def _sampler(job: Job) -> ClientSampler:
    cohort = job.cohort
    match cohort.sampler:
        case "everyone":
            return Everyone(cohort.population)
        case "poisson":
            return Poisson(cohort.rate, cohort.population, cohort.cap)
        case "fixed":
            return FixedSize(cohort.size, cohort.population, cohort.over_selection)


def _stages(job: Job, sampler: ClientSampler, size: int) -> Iterable[Stage]:
    weight = _weight(job)
    yield weight
    clip, metrics_clip = _clip(job), _metrics_clip(job)
    if clip:
        yield Clip(clip)
    if metrics_clip:
        yield Clip(metrics_clip, "metrics")
    if _distributed(job):
        shares = Shares(job, sampler, weight, size)
        yield shares.rotation
        yield shares.stage
    elif job.quantization.step:
        if job.quantization.rotate and clip:
            norm = clip * weight.bound
            yield Rotate(job.seed, reach(norm, size, max(sampler.cap, 1)))
        bits, cohort = job.quantization.bits, max(sampler.cap, 1)
        yield Quantize(
            step=job.quantization.step,
            weight_step=_binary_step(cohort, weight.bound, bits, at_least=1.0),
            metrics_step=_binary_step(cohort, metrics_clip, bits),
            bits=bits,
        )
    mask = _mask(job)
    if mask is not None:
        yield mask


def _aggregator(job: Job) -> Aggregator:
    if job.aggregation.rule == "mean":
        return Mean(Divisor.FIXED if _private(job) else Divisor.REALISED)
    rule = Median() if job.aggregation.rule == "median" else TrimmedMean(job.aggregation.trim)
    groups = job.secure_aggregation.groups
    return Grouped(rule, groups) if groups else rule


def _mechanism(job: Job, sampler: ClientSampler) -> Mechanism:
    if not _private(job):
        return NoNoise()
    privacy = job.privacy
    if _distributed(job):
        return DistributedGaussian(privacy.colluding, sampler.relation)
    return CentralGaussian(
        privacy.noise_multiplier, privacy.metrics_noise_multiplier, sampler.relation
    )


def _private(job: Job) -> bool:
    return job.privacy.mechanism != "none"


def _distributed(job: Job) -> bool:
    return job.privacy.mechanism == "distributed"


def _weight(job: Job) -> Weight:
    return Weight(job.aggregation.weighting, job.aggregation.max_weight or math.inf)


def _mask(job: Job) -> Mask | None:
    masks = job.secure_aggregation
    if not masks.enabled:
        return None
    return Mask(
        masks.corrupt, masks.dropouts, active=masks.adversary == "active", groups=masks.groups or 1
    )


def _clip(job: Job) -> float:
    return job.privacy.clip if _private(job) else job.aggregation.clip


def _metrics_clip(job: Job) -> float:
    """Norm bound of one client's metric sums; 0 = none.

    Noise needs a bound, and so does a ring. Without privacy a generous one is derived from the
    most examples that a client counts for.
    """
    if _private(job):
        return job.privacy.metrics_clip
    return METRICS_PER_EXAMPLE * job.aggregation.max_weight if job.quantization.step else 0.0


def _binary_step(cohort: int, peak: float, bits: int, at_least: float = 0.0) -> float:
    """The smallest power of two that is a legal step; where none is, the plan says why."""
    smallest = smallest_step(cohort, peak, bits) if 0 < peak < math.inf else math.inf
    if math.isinf(smallest):
        return 1.0
    step = max(at_least, 2.0 ** math.floor(math.log2(smallest)))
    while not fits(cohort, peak, step, bits):
        step *= 2
    return step


# ------------------------------------------------------------------ words that others follow from


def _resolved(job: Job, size: int) -> tuple[Job, list[PlanError]]:
    """The job in its one form, with its noise, and all that is missing or contradictory.

    Raises:
      PlanRefused: a word is unknown, so that nothing more can be said.
    """
    unknown = list(unknown_words(job))
    if unknown:
        raise PlanRefused(unknown)
    job = normal(job)
    errors = [*_privacy_errors(job), *_cohort_errors(job), *_words_without_effect(job)]
    if errors or not _private(job):
        return job, errors
    if _distributed(job):
        return _shared(job, size)
    if job.privacy.noise_multiplier:
        return job, errors
    try:
        noise = _noise(job)
    except PlanError as error:
        return job, [error]
    return replace(job, privacy=replace(job.privacy, noise_multiplier=noise)), []


def _shared(job: Job, size: int) -> tuple[Job, list[PlanError]]:
    """The job with the noise of one client, and the grid that it is on."""
    sampler = _sampler(job)
    try:
        sampler.check()
        return Shares(job, sampler, _weight(job), size).resolved(), []
    except PlanError as error:
        return job, [error]
    except HansaError as error:
        return job, [PlanError("privacy.epsilon", error.message, error.fix)]


def _placeholder(job: Job) -> Job:
    """A refused job with some noise, so that the other parts can be checked all the same."""
    if not _private(job) or job.privacy.noise_multiplier:
        return job
    return replace(job, privacy=replace(job.privacy, noise_multiplier=1.0, epsilon=0.0))


def _privacy_errors(job: Job) -> Iterable[PlanError]:
    privacy = job.privacy
    if not _private(job):
        given = [word for word in _PRIVACY_NUMBERS if getattr(privacy, word)]
        if given:
            yield PlanError(
                "privacy",
                f"{' and '.join(given)} without a mechanism would protect nobody",
                'set privacy.mechanism = "gaussian", or leave the section out',
            )
        return
    if not privacy.clip > 0:
        yield PlanError("privacy.clip", "is missing", "set the norm bound of one client's delta")
    if job.aggregation.clip:
        yield PlanError(
            "aggregation.clip",
            "is a second norm bound beside privacy.clip",
            "leave aggregation.clip out",
        )
    if not 0 < privacy.delta < 1 / max(job.cohort.population, 1):
        yield PlanError(
            "privacy.delta",
            f"of {privacy.delta:g} is no promise to one of {job.cohort.population} clients",
            f"set it to at most {max(job.cohort.population, 2) ** -1.1:.1g}",
        )
    if not (privacy.epsilon or privacy.noise_multiplier):
        yield PlanError(
            "privacy",
            "names neither epsilon nor noise_multiplier",
            "set privacy.epsilon, and the noise is found from it",
        )
    if _distributed(job):
        yield from _distributed_errors(job)
        return
    if bool(privacy.metrics_clip) != bool(privacy.metrics_noise_multiplier):
        yield PlanError(
            "privacy.metrics_clip",
            "and metrics_noise_multiplier belong together: metrics leave clipped and noised, or "
            "not at all",
            "set both, or neither",
        )


def _distributed_errors(job: Job) -> Iterable[PlanError]:
    """What noise of the clients' own cannot be combined with."""
    if job.privacy.metrics_clip or job.privacy.metrics_noise_multiplier:
        yield PlanError(
            "privacy.metrics_clip",
            "has no distributed noise yet, and the coordinator would read the sum without any",
            "leave metrics_clip and metrics_noise_multiplier out",
        )
    if job.cohort.sampler != "everyone":
        yield PlanError(
            "cohort.sampler",
            f'"{job.cohort.sampler}" amplifies nothing against a coordinator that knows the '
            "cohort, and it is the coordinator that distributed noise is for",
            'set cohort.sampler = "everyone", or privacy.mechanism = "gaussian"',
        )
    yield from _colluding_errors(job)
    if math.isinf(_weight(job).bound):
        yield PlanError(
            "aggregation.max_weight",
            "is missing: without it one client can outweigh all noise",
            'set aggregation.weighting = "uniform", or aggregation.max_weight',
        )


def _colluding_errors(job: Job) -> Iterable[PlanError]:
    """Whoever breaks the masks sees updates with one share of noise: the masks must hold, too."""
    sampler, colluding = _sampler(job), job.privacy.colluding
    quorum, mask = quorum_of(job, sampler), _mask(job)
    if mask is None:
        return  # the mechanism says that updates can be read
    try:
        held = mask.tolerated(max(sampler.cap, 1), quorum)
    except Refused:
        return  # the mask says so itself
    if held < colluding:
        yield PlanError(
            "privacy.colluding",
            f"counts with {colluding} clients that collude, the masks hold against {held}",
            f"set secure_aggregation.corrupt to at least {round_up(colluding / quorum)!r}, or "
            "a larger rounds.quorum",
        )


_PRIVACY_NUMBERS = (
    "clip",
    "epsilon",
    "delta",
    "noise_multiplier",
    "metrics_clip",
    "metrics_noise_multiplier",
)
"""What `[privacy]` says in numbers; 0 stands for not given."""


def _cohort_errors(job: Job) -> Iterable[PlanError]:
    """Words that belong to another sampler would be ignored in silence."""
    cohort = job.cohort
    given = {
        "rate": ("poisson", cohort.rate != 0),
        "cap": ("poisson", cohort.cap != 0),
        "size": ("fixed", cohort.size != 0),
        "over_selection": ("fixed", cohort.over_selection != 1),
    }
    for word, (sampler, present) in given.items():
        if present and cohort.sampler != sampler:
            yield PlanError(
                f"cohort.{word}",
                f'means nothing to sampler = "{cohort.sampler}"',
                f'leave it out, or set cohort.sampler = "{sampler}"',
            )


def _words_without_effect(job: Job) -> Iterable[PlanError]:
    """Words that another word must stand beside."""
    if job.quantization.rotate and not (_clip(job) and (job.quantization.step or _private(job))):
        yield PlanError(
            "quantization.rotate",
            "spreads deltas for a ring that holds them, and there is no ring or no norm bound",
            "set quantization.step and aggregation.clip, or leave it out",
        )
    if job.secure_aggregation.groups and job.aggregation.rule == "mean":
        yield PlanError(  # sums of groups tell more than one sum
            "secure_aggregation.groups",
            "shows the sums of groups, and a mean needs only the sum of all",
            'leave it out, or set aggregation.rule = "median"',
        )


def _noise(job: Job) -> float:
    """The noise multiplier that meets the job's epsilon.

    Raises:
      PlanError: none does, or the sampler's event cannot be counted.
    """
    privacy, sampler = job.privacy, _sampler(job)
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
    released: list[Event] = [Gaussian(noise)]
    if job.privacy.metrics_clip:
        released.append(Gaussian(job.privacy.metrics_noise_multiplier))
    return whole_job(job, sampler.amplify(events.compose(*released)))


def _counted(job: Job, parts: Parts, size: int) -> tuple[Accountant, float]:
    """The accountant for the job's event, and the job's epsilon: inf if it has none.

    Where the event cannot be counted, the check meets the same error and names it; the epsilon is
    then what the job promises.
    """
    if not _private(job):
        return DpAccounting("rdp"), math.inf
    if not 0 < job.privacy.noise_multiplier < math.inf:
        return DpAccounting("rdp"), job.privacy.epsilon
    relation = parts.sampler.relation
    try:
        parts.sampler.check()
        if _distributed(job):
            event = Shares(job, parts.sampler, _weight(job), size).event
            return ACCOUNTANT, ACCOUNTANT.epsilon(event, job.privacy.delta, relation)
        event = _event(job, parts.sampler, job.privacy.noise_multiplier)
        accountant = best_accountant(event, relation)
        return accountant, accountant.epsilon(event, job.privacy.delta, relation)
    except HansaError:
        return DpAccounting("rdp"), job.privacy.epsilon
