"""What a run's data were: a digest of each client's examples, as far as there was time to read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from hansa.core.parts import Site, Split, Task

SECONDS = 0.2
"""Time for reading; one client is always read. All clients are, where data are read fast."""


def fingerprints(
    task: Task, population: Sequence[str], seconds: float = SECONDS
) -> dict[str, str | None]:
    """Digests of clients' examples, spread evenly over the population.

    Args:
      task: reads the data.
      population: names of the clients.
      seconds: after which no more clients are read.

    Returns:
      SHA-256 by client; None for a client whose data cannot be read.
    """
    ends, found = time.monotonic() + seconds, dict[str, str | None]()
    for client in spread(population):
        found[client] = fingerprint(task, client)
        if time.monotonic() > ends:
            break
    return found


def differing(task: Task, known: Mapping[str, str | None]) -> list[str]:
    """Clients whose examples are not those that were recorded."""
    return [client for client, digest in known.items() if fingerprint(task, client) != digest]


def fingerprint(task: Task, client: str) -> str | None:
    """SHA-256 of one client's examples: types, shapes and bytes of all four arrays."""
    try:
        return _digest(task.data(Site(client, MappingProxyType({}))))
    except Exception:  # noqa: BLE001  a client that fails is a dropout, not the end of a run
        return None


def spread(names: Sequence[str]) -> Iterator[str]:
    """All names, in an order whose every beginning is spread over the whole: 0, 1/2, 1/4, 3/4."""
    size = len(names)
    bits = max(1, (size - 1).bit_length())
    for number in range(1 << bits):
        at = int(f"{number:0{bits}b}"[::-1], 2)
        if at < size:
            yield names[at]


def _digest(split: Split) -> str:
    digest = hashlib.sha256()
    for part in (split.train, split.test):
        for array in (part.inputs, part.targets):
            values = np.ascontiguousarray(array)
            digest.update(f"{values.dtype.str}{values.shape}".encode())
            digest.update(values.data if values.size else b"")
    return digest.hexdigest()
