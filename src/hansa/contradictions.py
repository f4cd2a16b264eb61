"""Words of a job that are missing, or that other words contradict."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hansa.aggregators.robust.kept import FEWEST
from hansa.arrivals import arrival_errors
from hansa.assembly import (
    BY_COORDINATE,
    by_example,
    clip_of,
    distributed,
    local,
    mask_stage,
    private,
    sampler_of,
    weight_of,
)
from hansa.core.arrival import SQUARE_ROOT
from hansa.core.job import Job
from hansa.core.plan import quorum_of
from hansa.errors import PlanError, Refused
from hansa.figures import round_up
from hansa.work.sgd import LocalSGD


def contradictions(job: Job) -> list[PlanError]:
    """All that is wrong with the words of a job, each by itself a known word."""
    return [
        *_privacy_errors(job),
        *_cohort_errors(job),
        *arrival_errors(job),
        *_words_without_effect(job),
    ]


def _privacy_errors(job: Job) -> Iterable[PlanError]:
    privacy = job.privacy
    if not private(job):
        given = [word for word in _PRIVACY_NUMBERS if getattr(privacy, word)]
        if given:
            yield PlanError(
                "privacy",
                f"{' and '.join(given)} without a mechanism would protect nobody",
                'set privacy.mechanism = "gaussian", or leave the section out',
            )
        return
    if not privacy.clip > 0:
        whose = "example's gradient" if by_example(job) else "client's delta"
        yield PlanError("privacy.clip", "is missing", f"set the norm bound of one {whose}")
    if job.aggregation.clip and not by_example(job):
        yield PlanError(
            "aggregation.clip",
            "is a second norm bound beside privacy.clip",
            "leave aggregation.clip out",
        )
    units = privacy.examples if by_example(job) else job.cohort.population
    if not 0 < privacy.delta < 1 / max(units, 1):
        yield PlanError(
            "privacy.delta",
            f"of {privacy.delta:g} is no promise to one of {units} {privacy.unit}s",
            f"set it to at most {max(units, 2) ** -1.1:.1g}",
        )
    if not (privacy.epsilon or privacy.noise_multiplier):
        yield PlanError(
            "privacy",
            "names neither epsilon nor noise_multiplier",
            "set privacy.epsilon, and the noise is found from it",
        )
    yield from _unit_errors(job)
    yield from _adaptive_errors(job)
    if privacy.mechanism == "correlated" and job.cohort.sampler != "cyclic":
        yield PlanError(
            "cohort.sampler",
            "lets a client come back in the next round, and noise that is taken back in a round "
            "that it sees must be as large as independent noise",
            'set cohort.sampler = "cyclic" with a separation, or privacy.mechanism = "gaussian"',
        )
    if privacy.mechanism != "correlated" and privacy.matrix != "blt":
        yield PlanError(
            "privacy.matrix",
            f'correlates no noise with mechanism = "{privacy.mechanism}"',
            'set privacy.mechanism = "correlated", or leave matrix out',
        )
    if distributed(job):
        yield from _distributed_errors(job)
        return
    if local(job):
        yield from _local_errors(job)
        return
    if by_example(job):
        yield from _example_errors(job)
        return
    if bool(privacy.metrics_clip) != bool(privacy.metrics_noise_multiplier):
        yield PlanError(
            "privacy.metrics_clip",
            "and metrics_noise_multiplier belong together: metrics leave clipped and noised, or "
            "not at all",
            "set both, or neither",
        )


_PRIVACY_NUMBERS = (
    "clip",
    "epsilon",
    "delta",
    "noise_multiplier",
    "metrics_clip",
    "metrics_noise_multiplier",
    "clip_quantile",
    "clip_noise",
    "examples",
)
"""What `[privacy]` says in numbers; 0 stands for not given."""


def _adaptive_errors(job: Job) -> Iterable[PlanError]:
    """Words of an adaptive norm bound that others contradict."""
    privacy = job.privacy
    if not privacy.clip_quantile:
        if privacy.clip_noise:
            yield PlanError(
                "privacy.clip_noise",
                "is noise on a count that nobody takes: the norm bound is fixed",
                "set privacy.clip_quantile = 0.5, or leave clip_noise out",
            )
        return
    if privacy.mechanism != "gaussian":
        yield PlanError(
            "privacy.clip_quantile",
            f'has no private count with mechanism = "{privacy.mechanism}"',
            'set privacy.mechanism = "gaussian", or leave clip_quantile out',
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
    if math.isinf(weight_of(job).bound):
        yield PlanError(
            "aggregation.max_weight",
            "is missing: without it one client can outweigh all noise",
            'set aggregation.weighting = "uniform", or aggregation.max_weight',
        )


def _local_errors(job: Job) -> Iterable[PlanError]:
    """What noise that hides a client by itself cannot be combined with."""
    if job.privacy.metrics_clip or job.privacy.metrics_noise_multiplier:
        yield PlanError(
            "privacy.metrics_clip",
            "has no local noise: metric sums of one client would be drowned by it",
            "leave metrics_clip and metrics_noise_multiplier out",
        )
    if job.aggregation.weighting != "uniform":
        yield PlanError(
            "aggregation.weighting",
            "by examples tells how many a client has, without noise",
            'set aggregation.weighting = "uniform"',
        )
    if job.quantization.rotate:
        yield PlanError(
            "quantization.rotate",
            "spreads deltas, and noise of the client's own has spread them already",
            "leave quantization.rotate out",
        )


def _unit_errors(job: Job) -> Iterable[PlanError]:
    """Which mechanism hides what."""
    privacy = job.privacy
    if (privacy.unit == "example") != by_example(job):
        yield PlanError(
            "privacy.unit",
            f'"{privacy.unit}" is not what mechanism = "{privacy.mechanism}" hides',
            'set unit = "example" with mechanism = "dpsgd", or unit = "client" with another',
        )
    if privacy.examples and not by_example(job):
        yield PlanError(
            "privacy.examples",
            f'means nothing to mechanism = "{privacy.mechanism}"',
            'set privacy.mechanism = "dpsgd", or leave examples out',
        )


def _example_errors(job: Job) -> Iterable[PlanError]:
    """What DP-SGD inside the clients cannot do without, or be combined with."""
    privacy, work = job.privacy, job.algorithm.work
    if privacy.metrics_clip or privacy.metrics_noise_multiplier:
        yield PlanError(
            "privacy.metrics_clip",
            "has no noise of the clients' own: metric sums would tell of single examples",
            "leave metrics_clip and metrics_noise_multiplier out",
        )
    if privacy.examples < 1:
        yield PlanError(
            "privacy.examples",
            "is missing: how often an example is drawn depends on how many there are",
            "set the fewest training examples of a client, whoever it is",
        )
    if not isinstance(work, LocalSGD):
        yield PlanError(
            "algorithm.name",
            f'"{job.algorithm.name}" takes no steps on batches, which is where DP-SGD adds noise',
            'use "fedavg" or another algorithm with batch_size and local_steps',
        )
        return
    if work.batch_size > privacy.examples >= 1:
        yield PlanError(
            "algorithm.batch_size",
            f"of {work.batch_size} is more than the {privacy.examples} examples that a client may "
            "have",
            f"set it to at most {privacy.examples}, or privacy.examples to more",
        )
    if work.local_epochs and not privacy.epsilon:
        yield PlanError(
            "privacy.noise_multiplier",
            "alone promises nothing where clients with more examples take more steps",
            "set privacy.epsilon, so that each client finds its noise, or algorithm.local_steps",
        )


def _colluding_errors(job: Job) -> Iterable[PlanError]:
    """Whoever breaks the masks sees updates with one share of noise: the masks must hold, too."""
    sampler, colluding = sampler_of(job), job.privacy.colluding
    quorum, mask = quorum_of(job, sampler), mask_stage(job)
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


def _cohort_errors(job: Job) -> Iterable[PlanError]:
    """Words that belong to another sampler would be ignored in silence."""
    cohort = job.cohort
    given = {
        "rate": (("poisson", "cyclic"), cohort.rate != 0),
        "cap": (("poisson",), cohort.cap != 0),
        "size": (("fixed",), cohort.size != 0),
        "over_selection": (("fixed",), cohort.over_selection != 1),
        "separation": (("cyclic",), cohort.separation != 0),
        "buffer": (("arrival",), cohort.buffer != 0),
        "concurrency": (("arrival",), cohort.concurrency != 0),
        "staleness_exponent": (("arrival",), cohort.staleness_exponent != SQUARE_ROOT),
        "max_staleness": (("arrival",), cohort.max_staleness != 0),
    }
    for word, (samplers, present) in given.items():
        if present and cohort.sampler not in samplers:
            yield PlanError(
                f"cohort.{word}",
                f'means nothing to sampler = "{cohort.sampler}"',
                f'leave it out, or set cohort.sampler = "{samplers[0]}"',
            )
    if cohort.sampler == "cyclic":
        yield from _turns_errors(job)


def _turns_errors(job: Job) -> Iterable[PlanError]:
    """Groups that take turns: how many, and whether each can make a round."""
    cohort, separation = job.cohort, job.cohort.separation
    if not separation:
        yield PlanError(
            "cohort.separation",
            'is missing: sampler = "cyclic" forms that many groups',
            "set it to the fewest rounds from one turn of a client to its next",
        )
        return
    quorum, fewest = job.rounds.quorum, cohort.population // max(separation, 1)
    if quorum > fewest >= 1:
        yield PlanError(
            "rounds.quorum",
            f"{quorum} updates never arrive from the smallest of {separation} groups, which has "
            f"{fewest} of {cohort.population} clients",
            f"set rounds.quorum to at most {fewest}, or a smaller cohort.separation",
        )


def _words_without_effect(job: Job) -> Iterable[PlanError]:
    """Words that another word must stand beside."""
    ring = job.quantization.step or (private(job) and not by_example(job))
    if job.quantization.rotate and not (clip_of(job) and ring):
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
    yield from _robust_words(job)
    yield from _standing_words(job)
    yield from _fair_words(job)


def _fair_words(job: Job) -> Iterable[PlanError]:
    """What weights by the clients' losses cannot be combined with."""
    words = job.aggregation
    if words.rule == "agnostic":
        yield from _agnostic_words(job)
    if not words.fairness:
        return
    if words.rule != "mean":
        yield PlanError(
            "aggregation.fairness",
            f'changes what a client weighs, and the rule "{words.rule}" takes each client once',
            'set aggregation.rule = "mean", or leave fairness out',
        )
    if private(job):
        yield PlanError(
            "aggregation.fairness",
            "divides by weights that depend on every client's loss, which no noise hides",
            "leave fairness out, or the mechanism of [privacy]",
        )
    if not isinstance(job.algorithm.work, LocalSGD):
        yield PlanError(
            "aggregation.fairness",
            f'estimates the curvature from the step of a client, and "{job.algorithm.name}" takes '
            "none",
            'use "fedavg" or another algorithm with a client_lr, or leave fairness out',
        )


