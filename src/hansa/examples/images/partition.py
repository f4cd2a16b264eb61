"""Dividing labelled examples among clients: evenly, by Dirichlet, or by shards.

Each function gives one array of positions per client; together they hold every position once.

| function    | clients differ in                   | as in                                      |
|-------------|-------------------------------------|--------------------------------------------|
| `iid`       | nothing                             | McMahan et al., AISTATS 2017               |
| `shards`    | which few classes they have         | McMahan et al., AISTATS 2017               |
| `dirichlet` | their mix of classes and their size | Yurochkin et al., ICML 2019                |
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey

Array = NDArray[Any]


def iid(labels: Array, clients: int, key: ReplayKey) -> list[Array]:
    """Shuffled and dealt out: sizes differ by one at most."""
    return np.array_split(key.generator("iid").permutation(len(labels)), clients)


def shards(labels: Array, clients: int, key: ReplayKey, per_client: int = 2) -> list[Array]:
    """Sorted by class, cut into equal pieces, `per_client` pieces for each client.

    A client has examples of few classes: with as many pieces as fit into each class, of at most
    `per_client`.
    """
    rng = key.generator("shards")
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(by_class, clients * per_client)
    dealt = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [np.concatenate([pieces[i] for i in mine]) for mine in dealt]


def dirichlet(labels: Array, clients: int, key: ReplayKey, alpha: float = 0.3) -> list[Array]:
    """Each class is divided by shares drawn from a Dirichlet distribution.

    Args:
      labels: (n,) classes.
      clients: number of clients; one may get nothing.
      key: what the draws follow from.
      alpha: concentration: small = a class belongs to few clients, large = as `iid`.
    """
    rng = key.generator("dirichlet")
    parts: list[list[Array]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients, alpha))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return [np.concatenate(part) if part else np.zeros(0, np.int64) for part in parts]
