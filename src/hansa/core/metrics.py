"""Metrics as vectors that add up, so that they can ride under masks and noise.

A metric turns the predictions on some examples into a fixed number of sums. Sums of different
clients are added; the value is computed once, from the total. What is not a sum is not collected.

| metric      | sums                        | value                                             |
|-------------|-----------------------------|---------------------------------------------------|
| Ratio       | total, count                | total / count                                     |
| Loss        | total, count                | mean loss                                         |
| Accuracy    | correct, count              | share of examples whose likeliest class is right  |
| AUROC       | histograms of both classes  | area under the ROC curve, ties count one half     |
| Calibration | count, hits, score per bin  | expected calibration error (Naeini, AAAI 2015)    |

No examples, or for AUROC only one class: the value is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hansa.core.canonical import Json
from hansa.errors import HansaError

Floats = NDArray[np.float64]


class Better(Enum):
    """Which way a metric improves."""

    HIGHER = "higher is better"
    LOWER = "lower is better"


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model said about n examples.

    Attributes:
      probabilities: (n, classes) probabilities, each row adds up to 1.
      targets: (n,) integer classes.
      losses: (n,) loss of each example.
    """

    probabilities: NDArray[Any]
    targets: NDArray[Any]
    losses: NDArray[Any]


@runtime_checkable
class Metric(Protocol):
    """Sums over examples and the value they stand for."""

    @property
    def name(self) -> str:
        """Key of the value in reports; unique within a job."""

    @property
    def unit(self) -> str:
        """Unit of the value."""

    @property
    def better(self) -> Better:
        """Which way is better."""

    @property
    def size(self) -> int:
        """Number of sums."""

    def measure(self, outputs: Outputs) -> Floats:
        """(size,) sums over the examples."""

    def value(self, sums: Floats) -> float | None:
        """The metric's value from added-up sums; None where it is not defined."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A mean over examples of any per-example quantity: `of` maps outputs to (n,) numbers."""

    name: str
    unit: str
    better: Better
    of: Callable[[Outputs], NDArray[Any]] | None = field(
        default=None, compare=False, metadata={"words": False}
    )

    @property
    def size(self) -> int:
        """Two: total and count."""
        return 2

    def measure(self, outputs: Outputs) -> Floats:
        """(2,) total and count.

        Raises:
          HansaError: the metric was read from a plan, which holds no code.
        """
        if self.of is None:
            raise HansaError(
                f"metric '{self.name}' has no function to measure with",
                fix="measure with the task's own metric, not with the plan's copy",
            )
        values = np.asarray(self.of(outputs), np.float64)
        return np.array([values.sum(), len(values)])

    def value(self, sums: Floats) -> float | None:
        """Mean of the quantity."""
        return _ratio(sums)


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean loss per example, as the task defines it."""

    name: str = "loss"
    unit: str = "nats per example"
    better: Better = Better.LOWER

    @property
    def size(self) -> int:
        """Two: total and count."""
        return 2

    def measure(self, outputs: Outputs) -> Floats:
        """(2,) total loss and count."""
        return np.array([outputs.losses.sum(dtype=np.float64), len(outputs.losses)])

    def value(self, sums: Floats) -> float | None:
        """Mean loss."""
        return _ratio(sums)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of examples whose likeliest class is the right one."""

    name: str = "accuracy"
    unit: str = "share of examples"
    better: Better = Better.HIGHER

    @property
    def size(self) -> int:
        """Two: correct and count."""
        return 2

    def measure(self, outputs: Outputs) -> Floats:
        """(2,) number of right answers and count."""
        right = outputs.probabilities.argmax(axis=1) == outputs.targets
        return np.array([right.sum(dtype=np.float64), len(right)])

    def value(self, sums: Floats) -> float | None:
        """Share that is right."""
        return _ratio(sums)


