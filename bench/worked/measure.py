"""A federated model beside one that was trained on everybody's examples in one place."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hansa.core.contribute import Purpose
from hansa.core.job import Job
from hansa.core.keys import ReplayKey
from hansa.core.metrics import measure, values
from hansa.core.parts import Context, Examples, Site, Split, Task
from hansa.core.vector import Vector
from hansa.simulation import population_of, simulate
from hansa.work.bundle import load_task
from hansa.work.sgd import LocalSGD


@dataclass(frozen=True)
class Found:
    """What one training gave.

    Attributes:
      metrics: of the final model, on everything that is held out.
      seen: examples that were trained on, counted as often as they were.
      seconds: of the whole training, without the measurement.
      params: the final model.
      train_loss: of each round of a federated one.
    """

    metrics: dict[str, float | None]
    seen: int
    seconds: float
    params: Vector
    train_loss: tuple[float | None, ...] = ()

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        told: dict[str, Any] = {name: rounded(value) for name, value in self.metrics.items()}
        told |= {"examples_trained_on": self.seen, "seconds": round(self.seconds, 1)}
        if self.train_loss:
            told["train_loss_first"] = rounded(self.train_loss[0])
            told["train_loss_last"] = rounded(self.train_loss[-1])
        return told


def rounded(value: float | None) -> float | None:
    """Four digits behind the point."""
    return None if value is None else round(value, 4)


def federated(job: Job, held_out: Examples, splits: Sequence[Split]) -> Found:
    """Runs a job with whatever engine is sooner, and measures once, at its end."""
    task, started = load_task(job), time.perf_counter()
    result = simulate(replace(job, evaluate_every=0), engine="auto", on_round=_say)
    seconds = time.perf_counter() - started
    sizes = dict(zip(population_of(job, task), (len(s.train) for s in splits), strict=True))
    rounds = [record for record in result.records if record.purpose is Purpose.TRAIN]
    seen = sum(_seen(job, task, sizes[name]) for record in rounds for name in record.members)
    losses = tuple(record.metrics["train_loss"] for record in rounds)
    return Found(measured(task, result.state.params, held_out), seen, seconds, result.state.params,
                 losses)  # fmt: skip


def pooled(job: Job, train: Examples, held_out: Examples, seen: int) -> Found:
    """The same task, batch size and learning rate, on as many examples, all in one place."""
    task, words = load_task(job), job.algorithm.work
    assert isinstance(words, LocalSGD)
    work = replace(words, local_epochs=0, local_steps=max(1, seen // words.batch_size))
    ctx = Context("pooled", 0, ReplayKey.of_seed(job.seed).derive("pooled"), task)
    started = time.perf_counter()
    shared = task.initial(job.seed)
    state = work.init(shared, ctx)
    for index in work.batches(len(train), ctx):
        state = work.step(state, train.take(index), ctx)
    delta, _ = work.finish(shared, state)
    params = shared + delta
    seconds = time.perf_counter() - started
    return Found(measured(task, params, held_out), seen, seconds, params)


def measured(task: Task, params: Vector, held_out: Examples) -> dict[str, float | None]:
    """The task's own metrics."""
    return values(task.metrics, measure(task.metrics, task.predict(params, held_out)))


def everybody(job: Job) -> list[Split]:
    """The data of each client, in order."""
    task = load_task(job)
    return [task.data(Site(name, {})) for name in population_of(job, task)]


def joined(parts: Sequence[Examples]) -> Examples:
    """All of them together."""
    return Examples(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.targets for part in parts]),
    )


def _seen(job: Job, task: Task, size: int) -> int:
    """Examples that a client with so many of its own trains on in a round."""
    ctx = Context("anybody", 0, ReplayKey.of_seed(0), task)
    return sum(len(index) for index in job.algorithm.work.batches(size, ctx)) if size else 0


def _say(record: Any) -> None:
    loss = record.metrics.get("train_loss")
    print(f"round {record.round + 1}: train_loss {loss}", file=sys.stderr, flush=True)
