"""The rules that jobs name, each with what it needs and what it promises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from hansa.aggregators.robust.by_coordinate import median, trimmed_mean
from hansa.aggregators.robust.by_distance import bulyan, krum, multi_krum
from hansa.aggregators.robust.centres import centered_clipping, geometric_median
from hansa.aggregators.robust.similarity import flame, foolsgold
from hansa.aggregators.robust.spectral import dnc
from hansa.core.keys import ReplayKey
from hansa.core.vector import Vector

Rows: TypeAlias = Sequence[Vector]

CLIPPINGS = 3
"""Iterations of centred clipping in a round: it starts from the median, not from the last round."""


@dataclass(frozen=True, slots=True)
class Center:
    """One rule.

    Attributes:
      name: as it is called in sentences.
      find: (d,) float32 centre of the rows, of which so many may be bad.
      least: fewest rows that bear so many bad ones.
      counts: whether it must be told how many may be bad.
      mixes: whether mixing may come before it: rules that look for likeness would see nothing else.
      proved: whether its bound is proved against everybody.
    """

    name: str
    find: Callable[[Rows, int], Vector]
    least: Callable[[int], int]
    counts: bool = True
    mixes: bool = True
    proved: bool = True


def clipped(rows: Rows) -> Vector:
    """(d,): centred clipping from the median of each coordinate, by the median distance from it.

    Where the paper starts from the last round's result, this keeps nothing between rounds.
    """
    start = median(rows)
    gaps = [float(np.linalg.norm((row - start).astype(np.float64))) for row in rows]
    radius = float(np.median(gaps))
    return centered_clipping(rows, radius, start, iterations=CLIPPINGS) if radius else start


def key_of(rows: Rows) -> ReplayKey:
    """A key that nobody knows before all updates have come: their hash, in an order of its own.

    Whoever knows all other updates could try many of its own; whoever does not cannot choose.
    """
    each = sorted(hashlib.sha256(np.ascontiguousarray(row, "<f4").data).digest() for row in rows)
    return ReplayKey(hashlib.sha256(b"".join(each)).digest())


def _most(bad: int) -> int:
    return 2 * bad + 1


CENTERS: Mapping[str, Center] = {
    "median": Center("the median", lambda rows, _: median(rows), _most, counts=False),
    "trimmed_mean": Center("the trimmed mean", trimmed_mean, _most),
    "krum": Center("Krum", krum, lambda bad: 2 * bad + 3),
    "multi_krum": Center("multi-Krum", multi_krum, lambda bad: 2 * bad + 3),
    "bulyan": Center("Bulyan", bulyan, lambda bad: 4 * bad + 3),
    "geometric_median": Center(
        "the geometric median", lambda rows, _: geometric_median(rows), _most, counts=False
    ),
    "centered_clipping": Center(
        "centred clipping", lambda rows, _: clipped(rows), _most, counts=False
    ),
    "dnc": Center(
        "DnC", lambda rows, bad: dnc(rows, bad, key_of(rows)), lambda bad: 3 * bad + 1, proved=False
    ),
    "flame": Center(
        "FLAME",
        lambda rows, _: flame(rows, key_of(rows)),
        _most,
        counts=False,
        mixes=False,
        proved=False,
    ),
    "foolsgold": Center(
        "FoolsGold",
        lambda rows, _: foolsgold(rows),
        lambda _: 1,
        counts=False,
        mixes=False,
        proved=False,
    ),
}
"""By the word of `aggregation.rule`."""
