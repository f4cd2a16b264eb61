"""The one-run audit with canary examples: rows that nobody has, each in or out by its own coin.

    rows ──► canaries ──► coins ──► train(canaries, coins) ──► scores ──► bound (`one_run`)
                                     whatever is audited

| kind       | a canary is                                                                 |
|------------|-----------------------------------------------------------------------------|
| mislabelled| a client's own row with the label of another class                          |
| foreign    | a row whose every value was taken from another, random row; a random label  |

Coins are independent, so that each canary is in with probability one half whatever the others do:
Poisson inclusion, which the bound of Steinke, Nasr and Jagielski (NeurIPS 2023) rests on. What a
canary that is out leaves behind is the relation's business: nothing at all, or an example that
contributes nothing. `train` knows it; nothing here does.

Gradients of canaries resemble each other, so the attacker who sees a step solves for all of them
together: see `pulls`. How a job's own plan is such a `train` is in `example_runs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Model
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.privacy.audits.canaries import fair_coins
from hansa.privacy.audits.one_run import Coins, Floats
from hansa.privacy.audits.scores import Scores, pooled

Kind = Literal["mislabelled", "foreign"]

Train: TypeAlias = Callable[[Examples, Coins], Floats]
"""Trains once, with fresh randomness, on the canaries whose coin is true, and scores all of them:
(m,) finite numbers, higher where a canary seems to be in, above 0 if the middle is known; where it
is not, `Scores.centred` finds one. A score may use what is released and
the canaries, never the coins."""

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


def canary_scores(
    train: Train,
    rows: Examples,
    count: int,
    key: ReplayKey,
    *,
    kind: Kind = "foreign",
    at_once: int = AT_ONCE,
) -> Scores:
    """Scores of canary examples, over as many runs of `train` as it takes.

    Args:
      train: what is audited.
      rows: what canaries are made of.
      count: number of canaries.
      key: of the canaries and their coins; whatever `train` draws is its own.
      kind: how canaries are made.
      at_once: canaries in one run.

    Raises:
      HansaError: `train` gives scores of another number, or some that are not finite.
    """
    found: list[Scores] = []
    while (done := sum(len(scores.coins) for scores in found)) < count:
        part = key.derive("run", len(found))
        canaries = canary_rows(rows, min(at_once, count - done), kind, part)
        coins = fair_coins(len(canaries), part)
        scores = np.asarray(train(canaries, coins.copy()), np.float64)
        if scores.shape != coins.shape or not np.isfinite(scores).all():
            raise HansaError(
                f"an attack on {len(coins)} canaries gave scores of shape {scores.shape}, or some "
                "that are not finite",
                fix="give each canary one finite score; training that diverges has none",
            )
        found.append(Scores(scores, coins))
    return pooled(found)


def slopes(model: Model, params: Vector, canaries: Examples) -> Floats:
    """(m, d) float64 directions of the canaries' gradients, each of norm 1, or zero."""
    found = np.stack(
        [
            model.gradient(params, canaries.take(np.array([i])))[1].astype(np.float64)
            for i in range(len(canaries))
        ]
    )
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    units: Floats = np.divide(found, norms, out=np.zeros_like(found), where=norms > 0)
    return units


def pulls(directions: Floats, step: Vector) -> Floats:
    """(m,) how far a (d,) step went against each of (m, d) directions, all of them at once.

    Least squares with a ridge: with fewer directions than coordinates, a step that is a sum of
    some of them gives their lengths, whatever the angles between them.
    """
    gram = directions @ directions.T + _RIDGE * np.eye(len(directions))
    return np.asarray(np.linalg.solve(gram, -(directions @ step.astype(np.float64))), np.float64)
