"""From the words of a job to the parts that run: everything that is composed, at one glance.

    [algorithm]     Algorithm: client work, DpSgd around it if examples are hidden; server optimizer
    [cohort]        Everyone | Poisson | FixedSize | Cyclic | Arrival
    [aggregation]   Weight ──► Clip(delta)      a norm bound, if the job has one: fixed or adaptive
    [privacy]                  Clip(metrics)    where the metric sums need a bound
    [privacy]                  LocalNoise       if each client hides its own data
    [quantization]             Quantize         if the job has a step, after Rotate if it says so
    [secure_aggregation]       Mask             if it is enabled
    [aggregation]   Mean | Median | TrimmedMean | Robust | FLTrust | Agnostic | Grouped
    [defend]        Judge            if clients are to have a standing
    [privacy]       NoNoise | CentralGaussian | CentralDiscrete | CorrelatedGaussian
                            | DistributedGaussian | LocalGaussian | ExampleGaussian

Where the clients add the noise, Rotate and DiscreteGaussian stand in place of Quantize; where the
job asks for fairness, FairWeight or LossWeight stands in place of Weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from hansa.aggregators.agnostic import Agnostic
from hansa.aggregators.grouped import Grouped
from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import FLTrust, Median, Robust, TrimmedMean
from hansa.core.arrival import Buffer
from hansa.core.job import Job
from hansa.core.parts import (
    Aggregator,
    Algorithm,
    ClientSampler,
    Mechanism,
    Parts,
    Relation,
    Stage,
)
from hansa.core.plan import quorum_of, releases
from hansa.core.spec import Divisor
from hansa.defend.judge import Judge
from hansa.defend.standings import Standings
from hansa.mechanisms.correlated import CorrelatedGaussian
from hansa.mechanisms.discrete import CentralDiscrete
from hansa.mechanisms.distributed import DistributedGaussian
from hansa.mechanisms.example import ExampleGaussian
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.mechanisms.local import LocalGaussian
from hansa.mechanisms.none import NoNoise
from hansa.samplers import Arrival, Cyclic, Everyone, FixedSize, Known, Poisson
from hansa.shares import Shares
from hansa.stages.adaptive_clip import AdaptiveClip
from hansa.stages.clip import Clip
from hansa.stages.fair_weight import FairWeight
from hansa.stages.local_noise import LocalNoise
from hansa.stages.loss_weight import LossWeight
from hansa.stages.mask import Mask
from hansa.stages.quantize import Quantize, fits, smallest_step
from hansa.stages.rotate import Rotate, reach
from hansa.stages.weight import Weight
from hansa.work.dpsgd import DpSgd, Promise
from hansa.work.sgd import LocalSGD

BY_COORDINATE = ("median", "trimmed_mean")
"""Rules that can stand over the sums of groups, too."""

METRICS_PER_EXAMPLE = 16.0
"""Norm of one example's metric sums that fits under `aggregation.max_weight` without scaling.

