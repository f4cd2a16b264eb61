"""Was it worth it? The federated model beside what each hospital can do alone, and all together.

| in the report     | which model                 | judged on the held-out patients           |
|-------------------|-----------------------------|-------------------------------------------|
| local_only        | each hospital's own         | of all hospitals                          |
| local_at_home     | each hospital's own         | of the same hospital                      |
| local_elsewhere   | each hospital's own         | of the other hospitals                    |
| federated         | the federation's            | of all hospitals                          |
| federated_at_home | the federation's            | of each hospital                          |
| pooled            | one, trained on all data    | of all hospitals                          |

Where there are several models or several groups of patients, the value is the mean. All models
are trained by the job's own client work, with as many steps as a client of the federation takes.
Intervals are 95 % bootstrap intervals: patients are drawn anew within each hospital, models stay
as they are (Efron and Tibshirani, 1993).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.job import Job
from hansa.core.keys import ReplayKey
from hansa.core.parts import Context, Examples, Model, Split
from hansa.core.vector import Vector

RESAMPLES = 1_000
"""Bootstrap samples behind an interval."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Score:
    """How well a model, or the hospitals' models on average, tell the sick from the healthy."""

    accuracy: Estimate
    auroc: Estimate


@dataclass(frozen=True, slots=True)
class Report:
    """The comparison; see the module for what each score is about.

    Attributes:
      patients: number of held-out patients.
    """

    patients: int
    local_only: Score
    local_at_home: Score
    local_elsewhere: Score
    federated: Score
    federated_at_home: Score
    pooled: Score

    def to_json(self) -> dict[str, Any]:
        """Plain numbers for JSON, each with its interval beside it; null where none is defined."""
        scores = {
            f.name: _plain(score)
            for f in dataclasses.fields(self)
            if isinstance(score := getattr(self, f.name), Score)
        }
        return {"patients": self.patients, **scores}


@dataclass(frozen=True, slots=True)
class _Judged:
    """What each model said about every held-out patient.

    Attributes:
      scores: (models, n) probability of a disease; the hospitals' models come first.
      targets: (n,) 1 for the sick.
      home: (n,) number of each patient's hospital.
    """

    scores: Array
    targets: Array
    home: Array


def compare(job: Job, model: Model, splits: Mapping[str, Split], federated: Vector) -> Report:
    """Trains the local models and the pooled one, and compares them with the federated one.

    Args:
      job: the job that gave the federated model.
      model: its task.
      splits: each hospital's data, by name.
      federated: (d,) parameters of the federated model.
    """
    local = [train_alone(job, model, name, split.train) for name, split in splits.items()]
    everybody = _joined([split.train for split in splits.values()])
    models = [*local, federated, train_alone(job, model, "pooled", everybody)]
    held_out = _joined([split.test for split in splits.values()])
    home = np.repeat(np.arange(len(splits)), [len(s.test) for s in splits.values()])
    scores = np.stack([model.predict(params, held_out).probabilities[:, 1] for params in models])
    judged = _Judged(scores, held_out.targets, home)
    hospitals, ours = range(len(splits)), len(splits)
    return Report(
        patients=len(held_out),
        local_only=_score(judged, [(i, home >= 0) for i in hospitals]),
        local_at_home=_score(judged, [(i, home == i) for i in hospitals]),
        local_elsewhere=_score(judged, [(i, home != i) for i in hospitals]),
        federated=_score(judged, [(ours, home >= 0)]),
        federated_at_home=_score(judged, [(ours, home == i) for i in hospitals]),
        pooled=_score(judged, [(ours + 1, home >= 0)]),
    )


def train_alone(job: Job, model: Model, name: str, examples: Examples) -> Vector:
    """The model that one data set gives: the job's own client work, round after round."""
    work, key = job.algorithm.work, ReplayKey.of_seed(job.seed).derive("alone", name)
    params = model.initial(job.seed)
    for number in range(job.rounds.count):
        ctx = Context(name, number, key.derive("round", number), model)
        state = work.init(params, ctx)
        for index in work.batches(len(examples), ctx):
            state = work.step(state, examples.take(index), ctx)
        delta, _ = work.finish(params, state)
        params = params + delta
    return params


def auroc(scores: Array, targets: Array) -> float:
    """Exact area under the ROC curve: Mann and Whitney's statistic, ties counted one half.

    NaN if only one of the two classes is there.
    """
    sick, healthy = scores[targets == 1], np.sort(scores[targets == 0])
    if not len(sick) or not len(healthy):
        return math.nan
    below = np.searchsorted(healthy, sick, "left") + np.searchsorted(healthy, sick, "right")
    return float(below.sum() / (2 * len(sick) * len(healthy)))


def accuracy(scores: Array, targets: Array) -> float:
    """Share of patients on the right side of one half; NaN without patients."""
    return float(((scores > 0.5) == targets).mean()) if len(targets) else math.nan


def _score(judged: _Judged, parts: Sequence[tuple[int, Array]]) -> Score:
    """The mean over (model, which patients), with intervals."""
    rng = ReplayKey.of_seed(0).generator("bootstrap")
    draws = [np.arange(len(judged.home)), *(_resample(judged.home, rng) for _ in range(RESAMPLES))]
    estimates = []
    for metric in (accuracy, auroc):
        values = []
        for drawn in draws:
            targets = judged.targets[drawn]
            of_parts = []
            for row, who in parts:
                there = who[drawn]
                of_parts.append(metric(judged.scores[row, drawn][there], targets[there]))
            values.append(_mean(of_parts))
        drawn_values = [value for value in values[1:] if not math.isnan(value)]
        low, high = np.percentile(drawn_values or [math.nan], [2.5, 97.5])
        estimates.append(Estimate(values[0], float(low), float(high)))
    return Score(*estimates)


def _resample(home: Array, rng: np.random.Generator) -> Array:
    """(n,) positions, drawn with replacement within each hospital."""
    groups = (np.flatnonzero(home == i) for i in np.unique(home))
    return np.concatenate([rng.choice(group, len(group)) for group in groups])


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _joined(parts: Sequence[Examples]) -> Examples:
    return Examples(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.targets for part in parts]),
    )


def _plain(score: Score) -> dict[str, Any]:
    """`{"accuracy": 0.8, "accuracy_interval": [0.7, 0.9], ...}`."""
    told: dict[str, Any] = {}
    for f in dataclasses.fields(score):
        estimate: Estimate = getattr(score, f.name)
        told[f.name] = _defined(estimate.value)
        told[f"{f.name}_interval"] = [_defined(estimate.low), _defined(estimate.high)]
    return told


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
