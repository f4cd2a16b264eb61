"""Checks of a job's words that need no facts about updates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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
