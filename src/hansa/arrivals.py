"""What cannot be combined with rounds that are filled as updates arrive, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable

from hansa.assembly import adaptive
from hansa.core.arrival import Buffer
from hansa.core.job import Job
from hansa.errors import PlanError

_NEEDS = {
    "fltrust": "needs the update of the trusted client in each round, and a buffer holds those of "
    "whoever came first; it would also give an old update its full length again",
    "agnostic": "compares losses of one model, and a buffer holds losses of several: those of an "
    "older model are larger",
}
"""Rules that cannot take whoever comes, and why."""


def arrival_errors(job: Job) -> Iterable[PlanError]:
    """Words that are missing beside `sampler = "arrival"`, or that it contradicts.

    Noise that is correlated or distributed names the sampler by itself: the former counts on
    rounds between two turns of a client, the latter on a cohort that is known before.
    """
    buffer = Buffer.of(job)
    if buffer is None:
        return
    for word, value in (("buffer", buffer.size), ("concurrency", buffer.concurrency)):
        if not value:
            yield PlanError(
                f"cohort.{word}",
                'is missing: sampler = "arrival" takes updates as they come',
                "set buffer to the updates that make a round, and concurrency to the clients that "
                "work at one time",
            )
    if job.rounds.quorum not in (0, buffer.size):
        yield PlanError(
            "rounds.quorum",
            f"of {job.rounds.quorum} is another number than the {buffer.size} updates that make a "
            "round",
            "leave it out: a buffer is full, or the round goes on",
        )
    if job.aggregation.rule in _NEEDS:
        yield PlanError(
            "aggregation.rule",
            f'"{job.aggregation.rule}" {_NEEDS[job.aggregation.rule]}',
            'set aggregation.rule = "geometric_median" or another rule, or another cohort.sampler',
        )
    if job.secure_aggregation.enabled:
        yield PlanError(
            "secure_aggregation.enabled",
            "masks cancel in the sum of a cohort that is known before it begins, and nobody knows "
            "who will be quick",
            "leave it out, or set another cohort.sampler",
        )
    if job.quantization.step and buffer.exponent:
        yield PlanError(
            "cohort.staleness_exponent",
            f"of {buffer.exponent:g} would divide integers in a ring, which has no fractions",
            "set it to 0, so that old updates count like fresh ones, or leave quantization.step "
            "out",
        )
    if adaptive(job):
        yield PlanError(
            "privacy.clip_quantile",
            "sets a norm bound round by round, and the updates of a buffer were cut to the bounds "
            "of several rounds",
            "leave it out, so that privacy.clip is the bound of all rounds",
        )
