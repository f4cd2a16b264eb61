"""Who is whose neighbour: a ring in random order, each tied to the nearest on both sides.

The order comes from the hash over all adverts. A coordinator that lies can try it out beforehand:
with other cohorts, with adverts of a client that helps it, and with hashes that belong to no advert
at all, as nobody sees more than its neighbours'. Each doubling of that work takes one bit from the
safety of a sparse graph, which holds in full, as in Bell et al., where the coordinator is honest
while it fixes the cohort. A complete graph has no order to choose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from hansa.secagg.parameters import Scheme


@dataclass(frozen=True, slots=True)
class Graph:
    """A Harary graph: node i of the ring and its degree / 2 neighbours to either side.

    Attributes:
      scheme: number of nodes and degree.
      order: (n,) the nodes around the ring.
      places: (n,) where each node stands on it.
    """

    scheme: Scheme
    order: tuple[int, ...]
    places: tuple[int, ...]

    def neighbours(self, node: int) -> frozenset[int]:
        """Everybody that a node shares masks with."""
        if self.scheme.complete:
            return frozenset(self.order) - {node}
        place, half = self.places[node], self.scheme.degree // 2
        steps = [step for step in range(-half, half + 1) if step]
        return frozenset(self.order[(place + step) % len(self.order)] for step in steps)


@lru_cache(maxsize=8)
def draw(scheme: Scheme, root: bytes) -> Graph:
    """The graph of a cohort whose adverts have this hash; everybody draws the same."""
    order = list(range(scheme.clients))
    if not scheme.complete:
        numbers = _numbers(hashlib.sha256(b"hansa/secagg/graph/1\0" + root).digest())
        for last in range(len(order) - 1, 0, -1):  # Fisher and Yates
            other = next(numbers) % (last + 1)
            order[last], order[other] = order[other], order[last]
    places = [0] * len(order)
    for place, node in enumerate(order):
        places[node] = place
    return Graph(scheme, tuple(order), tuple(places))


def _numbers(seed: bytes) -> Iterator[int]:
    """Numbers of 64 bits; modulo at most 2**14 nodes their bias is below 2**-50."""
    for count in range(1 << 20):
        block = hashlib.sha256(seed + count.to_bytes(4, "big")).digest()
        for start in range(0, 32, 8):
            yield int.from_bytes(block[start : start + 8], "big")
