"""How many neighbours and which threshold: what makes the protocol safe and what makes it work.

Up to `COMPLETE` clients everybody is everybody's neighbour (Bonawitz et al., CCS 2017, theorem
6.5). Beyond that each has `degree` neighbours on a random Harary graph (Bell et al., CCS 2020,
section 3), the smallest even number for which, except with probability 2**-40 (safety) and
2**-20 (it works), the honest survivors stay connected, nobody has too many corrupt neighbours,
and everybody keeps enough living ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from hansa.errors import Refused

COMPLETE: Final = 50
"""Most clients on a complete graph."""

SAFETY_BITS: Final = 40
CORRECTNESS_BITS: Final = 20

_NUDGE = 1e-14  # a share such as 0.33 of 100 clients is 33 of them, whatever float64 says


@dataclass(frozen=True, slots=True)
class Scheme:
    """Whom each client shares its secrets with.

    Attributes:
      clients: number of clients n.
      degree: neighbours of each.
      threshold: shares that give a secret back, and votes that a client wants to see.
    """

    clients: int
    degree: int
    threshold: int

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour; then each holds a share of its own, too."""
        return self.degree == self.clients - 1

    @property
    def holders(self) -> int:
        """Who holds a share of one client's secrets."""
        return self.clients if self.complete else self.degree


@dataclass(frozen=True, slots=True)
class Rule:
    """What is assumed about the cohort; all else follows from its size.

    Attributes:
      corrupt: largest share of clients that collude with the coordinator.
      dropouts: largest share of clients that vanish after they began.
      active: the coordinator may lie; otherwise it is only curious, and follows the protocol.
    """

    corrupt: float = 0.1
    dropouts: float = 0.2
    active: bool = True

    def scheme(self, clients: int) -> Scheme:
        """The graph's degree and the threshold for a cohort.

        Raises:
          Refused: no threshold is safe against the corrupt and reachable without the dropouts.
        """
        if not (0 <= self.corrupt < 1 and 0 <= self.dropouts < 1):
            raise Refused(
                f"shares of {self.corrupt:g} corrupt clients and {self.dropouts:g} dropouts make "
                "no sense",
                fix="set both to at least 0 and below 1",
            )
        sparse = find(clients, self) if clients > COMPLETE else None
        return sparse or _complete(clients, self)

    def corrupted(self, clients: int) -> int:
        """How many of a cohort may collude with the coordinator."""
        return math.floor((self.corrupt + _NUDGE) * clients)


def _complete(clients: int, rule: Rule) -> Scheme:
    corrupt = rule.corrupted(clients)
    survivors = clients - math.floor((rule.dropouts + _NUDGE) * clients)
    threshold = max((clients + corrupt) // 2 + 1 if rule.active else corrupt + 1, 2)
    if threshold > survivors:
        raise Refused(
            f"{clients} clients of which {corrupt} may be corrupt need a threshold of "
            f"{threshold}, but only {survivors} may be left",
            fix="assume fewer corrupt clients or fewer dropouts, or use a larger cohort",
        )
    return Scheme(clients, clients - 1, threshold)


@lru_cache(maxsize=1024)
def find(clients: int, rule: Rule) -> Scheme | None:
    """The sparse graph of a cohort; None if none is safe, so that the complete one is left.

    The algorithm is that of the parameter finder that Bell et al. published with their protocol.
    """
    corrupt = rule.corrupted(clients)
    survivors = math.ceil((1 - rule.dropouts - _NUDGE) * clients)
    bad = corrupt + math.floor((rule.dropouts + _NUDGE) * clients)
    safe = 2.0 ** -(SAFETY_BITS + 1) / clients
    works = 2.0**-CORRECTNESS_BITS / clients
    for degree in range(2, clients - 1, 2):
        if degree <= bad and _log_cut(clients, degree, bad) >= -(SAFETY_BITS + 1) * math.log(2):
            continue
        most_corrupt = _smallest_above(clients, corrupt, degree, safe)
        if rule.active:
            most_corrupt = math.ceil((most_corrupt + degree - 1.25) / 2)  # 2 t > degree + corrupt
        if _largest_below(clients, survivors, degree, works) > most_corrupt:
            return Scheme(clients, degree, max(most_corrupt + 1, 2))
    return None


def _log_cut(clients: int, degree: int, bad: int) -> float:
    """Logarithm of a bound on the chance that removing `bad` nodes cuts the graph apart."""
    return (
        math.log(clients)
        + math.log(clients - degree - 1)
        - math.log(2)
        + math.lgamma(bad + 1)
        + math.lgamma(clients - degree + 1)
        - math.lgamma(clients + 1)
        - math.lgamma(bad - degree + 1)
    )


def _smallest_above(clients: int, marked: int, drawn: int, chance: float) -> int:
    """The smallest x with P[more than x of the drawn are marked] <= chance."""
    above, x = 0.0, drawn
    while x >= 0 and above + _drawn(clients, marked, drawn, x) <= chance:
        above += _drawn(clients, marked, drawn, x)
        x -= 1
    return x


def _largest_below(clients: int, marked: int, drawn: int, chance: float) -> int:
    """The largest x with P[fewer than x of the drawn are marked] <= chance."""
    below, x = 0.0, 0
    while x < drawn and below + _drawn(clients, marked, drawn, x) <= chance:
        below += _drawn(clients, marked, drawn, x)
        x += 1
    return x


@lru_cache(maxsize=1 << 14)
def _drawn(clients: int, marked: int, drawn: int, x: int) -> float:
    """P[x of `drawn` clients are among the `marked`], without replacement: hypergeometric."""
    if x > marked or drawn - x > clients - marked:
        return 0.0
    return math.exp(
        _log_choose(marked, x)
        + _log_choose(clients - marked, drawn - x)
        - _log_choose(clients, drawn)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
