"""What is known about one client's update before any data exists."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf, sqrt
from typing import Final

from hansa.core.events import Event

TAIL: Final = 16.0
"""Standard deviations of noise that no honest sum exceeds."""

ROUNDED: Final = 1 + 1e-9
"""What float64 can add to a bound."""


class Domain(Enum):
    """The arithmetic in which updates are added."""

    REAL = "float"
    RING = "integers mod 2**bits"


class Held(Enum):
    """Who makes sure that the bound holds."""

    HONEST = "holds if the client is honest"
    CHECKED = "checked by the coordinator on every update"
    PROVED = "proved by the client without showing the update"


class Reader(Enum):
    """Who can read one client's update."""

    EACH = "the coordinator can read each client's update"
    SUM = "the coordinator can read only the sum over the cohort"


class Divisor(Enum):
    """What the sum is divided by to give a mean."""

    REALISED = "the realised weight of the clients that answered"
    FIXED = "a constant, whoever answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSpec:
    """Facts about one segment of one client's update, true for every possible dataset.

    Defaults are pessimistic: a part that forgets a fact loses a capability, never a guarantee.

    Attributes:
      segment: the named part of the update these facts are about: delta, weight or metrics.
      size: number of coordinates d.
      cohort: most clients summed in one round.
      domain: arithmetic of the sum.
      bits: modulus 2**bits when the domain is RING.
      l2: norm bound in model units, after everything the client does to it; inf = none.
      peak: bound on the absolute value of each coordinate in model units; inf = none.
      quantum: grid on which the sum is exact, in model units; 0 = no grid.
      weight: bound on a client's weight; inf = it reports what it likes.
      divisor: what the sum is divided by.
      held: who makes sure that `l2` holds.
      reader: who can read one client's update.
      quorum: fewest survivors whose sum is revealed.
      noise: standard deviation that each client has already added, in model units.
      reveals: what it tells at most of one training example of the client, whoever reads it and
        whatever is done with it; None = anything.
    """

    size: int
    cohort: int
    segment: str = "delta"
    domain: Domain = Domain.REAL
    bits: int = 0
    l2: float = inf
    peak: float = inf
    quantum: float = 0.0
    weight: float = inf
    divisor: Divisor = Divisor.REALISED
    held: Held = Held.HONEST
    reader: Reader = Reader.EACH
    quorum: int = 1
    noise: float = 0.0
    reveals: Event | None = None

    def possible(self, least: float, most: float, members: int) -> bool:
        """Whether honest clients can add up to a sum.

        Args:
          least: smallest coordinate of the sum, in model units.
          most: the largest.
          members: clients in the sum.
        """
        bound = (members * self.peak + TAIL * self.noise * sqrt(members)) * ROUNDED
        return (0.0 if self.segment == "weight" else -bound) <= least and most <= bound
