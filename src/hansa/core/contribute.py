"""One client's whole contribution to one round: the same code on a laptop and in a hospital."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial as call
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hansa.core.arrival import Buffer, Flights
from hansa.core.keys import Noise, ReplayKey
from hansa.core.metrics import measure
from hansa.core.parts import (
    AddsRows,
    Aggregator,
    ClientWork,
    Context,
    Discounts,
    EncodesRows,
    Examples,
    Facts,
    Model,
    Partial,
    Split,
    Update,
)
from hansa.core.plan import Plan
from hansa.core.vector import Layout, Vector
from hansa.errors import UpdateRejected


class Purpose(Enum):
    """What a round is for."""

    TRAIN = "train"
    EVALUATE = "evaluate"


def layout_of(plan: Plan, purpose: Purpose) -> Layout:
    """Segments of a round's updates: a measurement has no delta."""
    if purpose is Purpose.TRAIN:
        return plan.layout
    return plan.layout.without("delta").without("within")


@dataclass(frozen=True, slots=True)
class RoundTask:
    """All that a client or a worker needs for one round. Public: it holds no data.

    Attributes:
      plan: the plan that was agreed on.
      round: number of the round, from 0.
      attempt: number of the try at this round, from 0.
      purpose: training, or measuring the final model.
      params: (d,) float32 parameters; nobody writes to them.
      model: SHA-256 of `params`.
      key: the job's replay key.
      clip: norm bound of this round, where it adapts.
      age: rounds for which `params` are not the newest any more, where updates arrive late.
      flights: who is at work since earlier rounds of a simulation, where updates arrive late.
    """

    plan: Plan
    round: int
    attempt: int
    purpose: Purpose
    params: Vector
    model: str
    key: ReplayKey
    clip: float | None = None
    age: int = 0
    flights: Flights | None = field(default=None, repr=False)

    @property
    def layout(self) -> Layout:
        """Segments of this round's updates: a measurement has no delta."""
        return layout_of(self.plan, self.purpose)

    @property
    def measured(self) -> bool:
        """Whether held-out examples are measured in this round."""
        every = self.plan.job.evaluate_every
        due = self.purpose is Purpose.EVALUATE or (every > 0 and self.round % every == 0)
        return due and self.plan.measures


Trained: TypeAlias = tuple[Vector, float]
"""What training gave: the (d,) delta, and the mean loss over the steps."""


def contribute(
    task: RoundTask, client: str, model: Model, split: Split, noise: Noise | None = None
) -> Update:
    """Trains on a client's data and encodes the result, ready for the aggregator.

    Args:
      task: the round.
      client: whose contribution it is.
      model: the mathematics of the task.
      split: the client's examples.
      noise: where noise of the client's own comes from; in a simulation it derives from the key.
    """
    ctx = context_of(task, client, model, split, noise)
    trained = train_locally(task, ctx, split) if task.purpose is Purpose.TRAIN else None
    return encoded(task, ctx, split, trained)


class Contribution(Protocol):
    """What a client does in a round: `contribute`, or what a client does instead that attacks."""

    def __call__(
        self, task: RoundTask, client: str, model: Model, split: Split, noise: Noise | None = None
    ) -> Update:
        """The client's update, as `contribute`."""


def context_of(
    task: RoundTask, client: str, model: Model, split: Split, noise: Noise | None = None
) -> Context:
    """A client's place in a round; the arguments are those of `contribute`."""
    key = task.key.derive("round", task.round, task.purpose.value, "client", client)
    loss = None
    if task.purpose is Purpose.TRAIN:
        loss = call(_loss, model, task.params, split.train)
    return Context(client, task.round, key, model, noise, task.clip, len(split.train), loss)


def _loss(model: Model, params: Vector, train: Examples) -> float:
    """Mean loss over training examples, added up in float64; 0 without any."""
    if not len(train):
        return 0.0
    return float(model.predict(params, train).losses.sum(dtype=np.float64)) / len(train)


def encoded(task: RoundTask, ctx: Context, split: Split, trained: Trained | None) -> Update:
    """All that follows training: the measurement, the weight, and the stages.

    The metrics describe the model as the client *received* it, on its held-out examples, so that
    one message per round carries the update and the measurement of the round before.

    Args:
      task: the round.
      ctx: the client's place in it.
      split: the client's examples.
      trained: what training gave; None in a round that only measures.
    """
    layout = task.layout
    update = Update(np.zeros(layout.size, np.float32), layout)
    sums = update.segment("metrics")
    if task.measured and len(split.test):
        sums[2:] = measure(ctx.model.metrics, ctx.model.predict(task.params, split.test))
    if trained is None:
        update.segment("weight")[:] = len(split.test)
    else:
        delta, loss = trained
        update.segment("delta")[:] = delta
        if len(sums):
            sums[:2] = loss * len(split.train), len(split.train)
        update.segment("weight")[:] = len(split.train)
    for stage in task.plan.parts.stages:
        update = stage.encode(update, ctx)
    return update


