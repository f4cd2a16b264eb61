"""Blocks: a fixed amount of privacy for whatever a federation, an owner or a purpose uses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

from hansa.core import canonical
from hansa.core.canonical import Json
from hansa.core.parts import Relation
from hansa.errors import Refused

MICRO: Final = 1_000_000
"""Micro-RDP in one unit of Renyi divergence."""

ORDERS: Final = tuple(range(2, 257))
"""Orders that a block can have: those at which every event of ours can be counted."""

LARGEST: Final = 2**53
"""Micro-RDP that any capacity stays below, so that every database and JSON reader holds it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A budget that all jobs share whose words match; nothing of it ever changes.

    | selector   | an empty one matches any job, else a job matches if ...        |
    |------------|----------------------------------------------------------------|
    | population | it runs in the federation of that name                         |
    | owner      | the site of that name takes part                               |
    | purpose    | its `[privacy] purpose` is that text                           |

    Attributes:
      name: of the block.
      unit: whose presence is hidden, as in `[privacy] unit`.
      relation: the two datasets that are compared.
      epsilon: what all jobs together may not exceed, at `delta`.
      delta: probability with which epsilon may not hold.
      order: Renyi order that everything is counted at, from 2 to 256.
      population: see above.
      owner: see above.
      purpose: see above.

    Raises:
      Refused: a word is impossible, or the order leaves nothing of epsilon.
    """

    name: str
    unit: str
    relation: Relation
    epsilon: float
    delta: float
    order: int
    population: str = ""
    owner: str = ""
    purpose: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Refused(
                f"a block cannot have the name {self.name!r}",
                fix="use 1 to 64 letters, digits, dashes, dots or underscores",
            )
        if self.unit not in ("client", "example"):
            raise Refused(f"{self.unit!r} is no unit", fix="use client or example")
        if not 0 < self.epsilon < math.inf or not 0 < self.delta < 1:
            raise Refused(
                f"epsilon {self.epsilon:g} at delta {self.delta:g} promises nothing",
                fix="use a finite epsilon above 0 and a delta above 0 and well below 1 / units",
            )
        if self.order not in ORDERS:
            raise Refused(f"{self.order!r} is no Renyi order", fix="use a whole number, 2 to 256")
        if self.capacity <= 0:
            raise Refused(
                f"at order {self.order} nothing is left of epsilon {self.epsilon:g} at delta "
                f"{self.delta:g}",
                fix="use a larger order, or leave it out, so that it is chosen for you",
            )

    @cached_property
    def capacity(self) -> int:
        """All that may be spent, in micro-RDP."""
        return capacity(self.order, self.epsilon, self.delta)

    def epsilon_of(self, urdp: int) -> float:
        """Epsilon at the block's delta once so much is spent."""
        return epsilon_of(urdp, self.order, self.delta)

    def matches(self, population: str, owners: frozenset[str], purpose: str) -> bool:
        """Whether a job draws from this block.

        Args:
          population: name of the federation.
          owners: the sites that take part.
          purpose: of the job.
        """
        return (
            self.population in ("", population)
            and (not self.owner or self.owner in owners)
            and self.purpose in ("", purpose)
        )

    @property
    def words(self) -> dict[str, Json]:
        """The block as JSON."""
        return {f.name: canonical.plain(getattr(self, f.name)) for f in fields(self)}


def block_of(words: Mapping[str, Any]) -> Block:
    """Reads a block back from its JSON.

    Raises:
      Refused: a word is missing, unknown or impossible.
    """
    known = {f.name: f for f in fields(Block)}
    kinds = {"epsilon": (int, float), "delta": (int, float), "order": (int,)}
    for name, value in words.items():
        if name not in known or (
            not isinstance(value, kinds.get(name, (str,))) or isinstance(value, bool)
        ):
            raise Refused(
                f"{name} = {value!r} is no word of a block", fix=f"use {', '.join(known)}"
            )
    missing = [
        n for n in ("name", "unit", "relation", "epsilon", "delta", "order") if n not in words
    ]
    if missing:
        raise Refused(f"a block needs {', '.join(missing)}", fix="say all of them")
    numbers = {"epsilon": _number(words["epsilon"]), "delta": _number(words["delta"])}
    return Block(**{**words, **numbers, "relation": relation_of(words["relation"])})


def relation_of(word: str) -> Relation:
    """The relation of that name.

    Raises:
      Refused: there is none.
    """
    relations = {relation.name.lower(): relation for relation in Relation}
    if word not in relations:
        raise Refused(f"{word!r} is no relation", fix=f"use one of {', '.join(relations)}")
    return relations[word]


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


# ------------------------------------------------------------------ RDP at one order <-> epsilon


def capacity(order: int, epsilon: float, delta: float) -> int:
    """The most micro-RDP at `order` that still gives (epsilon, delta); rounded down.

    The inverse of `epsilon_of`, which holds for

        R = epsilon - log(1 - 1/a) + log(delta a) / (a - 1)     or     R = -log(1 - delta**2)

    whichever is larger. Nothing, if even R = 0 gives more than epsilon.
    """
    by_order = epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)
    by_kl = -math.log1p(-(delta**2))
    found = min(math.floor(MICRO * max(by_order, by_kl)), LARGEST)
    while found > 0 and epsilon_of(found, order, delta) > epsilon:
        found -= 1  # the last bit of a logarithm
    return max(found, 0)


def epsilon_of(urdp: int, order: int, delta: float) -> float:
    """Epsilon at `delta` of anything with that Renyi divergence at that one order a.

        epsilon = R + log(1 - 1/a) - log(delta a) / (a - 1)

    (Canonne, Kamath and Steinke, NeurIPS 2020, arXiv 2004.00010, proposition 12), and 0 where the
    total variation distance is at most delta, by delta <= sqrt(1 - exp(-R)) (Bretagnolle and
    Huber). It is what `compute_epsilon` of dp-accounting gives for one order.

    Args:
      urdp: R in micro-RDP.
      order: a, above 1.
      delta: probability with which epsilon may not hold.
    """
    divergence = urdp / MICRO
    if delta**2 + math.expm1(-divergence) > 0:
        return 0.0
    found = divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
    return max(found, 0.0)