def _agnostic_words(job: Job) -> Iterable[PlanError]:
    """What a rule that is told each client's loss cannot be combined with."""
    if private(job):
        yield PlanError(
            "aggregation.rule",
            "is told each client's loss, which no noise hides",
            'set aggregation.rule = "mean", or leave the mechanism of [privacy] out',
        )
    if job.defend.standing:
        yield PlanError(
            "defend.standing",
            'leaves out who stands out, which is whom the rule "agnostic" follows',
            "leave [defend] out, or use a robust rule",
        )


def _robust_words(job: Job) -> Iterable[PlanError]:
    """Words of a robust rule that another rule does not read."""
    words = job.aggregation
    if job.secure_aggregation.groups and (
        words.rule not in ("mean", *BY_COORDINATE) or words.mixing != "none"
    ):
        yield PlanError(
            "secure_aggregation.groups",
            "a rule over sums of groups looks at each coordinate alone",
            'set aggregation.rule = "median" or "trimmed_mean", and leave aggregation.mixing out',
        )
    if words.mixing != "none" and words.rule in ("mean", "fltrust", "agnostic"):
        yield PlanError(
            "aggregation.mixing",
            f'comes before a rule that leaves updates out, and the rule is "{words.rule}"',
            'leave it out, or set aggregation.rule = "geometric_median"',
        )
    if words.trusted and words.rule != "fltrust" and not job.defend.standing:
        yield PlanError(
            "aggregation.trusted",
            f'nobody is compared with under the rule "{words.rule}" without a standing',
            'leave it out, or set aggregation.rule = "fltrust", or defend.standing = true',
        )
    if words.trusted and job.secure_aggregation.enabled:
        yield PlanError(
            "aggregation.trusted",
            "is compared with single updates, and secure aggregation shows only sums",
            "leave it out, or leave [secure_aggregation] out",
        )


