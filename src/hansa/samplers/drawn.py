"""Cohorts that the coordinator draws: everyone, Poisson samples, and samples of a fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hansa.core import events
from hansa.core.events import (
    Event,
    NoOp,
    PoissonSampled,
    SampledWithoutReplacement,
    TruncatedSubsampledGaussian,
)
from hansa.core.keys import ReplayKey
from hansa.core.parts import Relation
from hansa.errors import PlanError
from hansa.privacy.joint import joint
from hansa.samplers.present import check_population, check_present, present


@dataclass(frozen=True, slots=True)
class Everyone:
    """All clients in each round: no amplification.

    Attributes:
      population: number of clients.
    """

    population: int

    def __str__(self) -> str:
        return f"none, all {self.population:,} clients take part in each round"

    @property
    def relation(self) -> Relation:
        """A unit more or less."""
        return Relation.ADD_OR_REMOVE_ONE

    @property
    def expected(self) -> float:
        """The whole population."""
        return float(self.population)

    @property
    def cap(self) -> int:
        """The whole population."""
        return self.population

    def check(self) -> None:
        """Raises PlanError if there is nobody."""
        check_population(self, self.population)

    def draw(self, population: Sequence[str], key: ReplayKey, number: int = 0) -> tuple[str, ...]:  # noqa: ARG002  # the seam's signature
        """Everyone who is there.

        Raises:
          HansaError: more clients are there than the plan was made for.
        """
        check_present(population, self.population)
        return tuple(population)

    def amplify(self, event: Event) -> Event:
        """The event itself."""
        return event

    def participations(self, rounds: int) -> int:
        """All of them."""
        return rounds


@dataclass(frozen=True, slots=True)
class Poisson:
    """Each client takes part independently with probability `rate`.

    With a limit, a draw that is larger is cut to a random subset of that size. This is no longer
    Poisson sampling and has its own event (Ganesh, 2025, arXiv 2508.15089); a limit under
    qN + 5 sqrt(qN) would cost several times the epsilon and is refused.

    Attributes:
      rate: probability q of taking part.
      population: number of clients N.
      limit: most clients in a round; 0 = no limit.
    """

    rate: float
    population: int
    limit: int = 0

    def __str__(self) -> str:
        cut = f", at most {self.limit:,}" if self.limit else ""
        return (
            f"Poisson, each of {self.population:,} clients takes part independently with "
            f"probability {self.rate:g}{cut}"
        )

    @property
    def relation(self) -> Relation:
        """A unit more or less."""
        return Relation.ADD_OR_REMOVE_ONE

    @property
    def expected(self) -> float:
        """Rate times population."""
        return self.rate * self.population

    @property
    def cap(self) -> int:
        """The limit, or everyone."""
        return min(self.limit, self.population) if self.limit else self.population

    def check(self) -> None:
        """Raises PlanError if the rate is no probability, or the limit would often cut."""
        check_population(self, self.population)
        if not 0 < self.rate <= 1:
            raise PlanError(
                self,
                f"{self.rate:g} is not the probability of taking part",
                "set cohort.rate above 0 and at most 1",
            )
        least = math.ceil(self.expected + 5 * math.sqrt(self.expected))
        if self.limit and self.limit < min(least, self.population):
            raise PlanError(
                self,
                f"a limit of {self.limit} clients cuts draws too often: {self.expected:g} are "
                "expected, and cutting them costs privacy",
                f"set cohort.cap to at least {min(least, self.population)}, or to 0",
            )

    def draw(self, population: Sequence[str], key: ReplayKey, number: int = 0) -> tuple[str, ...]:  # noqa: ARG002  # all rounds are alike
        """Those who were drawn, in the population's order; possibly nobody.

        Raises:
          HansaError: more clients are there than the plan was made for.
        """
        check_present(population, self.population)
        rng = key.generator("poisson")
        drawn = np.flatnonzero(rng.random(self.population) < self.rate)
        if len(drawn) > self.cap:
            drawn = rng.choice(drawn, self.cap, replace=False)
        return present(population, drawn)

    def amplify(self, event: Event) -> Event:
        """The event under Poisson sampling, cut off at the limit.

        Raises:
          PlanError: there is a limit, and the event is not Gaussian noise.
        """
        if isinstance(event, NoOp) or not events.is_private(event):
            return event
        if not self.limit or self.limit >= self.population:
            return PoissonSampled(self.rate, event)
        gaussian = joint(event)
        if gaussian is None:
            raise PlanError(
                self,
                f"no amplification is known for {type(event).__name__} where draws are cut",
                "set cohort.cap = 0",
            )
        return TruncatedSubsampledGaussian(
            self.population, self.rate, self.limit, gaussian.noise_multiplier
        )

    def participations(self, rounds: int) -> int:
        """All of them: chance keeps nobody out."""
        return rounds


@dataclass(frozen=True, slots=True)
class FixedSize:
    """Exactly `size` different clients, each set of them equally likely.

    With over-selection more clients are asked than are counted, and the slowest are left out.
    Who is slow is not random, so no amplification can be claimed for who was left in.

    Attributes:
      size: clients that count in a round.
      population: number of clients.
      over_selection: how many are asked, relative to `size`.
    """

    size: int
    population: int
    over_selection: float = 1.0

    def __str__(self) -> str:
        asked = f", {self.cap:,} are asked and the slowest left out" if self._over else ""
        size, population = f"{self.size:,}", f"{self.population:,}"
        return f"without replacement, {size} of {population} clients in each round{asked}"

    @property
    def relation(self) -> Relation:
        """A unit replaced: the number of clients is the same on both sides."""
        return Relation.REPLACE_ONE

    @property
    def expected(self) -> float:
        """The size."""
        return float(self.size)

    @property
    def cap(self) -> int:
        """As many as are asked."""
        return min(math.ceil(self.size * self.over_selection), self.population)

    def check(self) -> None:
        """Raises PlanError if so many cannot be drawn."""
        check_population(self, self.population)
        if not 1 <= self.size <= self.population:
            raise PlanError(
                self,
                f"{self.size} different clients cannot be drawn from {self.population}",
                f"set cohort.size between 1 and {self.population}",
            )
        if not 1 <= self.over_selection < math.inf:
            raise PlanError(
                self,
                f"{self.over_selection:g} times the clients is fewer than count",
                "set cohort.over_selection to at least 1",
            )

    def draw(self, population: Sequence[str], key: ReplayKey, number: int = 0) -> tuple[str, ...]:  # noqa: ARG002  # all rounds are alike
        """Those who were drawn, in the population's order.

        Raises:
          HansaError: more clients are there than the plan was made for.
        """
        check_present(population, self.population)
        rng = key.generator("fixed")
        return present(population, rng.choice(self.population, self.cap, replace=False))

    def amplify(self, event: Event) -> Event:
        """The event under sampling without replacement.

        Raises:
          PlanError: privacy is claimed for a cohort that is not a random one.
        """
        if isinstance(event, NoOp) or not events.is_private(event):
            return event
        if self._over:
            raise PlanError(
                self,
                "who is left out of an over-selected round is not random but slow, so sampling "
                "amplifies nothing",
                "set cohort.over_selection = 1",
            )
        return SampledWithoutReplacement(self.population, self.size, event)

    def participations(self, rounds: int) -> int:
        """All of them: chance keeps nobody out."""
        return rounds

    @property
    def _over(self) -> bool:
        return self.over_selection > 1
