"""Which client has which images: in a simulation by name, in a federation one file per site.

A client's name says all that its share follows from: `part-007-of-100` is the eighth of 100.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.errors import HansaError
from hansa.nearest import suggest
from hansa.populations.partition import dirichlet, iid, shards

from .fetch import Dataset, load, save

RULES: Mapping[str, Callable[[NDArray[Any], int, ReplayKey], list[NDArray[Any]]]] = {
    rule.__name__: rule for rule in (dirichlet, shards, iid)
}
"""How images can be divided, by name."""

_NAME = re.compile(r"part-(\d{1,6})-of-(\d{1,6})")


def names_of(clients: int) -> tuple[str, ...]:
    """The clients' names."""
    width = max(3, len(str(clients - 1)))
    return tuple(f"part-{i:0{width}}-of-{clients}" for i in range(clients))


def share_of(name: str, dataset: str = "mnist5k", rule: str = "dirichlet") -> Dataset:
    """A client's images.

    Training images are divided by the rule, the makers' test images evenly, so that the
    federation's measurement is over the makers' test set.

    Raises:
      HansaError: the name is not one of `names_of`, or there are no such images or rule.
      Unavailable: the images could not be fetched.
    """
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) >= int(match[2]):
        raise HansaError(
            f"site '{name}' does not say where its images are",
            fix='write path = "FILE" into its [data] section',
        )
    return shares(dataset, rule, int(match[2]))[int(match[1])]


@cache
def shares(dataset: str, rule: str, clients: int) -> tuple[Dataset, ...]:
    """Every client's images.

    Raises:
      HansaError: there are no such images or rule.
      Unavailable: the images could not be fetched.
    """
    divide = RULES.get(rule)
    if divide is None:
        raise HansaError(f"images cannot be divided by '{rule}'", fix=suggest(rule, RULES, "rules"))
    images, key = load(dataset), ReplayKey.of_seed(0).derive("images", dataset)
    train = divide(images.train_targets, clients, key)
    test = iid(images.test_targets, clients, key.derive("test"))
    return tuple(
        Dataset(
            images.train_inputs[mine],
            images.train_targets[mine],
            images.test_inputs[held_out],
            images.test_targets[held_out],
        )
        for mine, held_out in zip(train, test, strict=True)
    )


def write_sites(
    folder: Path, clients: int, dataset: str = "mnist5k", rule: str = "dirichlet"
) -> dict[str, Path]:
    """Writes one file per client, as each site of a federation has its own.

    Returns:
      The files, by the clients' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.npz" for name in names_of(clients)}
    for share, path in zip(shares(dataset, rule, clients), files.values(), strict=True):
        save(share, path)
    return files
