"""Groups of clients that take turns: for devices that volunteer and cannot be sampled.

No chance is counted on. What holds is a participation schema: between two rounds of one client lie
at least so many rounds, whoever attends (Choquette-Choo et al., NeurIPS 2023, arXiv 2306.08153).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hansa.core import events
from hansa.core.events import Event, NoOp, PoissonSampled
from hansa.core.keys import ReplayKey
from hansa.core.parts import Relation
from hansa.errors import PlanError
from hansa.samplers.present import check_population, check_present, present


@dataclass(frozen=True, slots=True)
class Cyclic:
    """Round r takes group r mod b of the population, everybody of it or a Poisson sample.

    The places of the population are shuffled once, by the job's seed, and dealt out into b groups
    whose sizes differ by one at most. One client takes part in at most ceil(T / b) of T
    consecutive rounds, and two of its rounds are at least b apart. A round that is tried again
    takes the same group again.

    | rate  | who takes part          | event of a round     | valid for                         |
    |-------|-------------------------|----------------------|-----------------------------------|
    | 1     | the whole group         | the event itself     | any noise                         |
    | q < 1 | each of it by chance q  | PoissonSampled(q, e) | independent noise; correlated     |
    |       |                         |                      | noise of at most b bands          |

    Sampling within a group amplifies like Poisson sampling, as each round samples anew and no round
    depends on who was drawn before (the amplified banded matrix mechanism of the same paper).
    Whether correlated noise has few enough bands for that is checked by who connects it.

    The coordinator counts the rounds, and a coordinator that lies could count wrong: a site keeps
    its own count and refuses a turn that comes too soon (`hansa.site.turns`).

    Attributes:
      separation: number of groups b, hence fewest rounds from one turn of a client to its next.
      population: number of clients N.
      rate: probability q of taking part in a round of the own group.
      seed: number that the groups are drawn from; they are no secret.
    """

    separation: int
    population: int
    rate: float = 1.0
    seed: int = 0

    def __str__(self) -> str:
        who = (
            "everybody in it takes part"
            if self.rate >= 1
            else f"each client in it takes part independently with probability {self.rate:g}"
        )
        return (
            f"cyclic, {self.population:,} clients in {self.separation:,} groups that take turns, "
            f"{who}; a client has at most one turn in {self.separation:,} rounds"
        )

    @property
    def relation(self) -> Relation:
        """A unit more or less."""
        return Relation.ADD_OR_REMOVE_ONE

    @property
    def expected(self) -> float:
        """Rate times the mean size of a group."""
        return self.rate * self.population / self.separation

    @property
    def cap(self) -> int:
        """The largest group."""
        return -(-self.population // self.separation)

    @property
    def fewest(self) -> int:
        """The smallest group."""
        return self.population // self.separation

    def check(self) -> None:
        """Raises PlanError if a group would be empty, or the rate is no probability."""
        check_population(self, self.population)
        if not 1 <= self.separation <= self.population:
            raise PlanError(
                self,
                f"{self.population} clients cannot form {self.separation} groups",
                f"set cohort.separation between 1 and {self.population}",
            )
        if not 0 < self.rate <= 1:
            raise PlanError(
                self,
                f"{self.rate:g} is not the probability of taking part",
                "set cohort.rate above 0 and at most 1, or leave it out for the whole group",
            )

    def group(self, number: int) -> NDArray[np.int64]:
        """Places in the population of the group whose turn round `number` is, in order."""
        shuffled = ReplayKey.of_seed(self.seed).generator("groups").permutation(self.population)
        return np.sort(shuffled[number % self.separation :: self.separation])

    def draw(self, population: Sequence[str], key: ReplayKey, number: int = 0) -> tuple[str, ...]:
        """Those of the round's group who are there and were drawn; possibly nobody.

        Raises:
          HansaError: more clients are there than the plan was made for.
        """
        check_present(population, self.population)
        group = self.group(number)
        if self.rate < 1:
            group = group[key.generator("cyclic").random(len(group)) < self.rate]
        return present(population, group)

    def amplify(self, event: Event) -> Event:
        """The event itself, or the event on a Poisson sample of the group."""
        if self.rate >= 1 or isinstance(event, NoOp) or not events.is_private(event):
            return event
        return PoissonSampled(self.rate, event)

    def participations(self, rounds: int) -> int:
        """ceil(rounds / separation)."""
        return math.ceil(rounds / self.separation)