def encode_rows(
    task: RoundTask,
    contexts: Sequence[Context],
    splits: Sequence[Split],
    rows: Vector,
    losses: NDArray[np.float64],
) -> None:
    """Encodes the updates of several clients in place: each row as by `encoded`, to the bit.

    Args:
      task: the round, with stages that encode rows; see `Fold.in_rows`.
      contexts: each client's place in it.
      splits: each client's examples.
      rows: (k, d) float32; deltas in their segment, and anything in the others.
      losses: (k,) mean losses over the steps.

    Raises:
      HansaError: a stage cannot encode one of the rows.
    """
    layout = task.layout
    sizes = np.array([len(split.train) for split in splits])
    for segment in layout.segments:
        if segment.name != "delta":
            rows[:, slice(*layout.bounds(segment.name))] = 0
    start, end = layout.bounds("metrics")
    if end > start:
        if task.measured:
            for row, ctx, split in zip(rows, contexts, splits, strict=True):
                if len(split.test):
                    found = measure(ctx.model.metrics, ctx.model.predict(task.params, split.test))
                    row[start + 2 : end] = found
        rows[:, start] = losses * sizes
        rows[:, start + 1] = sizes
    start, end = layout.bounds("weight")
    rows[:, start:end] = sizes[:, np.newaxis]
    for stage in task.plan.parts.stages:
        if isinstance(stage, EncodesRows):
            stage.encode_rows(rows, layout)


def train_locally(
    task: RoundTask, ctx: Context, split: Split, work: ClientWork[Any] | None = None
) -> Trained:
    """Client work on the client's examples; zeros without any.

    Args:
      task: the round.
      ctx: the client's place in it.
      split: the client's examples.
      work: of a client that trains otherwise than the plan says; the plan's if it is left out.
    """
    if work is None:
        work = task.plan.parts.algorithm.work
    if not len(split.train):
        return np.zeros(task.plan.task.schema.size, np.float32), 0.0
    state = work.init(task.params, ctx)
    for index in work.batches(len(split.train), ctx):
        state = work.step(state, split.train.take(index), ctx)
    return work.finish(task.params, state)


@dataclass(frozen=True, slots=True)
class Fold:
    """How the updates of one round are checked and added up; engines fold with this.

    Attributes:
      aggregator: what adds.
      layout: segments.
      facts: of each segment.
      plan: the plan that was agreed on.
      weight: what deltas are multiplied by after all checks: 1, or less for an older model.
    """

    aggregator: Aggregator
    layout: Layout
    facts: Facts
    plan: Plan
    weight: float = 1.0

    @classmethod
    def of(cls, task: RoundTask) -> Fold:
        """The fold of a round's updates."""
        buffer = Buffer.of(task.plan.job)
        weight = 1.0 if buffer is None else buffer.weight(task.age)
        return cls(task.plan.parts.aggregator, task.layout, task.plan.facts, task.plan, weight)

    def zero(self) -> Partial:
        """No updates yet."""
        return self.aggregator.zero(self.layout, self.facts)

    @property
    def in_rows(self) -> bool:
        """Whether all parts can take the updates of several clients in one pass."""
        stages = all(isinstance(stage, EncodesRows) for stage in self.plan.parts.stages)
        return stages and isinstance(self.aggregator, AddsRows)

    def add_rows(self, partial: Partial, clients: Sequence[str], rows: Vector) -> Partial:
        """Checks the updates of several clients and adds all or none; `partial` is consumed.

        Raises:
          UpdateRejected: one of them breaks its contract; `partial` is unchanged.
        """
        for stage in self.plan.parts.stages:
            if isinstance(stage, EncodesRows):
                stage.admit_rows(rows, self.layout, self.facts)
        if not isinstance(self.aggregator, AddsRows):
            raise TypeError(f"{self.aggregator} adds one update after the other")
        return self.aggregator.add_rows(
            partial, clients, rows, self.layout, self.facts, self.weight
        )

    def add(self, partial: Partial, client: str, update: Update) -> Partial:
        """Checks one update and adds it; `partial` is consumed.

        Raises:
          UpdateRejected: the update breaks its contract; `partial` is unchanged.
        """
        if update.vector.shape != (self.layout.size,):
            raise UpdateRejected(
                f"the update of '{client}' has shape {update.vector.shape}, the plan says "
                f"({self.layout.size},)",
                fix="let the site compile the same plan and train again",
            )
        for stage in self.plan.parts.stages:
            stage.admit(update, self.facts)
        if self.weight == 1:
            return self.aggregator.add(partial, client, update, self.facts)
        if not isinstance(self.aggregator, Discounts):
            raise TypeError(f"{self.aggregator} counts an older update like a fresh one")
        return self.aggregator.add_discounted(partial, client, update, self.facts, self.weight)
