"""Checks of a job's words that need no facts about updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from hansa.core.arrival import Buffer
from hansa.core.job import Job, TaskFacts
from hansa.core.parts import Stage
from hansa.errors import PlanError


def order(stages: Sequence[Stage]) -> list[PlanError]:
    """Stages that stand behind one whose role comes later."""
    return [
        PlanError(
            after,
            f"stands after {before!r}, but {after.role.name} comes before {before.role.name}",
            "order stages by role: weight, shape, bound, noise, encode, hide",
        )
        for before, after in pairwise(stages)
        if after.role < before.role
    ]


def numbers(job: Job, cap: int, quorum: int) -> list[PlanError]:
    """Rounds that cannot be, and what this version cannot do."""
    errors = []
    if job.rounds.count < 1:
        errors.append(
            PlanError(
                "rounds.count",
                f"{job.rounds.count} rounds train nothing",
                "set rounds.count to at least 1",
            )
        )
    if quorum < 1:
        errors.append(
            PlanError(
                "rounds.quorum",
                f"{quorum} updates are no round",
                "set rounds.quorum to at least 1, or to 0 for more than half of the cohort",
            )
        )
    if quorum > cap:
        errors.append(
            PlanError(
                "rounds.quorum",
                f"{quorum} updates can never arrive from at most {cap} clients",
                f"set rounds.quorum to at most {cap}",
            )
        )
    return errors


def metrics(job: Job, task: TaskFacts, *, with_metrics: bool) -> list[PlanError]:
    """Metrics that cannot be told apart, and a watched one that nobody reports."""
    names = ["train_loss", *(metric.name for metric in task.metrics)]
    errors = [
        PlanError(
            "metrics",
            f"two metrics are called '{name}'",
            "give each metric of the task its own name",
        )
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    watch = job.rounds.watch
    if job.rounds.patience > 0 and (watch not in names or not with_metrics):
        why = f"it is none of {', '.join(names)}" if with_metrics else "no metrics leave the sites"
        errors.append(
            PlanError(
                "rounds.watch",
                f"'{watch}' is watched to stop early, but {why}",
                "watch a metric of the task that is released, or set rounds.patience = 0",
            )
        )
    return errors


def rollback(job: Job, task: TaskFacts, *, with_metrics: bool) -> list[PlanError]:
    """What keeps a job from judging its models on held-out examples, and going back."""
    tolerance = job.defend.rollback
    if tolerance == 0:
        return []
    errors = [*_unwatched(job, task, with_metrics=with_metrics), *_irreversible(job)]
    if not 0 < tolerance < math.inf:
        errors.append(
            PlanError(
                "defend.rollback",
                f"of {tolerance:g} is no tolerance",
                "set it to how much worse rounds.watch may get, above 0, or leave it out",
            )
        )
    return errors


def _unwatched(job: Job, task: TaskFacts, *, with_metrics: bool) -> Iterable[PlanError]:
    """Why no model has a value that it could be judged by."""
    names, watch = [metric.name for metric in task.metrics], job.rounds.watch
    if not with_metrics or not names:
        yield PlanError(
            "defend.rollback",
            "judges models by held-out examples, and "
            + ("no metrics leave the sites" if names else "the task has no metrics"),
            'leave it out, or let metrics leave with noise: privacy.mechanism = "gaussian" with '
            "metrics_clip and metrics_noise_multiplier"
            if names
            else "give the task a metric, or leave it out",
        )
    elif watch not in names:
        yield PlanError(
            "rounds.watch",
            f"'{watch}' decides which model is kept, but it is "
            + (
                "measured while clients train, not on held-out examples"
                if watch == "train_loss"
                else f"none of {', '.join(names)}"
            ),
            f'set rounds.watch = "{names[0]}" or another metric of the task, or leave '
            "defend.rollback out",
        )
    if job.evaluate_every < 1:
        yield PlanError(
            "evaluate_every",
            "= 0 measures no model before the last one, so that none could be gone back to",
            "set evaluate_every = 1, or leave defend.rollback out",
        )


def _irreversible(job: Job) -> Iterable[PlanError]:
    """What cannot be taken back with a model."""
    if job.privacy.mechanism == "correlated":
        yield PlanError(
            "defend.rollback",
            "discards updates with the noise on them, and later rounds would take back noise that "
            "is in no model any more",
            'set privacy.mechanism = "gaussian", or leave rollback out',
        )
    if Buffer.of(job) is not None:
        yield PlanError(
            "defend.rollback",
            "judges the model that a round started from, and a buffer measures the models that its "
            "clients began with; updates from a rejected model would go on to arrive",
            "set another cohort.sampler, or leave rollback out",
        )
