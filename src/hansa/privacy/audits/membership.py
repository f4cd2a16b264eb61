"""Membership inference: was this example among those that the final model was trained on?

| attack | needs             | score of an example x with true class y                      |
|--------|-------------------|--------------------------------------------------------------|
| `lira` | 16 or more models | how far log(p / (1 - p)) lies above that of models without x |
| `rmia` | 1 to 4 models     | share of others z with p(x)/P(x) >= p(z)/P(z)                |

p is the target's probability of y, P(x) that of models which were not trained on x. `lira` is the
offline form of Carlini et al. (S&P 2022), with one variance for all examples, as they advise for
few models; `rmia` that of Zarifzadeh, Liu and Shokri (ICML 2024, arXiv 2312.03262), offline with
a = 0.3.

What counts is how many members are found at a small share of false alarms, never the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hansa.core.job import Job
from hansa.core.keys import ReplayKey
from hansa.core.metrics import Outputs
from hansa.core.parts import Examples, Site, Split, Task
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.privacy.audits.one_run import Coins, Floats

_OFFLINE = 0.3
"""RMIA's a: how much more probable y is, on average, for models that were trained on x."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What an attack on the final model found.

    Attributes:
      attack: lira or rmia.
      models: shadow models that were trained.
      members: examples that were trained on, among those attacked.
      others: examples that were not.
      tpr_at_1_percent: share of members found at 1 % false alarms.
      tpr_at_1_per_mille: the same at 0.1 %; None with fewer than 1,000 others, which cannot say.
    """

    attack: str
    models: int
    members: int
    others: int
    tpr_at_1_percent: float
    tpr_at_1_per_mille: float | None


@dataclass(frozen=True, slots=True)
class Resampled:
    """A task whose clients train on a part of their examples; all else is the task's own.

    Attributes:
      task: the task.
      pick: positions of a client's examples to train on, by its name and how many it has.
    """

    task: Task
    pick: Callable[[str, int], Vector]

    def __getattr__(self, name: str) -> object:
        return getattr(self.task, name)

    def data(self, site: Site) -> Split:
        """The picked examples to train on, none held out."""
        rows = pool(self.task.data(site))
        nothing = np.zeros(0, np.int64)
        return Split(rows.take(self.pick(site.name, len(rows))), rows.take(nothing))


def membership(
    job: Job,
    *,
    attack: Literal["lira", "rmia"] = "rmia",
    models: int = 0,
    seed: int = 0,
    task: Task | None = None,
) -> Membership:
    """Trains the job's target and shadow models in simulation, and attacks the target.

    A client's examples are divided by chance: half are attacked, each a member by a fair coin; a
    quarter is for shadow models, each of which trains on two thirds of it; a quarter is for
    comparison and never trained on. Models see fewer examples than the job's own would, which
    makes members easier to tell.

    Args:
      job: what to train; each model takes one simulation.
      attack: lira or rmia.
      models: shadow models; 0 = 16 for lira, 2 for rmia.
      seed: of the division and the coins.
      task: the job's task, if it is at hand already.

    Raises:
      HansaError: too few models.
    """
    from hansa.simulation import population_of, simulate
    from hansa.work.bundle import load_task

    models = models or (16 if attack == "lira" else 2)
    if models < (4 if attack == "lira" else 1):
        raise HansaError(
            f"{attack} cannot work with {models} shadow models",
            fix="use at least 4 for lira, or rmia with 1 to 4",
        )
    task = load_task(job) if task is None else task
    key = ReplayKey.of_seed(seed).derive("membership")
    names = population_of(job, task)
    job = replace(job, evaluate_every=0, defend=replace(job.defend, rollback=0.0))

    def trained(part: Callable[[str, int], Vector], number: int) -> Vector:
        chosen = Resampled(task, part)
        found = simulate(job, seed=seed + number, task=chosen, masked=False)  # type: ignore[arg-type]
        return found.state.params

    def divided(name: str, count: int) -> list[Vector]:
        order = key.generator("division", name).permutation(count)
        return np.split(order, [count // 2, count * 3 // 4])

    def coins(name: str, count: int) -> Coins:
        return key.generator("coins", name).integers(0, 2, count // 2).astype(np.bool_)

    def members(name: str, count: int) -> Vector:
        chosen: Vector = divided(name, count)[0][coins(name, count)]
        return chosen

    def shadow(number: int) -> Callable[[str, int], Vector]:
        def pick(name: str, count: int) -> Vector:
            rows = divided(name, count)[1]
            rng = key.generator("shadow", number, name)
            chosen: Vector = rng.permutation(rows)[: max(1, 2 * len(rows) // 3)]
            return chosen

        return pick

    target = trained(members, 0)
    shadows = [trained(shadow(i), i + 1) for i in range(models)]
    rows = {name: pool(task.data(Site(name, {}))) for name in names}
    attacked = joined([rows[n].take(divided(n, len(rows[n]))[0]) for n in names])
    spare = joined([rows[n].take(divided(n, len(rows[n]))[2]) for n in names])
    inside = np.concatenate([coins(n, len(rows[n])) for n in names])

    def told(params: Vector, examples: Examples) -> Floats:
        return confidence(task.predict(params, examples))

    own = told(target, attacked)
    outside = np.stack([told(params, attacked) for params in shadows])
    if attack == "lira":
        scores = lira(own, outside)
    else:
        others = np.stack([told(params, spare) for params in shadows])
        scores = rmia(own, outside, told(target, spare), others)
    few = int((~inside).sum()) < 1000
    return Membership(
        attack=attack,
        models=models,
        members=int(inside.sum()),
        others=int((~inside).sum()),
        tpr_at_1_percent=tpr(scores, inside, 0.01),
        tpr_at_1_per_mille=None if few else tpr(scores, inside, 0.001),
    )


def confidence(outputs: Outputs) -> Floats:
    """(n,) probability of the true class, away from 0 and 1."""
    right = outputs.probabilities[np.arange(len(outputs.targets)), outputs.targets]
    found: Floats = np.clip(right.astype(np.float64), 1e-7, 1 - 1e-7)
    return found


def lira(target: Floats, shadows: Floats) -> Floats:
    """(n,) scores, higher for likely members.

    Args:
      target: (n,) probabilities of the true class by the attacked model.
      shadows: (k, n) by models that were not trained on these examples.
    """
    own, outside = np.log(target / (1 - target)), np.log(shadows / (1 - shadows))
    centred = outside - outside.mean(axis=0)
    spread = float(np.sqrt((centred**2).sum() / max(centred.size - centred.shape[1], 1)))
    scores: Floats = (own - outside.mean(axis=0)) / max(spread, 1e-9)
    return scores


def rmia(target: Floats, shadows: Floats, others: Floats, others_shadows: Floats) -> Floats:
    """(n,) scores from 0 to 1, higher for likely members.

    Args:
      target: (n,) probabilities of the true class by the attacked model.
      shadows: (k, n) by models that were not trained on these examples.
      others: (z,) by the attacked model, for examples that nobody was trained on.
      others_shadows: (k, z) by the others.
    """

    def ratio(own: Floats, outside: Floats) -> Floats:
        usual = ((1 + _OFFLINE) * outside.mean(axis=0) + (1 - _OFFLINE)) / 2
        found: Floats = own / usual
        return found

    compared = np.sort(ratio(others, others_shadows))
    place = np.searchsorted(compared, ratio(target, shadows), side="right")
    return np.asarray(place / len(compared), np.float64)


def tpr(scores: Floats, members: Coins, false_alarms: float) -> float:
    """Share of members above the threshold that at most this share of the others exceeds."""
    others = np.sort(scores[~members])[::-1]
    allowed = int(false_alarms * len(others))
    return float((scores[members] > others[min(allowed, len(others) - 1)]).mean())


def pool(split: Split) -> Examples:
    """All examples of a client."""
    return joined([split.train, split.test])


def joined(parts: list[Examples]) -> Examples:
    """Examples one after the other."""
    return Examples(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.targets for part in parts]),
    )