def _standing_words(job: Job) -> Iterable[PlanError]:
    """What clients cannot have a standing with."""
    if not job.defend.standing:
        return
    groups = job.secure_aggregation.groups
    if job.secure_aggregation.enabled and not groups:
        yield PlanError(
            "defend.standing",
            "compares updates of single clients, and secure aggregation shows only their sum",
            f"set secure_aggregation.groups to at least {FEWEST}, so that sums of groups are "
            "compared, or leave [defend] out",
        )
        return
    if groups and groups < FEWEST:
        yield PlanError(
            "defend.standing",
            f"has nothing to tell a bad group by: {groups} groups are too few for scores",
            f"set secure_aggregation.groups to at least {FEWEST}, or leave [defend] out",
        )
        return
    if distributed(job):
        yield PlanError(
            "defend.standing",
            "compares updates or sums of groups, and noise that is enough only in the sum of all "
            "is too little in each of them",
            'leave [defend] out, or let each client hide its own data: privacy.mechanism = "local" '
            'or "dpsgd"',
        )
        return
    if private(job) and not (local(job) or by_example(job)):
        yield PlanError(
            "defend.standing",
            "decides who counts from updates without noise, and the coordinator's noise hides only "
            "what is released: who is quarantined would be released beside it, uncounted",
            'leave [defend] out, or let clients add their own noise: privacy.mechanism = "local" '
            'or "dpsgd"',
        )
        return
    if job.aggregation.rule == "mean":
        yield PlanError(
            "defend.standing",
            "compares the updates of a round, and the mean keeps none: it adds them as they come",
            'set aggregation.rule = "geometric_median" or another robust rule, or leave [defend] '
            "out",
        )
