"""What a model is worth to whom: accuracy by site and by class, and an attack's success."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.attacks.data import Poison
from hansa.core.parts import Model
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.redteam.division import Division

LEAST = 5
"""Held-out examples of a group below which its accuracy says nothing."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Right answers, of how many."""

    right: int
    of: int

    @property
    def share(self) -> float | None:
        """None where there is nothing to be right about."""
        return self.right / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class Worth:
    """What one model is worth.

    Attributes:
      sites: right answers on each client's held-out examples, as the client holds them.
      classes: the same by class, over all clients.
      cohorts: the same by what the task calls a cohort; empty if it names none.
      hits: held-out examples that came out as the attacker wants; None for an attack that wants
        no particular answer.
    """

    sites: Mapping[str, Counts] = field(repr=False)
    classes: Mapping[str, Counts] = field(repr=False)
    cohorts: Mapping[str, Counts] = field(repr=False)
    hits: Counts | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of all held-out examples that are right."""
        return added(self.sites.values()).share

    def over(self, sites: Iterable[str]) -> float | None:
        """Accuracy on the held-out examples of some sites."""
        return added(self.sites[site] for site in sites).share


def added(counts: Iterable[Counts]) -> Counts:
    """The counts of several groups together."""
    listed = list(counts)
    return Counts(sum(c.right for c in listed), sum(c.of for c in listed))


def worst(groups: Iterable[Counts]) -> float | None:
    """The accuracy of the worst group that has `LEAST` examples; None if there is no such."""
    return min((c.right / c.of for c in groups if c.of >= LEAST), default=None)


def worth(model: Model, params: Vector, division: Division, poison: Poison | None = None) -> Worth:
    """Measures a model on all held-out examples.

    Args:
      model: the mathematics of the task. If it has `cohorts(examples)`, which gives (n,) names,
        accuracy is measured by cohort, too.
      params: (d,) parameters.
      division: who holds what.
      poison: what bad clients did to their data: it knows what they want.
    """
    sites: dict[str, Counts] = {}
    classes: dict[str, Counts] = {}
    cohorts: dict[str, Counts] = {}
    named = getattr(model, "cohorts", None)
    for client in division.clients:
        test = division.data(client).test
        if not len(test):
            sites[client] = Counts(0, 0)
            continue
        said = model.predict(params, test).probabilities
        good = said.argmax(axis=1) == test.targets
        good &= np.isfinite(said).all(axis=1)  # a model that diverged says nothing
        sites[client] = Counts(int(good.sum()), len(test))
        _count(classes, test.targets.astype(np.int64), good)
        if named is not None:
            _count(cohorts, _names(named(test), len(test)), good)
    wanted = None if poison is None else hits(model, params, division, poison)
    return Worth(sites, classes, cohorts, wanted)


def _count(groups: dict[str, Counts], names: NDArray[Any], good: NDArray[np.bool_]) -> None:
    """Adds (n,) answers to the groups that they belong to."""
    for name in np.unique(names):
        mine = names == name
        more = Counts(int(good[mine].sum()), int(mine.sum()))
        groups[str(name)] = added((groups.get(str(name), Counts(0, 0)), more))


def _names(found: Any, examples: int) -> NDArray[Any]:
    """What a task's `cohorts` gave.

    Raises:
      HansaError: it is not one name for each example.
    """
    names = np.asarray(found)
    if names.shape != (examples,):
        raise HansaError(
            f"the task's cohorts() gave {names.shape} names for {examples} examples",
            fix="let it give one name, or number, for each example",
        )
    return names


def hits(model: Model, params: Vector, division: Division, poison: Poison) -> Counts:
    """Held-out examples that come out as whoever poisoned the data wants, of those that could."""
    tests = [division.data(client).test for client in division.clients]
    return added(Counts(*poison.success(model, params, test)) for test in tests if len(test))
