"""Networks of comparators: which of n rows meet, so that they are sorted or parted in each column.

x0 ──┬──── min          A comparator puts the smaller of two rows first, in every column at
     │                  once. Which rows meet does not depend on values, so there are no
x1 ──┴──── max          branches, and NumPy computes each minimum with vector instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

Pair: TypeAlias = tuple[int, int]
"""Places of two rows: the smaller values go to the first place, the larger ones to the second."""


@dataclass(frozen=True, slots=True)
class Network:
    """Comparators, one after the other, and where they leave what.

    Attributes:
      pairs: what meets.
      places: places of the rows that are asked for.
      lowest: the place of the smallest row of all.
      highest: the place of the largest row of all.
    """

    pairs: tuple[Pair, ...]
    places: tuple[int, ...]
    lowest: int
    highest: int


def sorting(n: int) -> Network:
    """Sorts n rows by Batcher's odd-even merges (AFIPS 1968): places in ascending order.

    O(n log^2 n) comparators. Lists are split where that needs the fewest: 395 for 50 rows.
    """
    pairs, places = _sorted(range(n))
    return Network(tuple(pairs), tuple(places), places[0], places[-1])


def parting(n: int, drop: int) -> Network | None:
    """Parts n rows into the `drop` smallest, the `drop` largest, and the rest: places of the rest.

    Two lists a and b are sorted. The k smallest of both are the smaller ones of each a[i] and
    b[k - 1 - i], the first step of a bitonic merge, and the k largest are found likewise at the
    other ends. What is left meets no more, nor do those outside, but for the outermost.

    None where there are no ends, or those of a list would overlap: 4 drop > n.
    """
    split = max(_fewest(n)[1], 2 * drop)
    if not drop or split > n - split:
        return None
    first, a = _sorted(range(split))
    second, b = _sorted(range(split, n))
    smaller = list(zip(a[:drop], b[drop - 1 :: -1], strict=True))
    larger = list(zip(a[-drop:], b[: -drop - 1 : -1], strict=True))
    outside = {place for place, _ in smaller} | {place for _, place in larger}
    rest = tuple(place for place in range(n) if place not in outside)
    low, high = a[0], b[-1]  # the smallest is min(a[0], b[0]): in the first or the last pair
    outermost = [(low, a[drop - 1]), (b[-drop], high)] if drop > 1 else []
    return Network((*first, *second, *smaller, *larger, *outermost), rest, low, high)


def _sorted(places: Sequence[int]) -> tuple[list[Pair], list[int]]:
    """Comparators that sort what is at some places, and these places in ascending order."""
    if len(places) == 1:
        return [], list(places)
    split = _fewest(len(places))[1]
    first, a = _sorted(places[:split])
    second, b = _sorted(places[split:])
    last, order = _merged(a, b)
    return first + second + last, order


def _merged(a: list[int], b: list[int]) -> tuple[list[Pair], list[int]]:
    """Merges two sorted lists: those of even and of odd rank first, then neighbours meet."""
    if not a or not b:
        return [], a + b
    if len(a) == len(b) == 1:
        return [(a[0], b[0])], a + b
    pairs, even = _merged(a[::2], b[::2])
    others, odd = _merged(a[1::2], b[1::2])
    neighbours = list(zip(odd, even[1:], strict=False))
    order = [even[0], *(place for pair in neighbours for place in pair)]
    order += [*odd[len(neighbours) :], *even[len(neighbours) + 1 :]]
    return pairs + others + neighbours, order


@lru_cache(maxsize=4096)
def _fewest(n: int) -> tuple[int, int]:
    """How many comparators sort n rows, and how many of the rows are sorted apart first."""
    if n < 2:
        return 0, 0
    return min(
        (_fewest(split)[0] + _fewest(n - split)[0] + _merging(split, n - split), split)
        for split in range(1, n // 2 + 1)
    )


@lru_cache(maxsize=4096)
def _merging(m: int, n: int) -> int:
    """How many comparators merge lists of m and n (Knuth, volume 3, 5.3.4, equation 7)."""
    if m * n < 2:
        return m * n
    halves = _merging(m - m // 2, n - n // 2) + _merging(m // 2, n // 2)
    return halves + (m + n - 1) // 2
