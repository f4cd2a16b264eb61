"""Canary examples: rows that nobody has, put into a client's data by a coin each.

| kind       | a canary is                                                                 |
|------------|-----------------------------------------------------------------------------|
| mislabelled| a client's own row with the label of another class                          |
| foreign    | a row whose every value was taken from another, random row; a random label  |

They work with any client work: the score is what the public mean of a round moves along the
canary's own gradient at the parameters of that round (white box). Gradients of canaries resemble
each other, so the attacker solves for all of them together: least squares with a ridge.

The first client of a run holds its canaries that are in and nothing else, the others hold no
data: the hardest federation that the promise covers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Model, Site, Split, Task
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.privacy.audits.canaries import fair_coins
from hansa.privacy.audits.one_run import Coins, Floats
from hansa.privacy.audits.runs import Scores, watch
from hansa.simulation import population_of

Kind = Literal["mislabelled", "foreign"]

AT_ONCE = 32
"""Canaries in one run: their gradients must still be told apart."""

_RIDGE = 1e-3


def canary_rows(rows: Examples, count: int, kind: Kind, key: ReplayKey) -> Examples:
    """(count,) rows that are in nobody's data.

    Args:
      rows: some rows of the task, for their form and their classes.
      count: how many.
      kind: how they are made.
      key: what they follow from.
    """
    rng = key.generator("canary rows")
    chosen = rng.integers(0, len(rows), count)
    classes = np.unique(rows.targets)
    inputs, targets = rows.inputs[chosen], rows.targets[chosen]
    if kind == "foreign":
        flat = rows.inputs.reshape(len(rows), -1)
        picked = rng.integers(0, len(rows), (count, flat.shape[1]))
        inputs = np.take_along_axis(flat, picked, axis=0).reshape(inputs.shape)
        return Examples(inputs, rng.choice(classes, count))
    step = rng.integers(1, max(len(classes), 2), count)
    place = (np.searchsorted(classes, targets) + step) % len(classes)
    return Examples(inputs, classes[place])


def canary_examples(
    plan: Plan,
    task: Task,
    count: int,
    key: ReplayKey,
    *,
    noise: bool = True,
    kind: Kind = "foreign",
) -> Scores:
    """Scores of canary examples, over as many runs as it takes.

    Args:
      plan: the job's own plan; it runs for as many rounds as it says.
      task: whose rows the canaries are made of.
      count: number of canaries.
      key: of the canaries and their coins. Noise and cohorts are fresh in each run.
      noise: false: without any noise.
      kind: how canaries are made.

    Raises:
      RoundVoid: draws below the quorum, again and again.
    """
    names = population_of(plan.job, task)
    rows = task.data(Site(names[0], {})).train
    found: list[Scores] = []
    while (done := sum(len(scores.coins) for scores in found)) < count:
        part = key.derive("run", len(found))
        canaries = canary_rows(rows, min(AT_ONCE, count - done), kind, part)
        coins = fair_coins(len(canaries), part)
        found.append(Scores(_run(plan, task, names, canaries, coins, noise=noise), coins))
    return Scores(
        np.concatenate([scores.scores for scores in found]),
        np.concatenate([scores.coins for scores in found]),
    )


def _run(
    plan: Plan,
    model: Model,
    names: tuple[str, ...],
    canaries: Examples,
    coins: Coins,
    *,
    noise: bool,
) -> Floats:
    none = canaries.take(np.zeros(0, np.int64))
    inside, nobody = Split(canaries.take(np.flatnonzero(coins)), none), Split(none, none)

    def look(params: Vector, step: Vector) -> Floats:
        slopes = np.stack([_slope(model, params, canaries, i) for i in range(len(canaries))])
        gram = slopes @ slopes.T + _RIDGE * np.eye(len(canaries))
        pulled = -(slopes @ step.astype(np.float64))
        return np.asarray(np.linalg.solve(gram, pulled), np.float64)

    seen = watch(
        plan,
        model,
        plan.parts.algorithm.work,
        lambda client: inside if client == names[0] else nobody,
        names,
        look,
        noise=noise,
    )
    total = np.asarray(np.sum([found for found, _ in seen], axis=0), np.float64)
    found: Floats = total - (total.max() + total.min()) / 2
    return found


def _slope(model: Model, params: Vector, canaries: Examples, number: int) -> Floats:
    """(d,) float64 direction of one canary's gradient, of norm 1."""
    slope = model.gradient(params, canaries.take(np.array([number])))[1].astype(np.float64)
    norm = float(np.linalg.norm(slope))
    found: Floats = slope / norm if norm > 0 else slope
    return found
