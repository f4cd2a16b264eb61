"""How much clients differ: in size and in their mix of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""(clients, classes): how many examples of each class each client has."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A division in numbers.

    Attributes:
      clients: how many there are.
      empty: clients without examples.
      examples: of all clients together.
      smallest: examples of the smallest client.
      median: of the one in the middle.
      largest: of the largest.
      inequality: Gini coefficient of the sizes: 0 = all equal, towards 1 = one has them all.
      classes: how many there are.
      classes_each: classes that a client has at least one example of, in the mean.
      distance: total variation distance between a client's mix of classes and that of all
        together, in the mean over examples: 0 = the same mix, 1 - 1/K = one of K equal classes.
    """

    clients: int
    empty: int
    examples: int
    smallest: int
    median: float
    largest: int
    inequality: float
    classes: int
    classes_each: float
    distance: float


def counts_of(labels: Sequence[NDArray[Any]]) -> tuple[Counts, tuple[int, ...]]:
    """Examples of each class at each client, and the classes.

    Args:
      labels: for each client the (n,) classes of its examples.
    """
    everything = np.concatenate([np.zeros(0, np.int64), *labels])
    classes = np.unique(everything)
    table = np.zeros((len(labels), len(classes)), np.int64)
    for row, mine in zip(table, labels, strict=True):
        place = np.searchsorted(classes, mine)
        row += np.bincount(place, minlength=len(classes))[: len(classes)]
    return table, tuple(int(each) for each in classes)


def spread_of(counts: Counts) -> Spread:
    """A division in numbers; of (clients, classes) counts with at least one client."""
    sizes = counts.sum(axis=1)
    held = counts[sizes > 0]
    return Spread(
        clients=len(counts),
        empty=int((sizes == 0).sum()),
        examples=int(sizes.sum()),
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        inequality=_gini(sizes),
        classes=int((counts.sum(axis=0) > 0).sum()),
        classes_each=float((held > 0).sum(axis=1).mean()) if len(held) else 0.0,
        distance=_distance(held),
    )


def evenly(count: int, most: int) -> list[int]:
    """Positions of at most `most` of `count` things, evenly from the first to the last."""
    if count <= most:
        return list(range(count))
    step = (count - 1) / max(most - 1, 1)
    return [round(step * place) for place in range(most)]


def _gini(sizes: NDArray[np.int64]) -> float:
    """Mean absolute difference between two clients' sizes, relative to twice their mean."""
    ordered, total = np.sort(sizes), int(sizes.sum())
    if not total:
        return 0.0
    n = len(ordered)
    ranks = 2 * np.arange(1, n + 1) - n - 1
    return float((ranks * ordered).sum() / (n * total))


def _distance(held: Counts) -> float:
    if not len(held):
        return 0.0
    whole = held.sum(axis=0) / held.sum()
    sizes = held.sum(axis=1)
    apart = np.abs(held / sizes[:, np.newaxis] - whole).sum(axis=1) / 2
    return float((apart * sizes).sum() / sizes.sum())