@dataclass(frozen=True, slots=True)
class AUROC:
    """Area under the ROC curve of two classes, from score histograms (Hanley and McNeil, 1982).

    With b bins of equal width the value differs from the exact one by at most half the share of
    pairs (one example of each class) whose scores fall into the same bin.
    """

    bins: int = 256
    name: str = "auroc"
    unit: str = "area"
    better: Better = Better.HIGHER

    @property
    def size(self) -> int:
        """Two histograms."""
        return 2 * self.bins

    def measure(self, outputs: Outputs) -> Floats:
        """(2 * bins,) histogram of the score of class 1 for targets 0, then for targets 1."""
        place = _bins(outputs.probabilities[:, 1], self.bins)
        both = [
            np.bincount(place[outputs.targets == label], minlength=self.bins) for label in (0, 1)
        ]
        return np.concatenate(both).astype(np.float64)

    def value(self, sums: Floats) -> float | None:
        """Share of pairs in the right order, ties counted one half."""
        negative, positive = sums[: self.bins], sums[self.bins :]
        pairs = negative.sum() * positive.sum()
        if pairs <= 0:
            return None
        below = np.cumsum(negative) - negative
        return float(np.clip((positive * (below + negative / 2)).sum() / pairs, 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration error of the likeliest class's probability, over equal-width bins."""

    bins: int = 15
    name: str = "calibration_error"
    unit: str = "probability"
    better: Better = Better.LOWER

    @property
    def size(self) -> int:
        """Count, right answers and summed confidence of each bin."""
        return 3 * self.bins

    def measure(self, outputs: Outputs) -> Floats:
        """(3 * bins,) counts, then right answers, then summed confidence."""
        confidence = outputs.probabilities.max(axis=1)
        right = outputs.probabilities.argmax(axis=1) == outputs.targets
        place = _bins(confidence, self.bins)
        return np.concatenate(
            [
                np.bincount(place, weights=weights, minlength=self.bins)
                for weights in (np.ones(len(place)), right, confidence)
            ]
        ).astype(np.float64)

    def value(self, sums: Floats) -> float | None:
        """Mean gap between confidence and accuracy, weighted by the bins' counts."""
        count, right, confidence = sums.reshape(3, self.bins)
        if count.sum() <= 0:
            return None
        return float(np.abs(right - confidence).sum() / count.sum())


KINDS: Mapping[str, type[Metric]] = {
    kind.__name__: kind for kind in (Ratio, Loss, Accuracy, AUROC, Calibration)
}


def measure(metrics: Sequence[Metric], outputs: Outputs) -> Floats:
    """The sums of several metrics, one after the other."""
    parts = [metric.measure(outputs) for metric in metrics]
    return np.concatenate(parts) if parts else np.zeros(0)


def values(metrics: Sequence[Metric], sums: Floats) -> dict[str, float | None]:
    """The values of several metrics from their concatenated, added-up sums."""
    found, start = {}, 0
    for metric in metrics:
        found[metric.name] = metric.value(sums[start : start + metric.size])
        start += metric.size
    return found


_TYPES: Mapping[str, type] = {"name": str, "unit": str, "bins": int}


def of_json(value: Json) -> Metric:
    """Reads a metric's declaration back from canonical JSON, by the closed list `KINDS`.

    Raises:
      HansaError: the value declares no known metric.
    """
    unknown = HansaError(
        f"{value!r:.200} is not a metric", fix=f"use one of: {', '.join(sorted(KINDS))}"
    )
    if not isinstance(value, dict):
        raise unknown
    kind = KINDS.get(str(value.get("is")))
    if kind is None:
        raise unknown
    fields: dict[str, Any] = {k: v for k, v in value.items() if k != "is"}
    if any(type(fields[name]) is not right for name, right in _TYPES.items() if name in fields):
        raise unknown
    if fields.get("bins", 1) < 1:
        raise unknown
    try:
        fields["better"] = Better[str(fields["better"]).upper()]
        return kind(**fields)
    except (KeyError, TypeError) as error:
        raise unknown from error


def _ratio(sums: Floats) -> float | None:
    return float(sums[0] / sums[1]) if sums[1] > 0 else None


def _bins(scores: NDArray[Any], bins: int) -> NDArray[np.int64]:
    return np.clip((scores * bins).astype(np.int64), 0, bins - 1)
