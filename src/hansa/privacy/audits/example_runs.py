"""A job's own plan as what canary examples are put into (`examples.Train`).

The first client of a run holds canaries and nothing else; the others hold nothing and send zeros:
the hardest federation that the promise covers, and what is left when everybody else tells the
attacker what they sent. The score is what the public mean of a round moves along the canary's own
gradient at the parameters of that round (white box).

| the plan compares              | a canary that is out                                        |
|--------------------------------|-------------------------------------------------------------|
| an example that is zeroed out  | is there, is drawn like any other, and contributes nothing  |
| an example more or less        | is not there                                                |

Where clients hide their examples by their own noise, the one with canaries has as few examples as
the plan allows: each is then drawn most often, and the claim is counted for just that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.core.parts import ClientWork, Context, Examples, Model, Relation, Site, Split, Task
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.privacy.audits.examples import AT_ONCE, Kind, canary_scores, pulls, slopes
from hansa.privacy.audits.one_run import Coins, Floats
from hansa.privacy.audits.runs import watch
from hansa.privacy.audits.scores import Scores
from hansa.privacy.audits.silence import silent_work
from hansa.simulation import population_of

_APART = 4
"""Coordinates for each canary, so that an attacker can tell them apart."""


@dataclass(frozen=True, slots=True)
class Zeroing:
    """The job's own client work, where some examples contribute nothing to whatever draws them.

    Clients without examples do not work at all: they send zeros.

    Attributes:
      inner: the job's own work.
      absent: (n,) true for the examples that contribute nothing.
    """

    inner: ClientWork[Any]
    absent: Coins = field(repr=False)

    def batches(self, examples: int, ctx: Context) -> Iterator[NDArray[Any]]:
        """Those of the job's own work, without the examples that contribute nothing."""
        for drawn in self.inner.batches(examples, ctx):
            yield drawn[~self.absent[drawn]]

    def init(self, shared: Vector, ctx: Context) -> Any:
        """The job's own."""
        return self.inner.init(shared, ctx)

    def step(self, state: Any, batch: Examples, ctx: Context) -> Any:
        """The job's own."""
        return self.inner.step(state, batch, ctx)

    def finish(self, shared: Vector, state: Any) -> tuple[Vector, float]:
        """The job's own."""
        return self.inner.finish(shared, state)


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

    return canary_scores(train, rows, count, key, kind=kind, at_once=at_once(plan)).centred()


def at_once(plan: Plan) -> int:
    """Canaries in one run of a plan: no more than a client has examples, or can be told apart."""
    most = min(AT_ONCE, max(plan.task.schema.size // _APART, 1))
    return min(most, plan.job.privacy.examples or most)


def _run(
    plan: Plan,
    model: Model,
    names: Sequence[str],
    canaries: Examples,
    coins: Coins,
    *,
    noise: bool,
) -> Floats:
    none = canaries.take(np.zeros(0, np.int64))
    if plan.relation is Relation.ZERO_OUT:
        size = max(plan.job.privacy.examples, len(canaries))
        held = canaries.take(np.arange(size) % len(canaries))
        absent = np.ones(size, np.bool_)
        absent[: len(canaries)] = ~coins
    else:
        held = canaries.take(np.flatnonzero(coins))
        absent = np.zeros(len(held), np.bool_)
    mine, nothing = Split(held, none), Split(none, none)
    work = plan.parts.algorithm.work

    def look(params: Vector, step: Vector) -> Floats:
        return pulls(slopes(model, params, canaries), step)

    seen = watch(
        plan,
        model,
        Zeroing(work if noise else silent_work(work), absent),
        lambda client: mine if client == names[0] else nothing,
        names,
        look,
        noise=noise,
    )
    return np.asarray(np.sum([found for found, _ in seen], axis=0), np.float64)
