"""Rounds that are filled as updates arrive: buffered asynchronous training.

    at work:   a ────────┤   b ──┤   c ──────────────┤     at most `concurrency` clients
    round 0:   [ b  a ]                                    the first `size` updates
    round 1:                     [ d  c(1 round old) ]     an older one counts for less

FedBuff: Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022,
arXiv 2106.06639, Algorithm 1. A round is one buffer. Whoever is slow is not waited for: its update
counts in a later round, from the model that it began with. Staleness s is the number of rounds in
between, and the update is multiplied by 1 / sqrt(1 + s) (section 5 of the paper; other exponents
are the polynomial of Xie et al., "Asynchronous Federated Optimization", arXiv 1903.03934).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from hansa.core.job import Job
from hansa.core.keys import ReplayKey
from hansa.core.vector import Vector

SQUARE_ROOT = 0.5
"""The exponent of FedBuff."""

SPARE = 2
"""Names drawn for a round, for each that it can need: some of them are at work already."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """The words of `[cohort]` with `sampler = "arrival"`.

    Attributes:
      size: updates K that make a round.
      concurrency: most clients at work at one time.
      exponent: of the weight of an older update; 0 = it counts like a fresh one.
      oldest: most rounds that an update may be old; 0 = any number.
    """

    size: int
    concurrency: int
    exponent: float = SQUARE_ROOT
    oldest: int = 0

    @classmethod
    def of(cls, job: Job) -> Buffer | None:
        """The buffer of a job; None if its rounds are not filled by arrival."""
        words = job.cohort
        if words.sampler != "arrival":
            return None
        return cls(words.buffer, words.concurrency, words.staleness_exponent, words.max_staleness)

    def weight(self, age: int) -> float:
        """What an update is multiplied by that is `age` rounds old: 1 at age 0, never more.

        | age | exponent 0.5 | exponent 0 |
        |-----|--------------|------------|
        | 0   | 1            | 1          |
        | 1   | 0.7071...    | 1          |
        | 3   | 0.5          | 1          |
        """
        if self.exponent == SQUARE_ROOT:
            return 1 / math.sqrt(1 + age)  # correctly rounded, so the same on every machine
        return float((1 + age) ** -self.exponent)

    def too_old(self, age: int) -> bool:
        """Whether an update of that age does not count any more."""
        return 0 < self.oldest < age

    def queue(self, population: Sequence[str], key: ReplayKey, *, whole: bool) -> tuple[str, ...]:
        """Who is given work next, in this order, as far as it is not at work already.

        Args:
          population: who is there.
          key: what the order derives from.
          whole: everybody; else only as many as a round can need.
        """
        some = SPARE * (self.concurrency + self.size)
        most = len(population) if whole else min(len(population), some)
        order = key.generator("arrival").choice(len(population), most, replace=False)
        return tuple(population[place] for place in order.tolist())


@dataclass(frozen=True, slots=True)
class Flight:
    """A client at work, in a simulation.

    Attributes:
      client: its name.
      round: the round whose model it began with.
      attempt: the try at that round.
      ends: when its work is over, in virtual time.
      failure: why no update comes of it; empty if one does.
    """

    client: str
    round: int
    attempt: int
    ends: float
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """A model that clients at work began with: (d,) float32 `params`, and their SHA-256."""

    params: Vector = field(repr=False)
    model: str


@dataclass(frozen=True, slots=True)
class Flights:
    """Who is at work between two rounds of a simulation, and what time it is.

    Attributes:
      now: virtual time; seconds since the simulation began, where there are devices.
      flights: the clients, those that were given work first at the start.
      models: what they began with, by round.
    """

    now: float = 0.0
    flights: tuple[Flight, ...] = ()
    models: tuple[tuple[int, Begun], ...] = ()


def counts(ages: Mapping[int, int]) -> tuple[int, ...]:
    """How many updates were 0, 1, 2 and so on rounds old, from the numbers by age."""
    return tuple(ages.get(age, 0) for age in range(max(ages, default=-1) + 1))


def late(ages: Mapping[str, int]) -> Mapping[str, int]:
    """The ages of the updates that were not fresh, by client."""
    return MappingProxyType({client: age for client, age in sorted(ages.items()) if age})


def too_old_words(age: int) -> str:
    """Why an update of that age does not count."""
    return f"its model is {age} rounds old, more than max_staleness allows"
