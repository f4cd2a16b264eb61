"""A job's own plan as what canary examples are put into (`examples.Train`).

The first client of a run holds its canaries that are in and nothing else, the others hold no
data: the hardest federation that the promise covers. They work with any client work: the score is
what the public mean of a round moves along the canary's own gradient at the parameters of that
round (white box).
"""

from __future__ import annotations

import numpy as np

from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Model, Site, Split, Task
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.privacy.audits.examples import Kind, canary_scores, pulls, slopes
from hansa.privacy.audits.one_run import Coins, Floats
from hansa.privacy.audits.runs import watch
from hansa.privacy.audits.scores import Scores
from hansa.simulation import population_of


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

    def train(canaries: Examples, coins: Coins) -> Floats:
        return _run(plan, task, names, canaries, coins, noise=noise)

    return canary_scores(train, rows, count, key, kind=kind)


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
        return pulls(slopes(model, params, canaries), step)

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
