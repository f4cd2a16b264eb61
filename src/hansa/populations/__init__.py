"""Client populations for simulation: how examples are divided, and what a division looks like."""

from __future__ import annotations

from hansa.populations.partition import dealt, dirichlet, iid, natural, quantity, shards
from hansa.populations.picture import picture
from hansa.populations.spread import Spread, counts_of, evenly, spread_of

__all__ = [
    "Spread",
    "counts_of",
    "dealt",
    "dirichlet",
    "evenly",
    "iid",
    "natural",
    "picture",
    "quantity",
    "shards",
    "spread_of",
]