An example adds its loss twice and a handful of ones (counts, a hit, a place in a histogram): with
a loss of up to 10 nats its norm is about 14.5. A client with more is scaled down as a whole.
"""


def build(job: Job, size: int = 1) -> Parts:
    """The parts that a job's words stand for, in order, for a model of `size` parameters.

    Nothing is checked here.
    """
    sampler, algorithm = sampler_of(job), _algorithm(job)
    return Parts(
        algorithm=algorithm,
        sampler=sampler,
        stages=tuple(_stages(job, sampler, size)),
        aggregator=_aggregator(job),
        mechanism=_mechanism(job, sampler, algorithm),
        judge=_judge(job, sampler),
    )


def sampler_of(job: Job) -> ClientSampler:
    """Who takes part; whoever adds its own noise counts on no secret about that."""
    drawn = _drawn(job)
    if by_example(job):
        return Known(drawn, Relation.ZERO_OUT)
    return Known(drawn) if local(job) else drawn


def _drawn(job: Job) -> ClientSampler:
    cohort = job.cohort
    buffer = Buffer.of(job)
    if buffer is not None:
        return Arrival(buffer, cohort.population)
    match cohort.sampler:
        case "everyone":
            return Everyone(cohort.population)
        case "poisson":
            return Poisson(cohort.rate, cohort.population, cohort.cap)
        case "fixed":
            return FixedSize(cohort.size, cohort.population, cohort.over_selection)
        case _:
            return Cyclic(cohort.separation or 1, cohort.population, cohort.rate or 1.0, job.seed)


def _stages(job: Job, sampler: ClientSampler, size: int) -> Iterable[Stage]:
    weight = weight_of(job)
    yield weight
    clip, metrics_clip = clip_of(job), _metrics_clip(job)
    if adaptive(job):
        yield AdaptiveClip(clip, job.privacy.clip_quantile, job.privacy.clip_learning_rate)
    elif clip:
        yield Clip(clip)
    if metrics_clip:
        yield Clip(metrics_clip, "metrics")
    if local(job):
        yield local_noise(job)
    if distributed(job):
        shares = Shares(job, sampler, weight, size)
        yield shares.rotation
        yield shares.stage
    elif job.quantization.step:
        if job.quantization.rotate and clip:
            norm = (1.0 if adaptive(job) else clip) * weight.bound
            yield Rotate(job.seed, reach(norm, size, max(sampler.cap, 1)))
        bits, cohort = job.quantization.bits, max(sampler.cap, 1)
        yield Quantize(
            step=job.quantization.step,
            weight_step=_binary_step(
                cohort, weight.bound, bits, at_least=0.0 if job.aggregation.fairness else 1.0
            ),
            metrics_step=_binary_step(cohort, metrics_clip, bits),
            bits=bits,
        )
    mask = mask_stage(job)
    if mask is not None:
        yield mask


def _algorithm(job: Job) -> Algorithm:
    work = job.algorithm.work
    if not by_example(job) or not isinstance(work, LocalSGD):
        return job.algorithm  # other work has no steps to add noise to, which the gate refuses
    return replace(job.algorithm, work=dpsgd(job, work, job.privacy.noise_multiplier))


def _aggregator(job: Job) -> Aggregator:
    if job.aggregation.rule == "mean":
        gated = private(job) and not (local(job) or by_example(job))
        return Mean(Divisor.FIXED if gated else Divisor.REALISED)
    words, groups = job.aggregation, job.secure_aggregation.groups
    if words.rule == "agnostic":
        return Agnostic(words.tail)
    if words.rule == "fltrust":
        return FLTrust(words.trusted)
    if words.rule not in BY_COORDINATE or words.mixing != "none":
        bad = words.trim if words.rule == "trimmed_mean" else words.bad
        return Robust(words.rule, bad, words.mixing)
    rule = Median() if words.rule == "median" else TrimmedMean(words.trim)
    return Grouped(rule, groups) if groups else rule


def _judge(job: Job, sampler: ClientSampler) -> Judge | None:
    if not job.defend.standing:
        return None
    most = Standings.of(job.cohort.population, quorum_of(job, sampler)).most
    return Judge(most, job.aggregation.trusted, grouped=job.secure_aggregation.groups > 0)


def _mechanism(job: Job, sampler: ClientSampler, algorithm: Algorithm) -> Mechanism:
    if not private(job):
        return NoNoise()
    privacy = job.privacy
    if distributed(job):
        return DistributedGaussian(privacy.colluding, sampler.relation)
    if local(job):
        return LocalGaussian(local_noise(job))
    if isinstance(algorithm.work, DpSgd):
        return ExampleGaussian(algorithm.work)
    if privacy.mechanism == "correlated":
        rounds = job.rounds.count
        return CorrelatedGaussian(
            strategy=privacy.matrix,
            rounds=rounds,
            separation=max(job.cohort.separation, 1),
            participations=sampler.participations(rounds),
            noise_multiplier=privacy.noise_multiplier,
            metrics_noise_multiplier=privacy.metrics_noise_multiplier,
            relation=sampler.relation,
        )
    if privacy.mechanism == "discrete":
        return CentralDiscrete(
            privacy.noise_multiplier,
            privacy.metrics_noise_multiplier,
            sampler.relation,
            aligned=job.quantization.step > 0 and not job.quantization.rotate,
        )
    return CentralGaussian(
        privacy.noise_multiplier,
        privacy.metrics_noise_multiplier,
        sampler.relation,
        privacy.clip_noise if adaptive(job) else 0.0,
    )


def private(job: Job) -> bool:
    """Whether the job asks for differential privacy."""
    return job.privacy.mechanism != "none"


def adaptive(job: Job) -> bool:
    """Whether the norm bound follows the updates; numbers are then in units of the bound."""
    return private(job) and job.privacy.clip_quantile > 0 and not by_example(job)


def distributed(job: Job) -> bool:
    """Whether the clients add the noise, and only its sum counts."""
    return job.privacy.mechanism == "distributed"


def local(job: Job) -> bool:
    """Whether each client's noise is enough for its own update."""
    return job.privacy.mechanism == "local"


def by_example(job: Job) -> bool:
    """Whether clients hide their single examples while they train."""
    return job.privacy.mechanism == "dpsgd"


def dpsgd(job: Job, sgd: LocalSGD, noise_multiplier: float) -> DpSgd:
    """What clients do who hide their single examples."""
    privacy = job.privacy
    promise = Promise(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        updates=_drawn(job).participations(releases(job)),
    )
    return DpSgd(
        sgd=sgd,
        clip=privacy.clip,
        noise_multiplier=noise_multiplier,
        examples=privacy.examples,
        delta=privacy.delta,
        promise=promise if privacy.epsilon else None,
    )


def local_noise(job: Job) -> LocalNoise:
    """The noise of a client that counts on nobody else's."""
    return LocalNoise(job.privacy.clip, job.privacy.noise_multiplier)


def weight_of(job: Job) -> Weight | FairWeight | LossWeight:
    """How much a client counts."""
    words = job.aggregation
    most = words.max_weight or math.inf
    weight = Weight(words.weighting, most)
    if words.rule == "agnostic":
        return LossWeight(weight, most)
    if not words.fairness:
        return weight
    rate = getattr(job.algorithm.work, "client_lr", 0.0)
    return FairWeight(weight, words.fairness, 1 / rate if rate else 0.0, most)


def mask_stage(job: Job) -> Mask | None:
    """What hides single updates, if the job wants it."""
    masks = job.secure_aggregation
    if not masks.enabled:
        return None
    return Mask(
        masks.corrupt, masks.dropouts, active=masks.adversary == "active", groups=masks.groups or 1
    )


def clip_of(job: Job) -> float:
    """Norm bound of one client's delta; 0 = none."""
    hidden = private(job) and not by_example(job)  # whose norm bound is that of one gradient
    return job.privacy.clip if hidden else job.aggregation.clip


def _metrics_clip(job: Job) -> float:
    """Norm bound of one client's metric sums; 0 = none.

    Noise needs a bound, and so does a ring. Without privacy a generous one is derived from the
    most examples that a client counts for.
    """
    if private(job):
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
