"""Going back to the last good model: a round's metrics judge the model that it started from.

    round 3          round 4            round 5             round 6
    starts from A    starts from B      starts from A       starts from C
    A is accepted    B is rejected      A was judged        C is judged
      └─► B            └─► discarded      └─► C               └─► ...

Nobody can look at an update under a mask; what comes of it can be measured on held-out examples.
The metrics of a round are those of the model that it started from, so a bad update shows one
measurement later, and what was trained from it goes with it. The decision follows from metrics
that are released anyway: it is post-processing and costs no privacy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hansa.core.metrics import Better, Metric
from hansa.core.vector import Vector


@dataclass(frozen=True, slots=True)
class Accepted:
    """The last model that was measured and accepted, or the first one, with what belongs to it.

    Attributes:
      round: the first round that started from it.
      params: (d,) float32 parameters.
      model: SHA-256 of `params`.
      server: the server optimizer's state, a tuple of vectors.
      clip: norm bound of the round that started from it, where it adapts.
    """

    round: int
    params: Vector = field(repr=False, compare=False)
    model: str
    server: Any = field(repr=False, compare=False)
    clip: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a model was rejected, and what was gone back to.

    Attributes:
      metric: the watched metric.
      value: of the rejected model, in the metric's unit.
      best: of the accepted models before; None if none of them has a value.
      tolerance: how much worse than `best` a model may be.
      back: the first round that started from the model that is taken up again.
    """

    metric: str
    value: float
    best: float | None
    tolerance: float
    back: int


def judged(
    accepted: Accepted | None,
    model: str,
    value: float | None,
    best: float | None,
    tolerance: float,
    better: Better,
) -> bool:
    """Whether the model that a round started from is rejected.

    | model                         | value                                  | rejected |
    |-------------------------------|----------------------------------------|----------|
    | any, where nothing is judged  | any                                    | no       |
    | any                           | None: not measured, or not defined     | no       |
    | the accepted one              | any: there is nothing to go back to    | no       |
    | another                       | no finite number                       | yes      |
    | another, none has a value yet | finite                                 | no       |
    | another                       | worse than `best`, by more than        |          |
    |                               | `tolerance`                            | yes      |
    | another                       | any other                              | no       |

    Args:
      accepted: what can be gone back to; None where the job does not say `rollback`.
      model: SHA-256 of the model that the round started from.
      value: what the round measured of it.
      best: best value of the accepted models.
      tolerance: in the metric's unit.
      better: which way is better.
    """
    if accepted is None or value is None or model == accepted.model:
        return False
    if not math.isfinite(value):
        return True
    if best is None:
        return False
    worse = value - best if better is Better.LOWER else best - value
    return worse > tolerance


def direction(metrics: Iterable[Metric], name: str) -> Better:
    """Which way the metric of that name is better; the training loss is no metric, and lower."""
    return next((m.better for m in metrics if m.name == name), Better.LOWER)
