"""Whoever is quick: the first updates that arrive make a round, and nothing is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa.core.arrival import Buffer
from hansa.core.events import Event
from hansa.core.keys import ReplayKey
from hansa.core.parts import Relation
from hansa.errors import PlanError
from hansa.samplers.present import check_population, check_present, present


@dataclass(frozen=True, slots=True)
class Arrival:
    """A round is the first K updates that arrive; each client is in it at most once.

    Who is quick is not random, so nothing is amplified, and one client can be in every round. Its
    influence on a round is one update, multiplied by at most 1. What is compared are federations
    in which one client's data are replaced by others *and the order of arrivals stays*: how long a
    client takes is assumed not to depend on its data.

    Only a measurement of the final model draws a cohort: K clients, without replacement.

    Attributes:
      buffer: K and who is at work.
      population: number of clients.
    """

    buffer: Buffer
    population: int

    def __str__(self) -> str:
        size, most = f"{self.buffer.size:,}", f"{self.buffer.concurrency:,}"
        return (
            f"none, the first {size} updates to arrive make a round, of at most {most} of "
            f"{self.population:,} clients at work; a client can be in each round, once"
        )

    @property
    def relation(self) -> Relation:
        """A unit replaced: a buffer holds as many updates on both sides."""
        return Relation.REPLACE_ONE

    @property
    def expected(self) -> float:
        """The size of the buffer."""
        return float(self.buffer.size)

    @property
    def cap(self) -> int:
        """The size of the buffer."""
        return self.buffer.size

    def check(self) -> None:
        """Raises PlanError if the buffer could never be filled."""
        check_population(self, self.population)
        numbers = {"buffer": self.buffer.size, "concurrency": self.buffer.concurrency}
        for word, value in numbers.items():
            if not 1 <= value <= self.population:
                raise PlanError(
                    f"cohort.{word}",
                    f"of {value} cannot be had from {self.population} clients, each at most once",
                    f"set it between 1 and {self.population}",
                )
        if self.buffer.exponent < 0 or self.buffer.oldest < 0:
            raise PlanError(
                "cohort.staleness_exponent" if self.buffer.exponent < 0 else "cohort.max_staleness",
                "below 0 would count an old update for more than a fresh one, or none at all",
                "set it to 0 or more",
            )

    def draw(self, population: Sequence[str], key: ReplayKey, number: int = 0) -> tuple[str, ...]:  # noqa: ARG002  # all measurements are alike
        """K clients, for a measurement, in the population's order.

        Raises:
          HansaError: more clients are there than the plan was made for.
        """
        check_present(population, self.population)
        rng = key.generator("measured")
        return present(population, rng.choice(self.population, self.buffer.size, replace=False))

    def amplify(self, event: Event) -> Event:
        """The event itself."""
        return event

    def participations(self, rounds: int) -> int:
        """All of them: a quick client can be in each."""
        return rounds
