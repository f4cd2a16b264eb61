"""Dividing examples among clients: evenly, by class, by size, or as they belong together.

Each function gives one array of positions per client; together they hold every position once.

| function    | clients differ in                   | as in                                      |
|-------------|-------------------------------------|--------------------------------------------|
| `iid`       | nothing                             | McMahan et al., AISTATS 2017               |
| `shards`    | which few classes they have         | McMahan et al., AISTATS 2017               |
| `dirichlet` | their mix of classes and their size | Yurochkin et al., ICML 2019                |
| `quantity`  | their size alone                    | Li, Diao, Chen and He, ICDE 2022           |
| `natural`   | whatever their keys say             | LEAF: Caldas et al., 2018                  |
| `dealt`     | which whole groups they have        | cross-silo: one site serves many people    |
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.errors import HansaError

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


def quantity(labels: Array, clients: int, key: ReplayKey, alpha: float = 0.5) -> list[Array]:
    """Shuffled, and cut by shares drawn from a Dirichlet distribution: sizes differ, mixes do not.

    Args:
      labels: (n,) classes; only how many there are matters.
      clients: number of clients; one may get nothing.
      key: what the draws follow from.
      alpha: concentration: small = few clients have most examples, large = as `iid`.
    """
    rng = key.generator("quantity")
    order = rng.permutation(len(labels))
    shares = rng.dirichlet(np.full(clients, alpha))
    return np.split(order, np.round(np.cumsum(shares)[:-1] * len(order)).astype(np.int64))


def natural(keys: Array) -> dict[str, Array]:
    """One client for each key, such as the writer of a digit or the speaker of a line.

    Args:
      keys: (n,) whose example each is.

    Returns:
      Positions by key, in the keys' own order.
    """
    named, place = np.unique(keys, return_inverse=True)
    order = np.argsort(place, kind="stable")
    cuts = np.cumsum(np.bincount(place, minlength=len(named)))[:-1]
    return dict(zip(map(str, named), np.split(order, cuts), strict=True))


def dealt(keys: Array, clients: int, key: ReplayKey) -> list[Array]:
    """Whole groups, the largest first, each to the client that has fewest examples so far.

    Args:
      keys: (n,) whose example each is: all examples of one key stay together.
      clients: number of clients.
      key: what ties are broken by.

    Raises:
      HansaError: there are fewer groups than clients.
    """
    groups = natural(keys)
    if len(groups) < clients:
        raise HansaError(
            f"{len(groups)} groups that stay together cannot be dealt to {clients} clients",
            fix=f"use at most {len(groups)} clients, or keys that tell more groups apart",
        )
    rng = key.generator("dealt")
    ties = dict(zip(groups, rng.permutation(len(groups)).tolist(), strict=True))
    loads = [(0, client) for client in rng.permutation(clients).tolist()]
    heapq.heapify(loads)
    parts: list[list[Array]] = [[] for _ in range(clients)]
    for name in sorted(groups, key=lambda name: (-len(groups[name]), ties[name])):
        load, client = heapq.heappop(loads)
        parts[client].append(groups[name])
        heapq.heappush(loads, (load + len(groups[name]), client))
    return [np.concatenate(part) for part in parts]
