"""Algorithms as words: the `[algorithm]` section of a job, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from hansa.algorithms.fedadagrad import fedadagrad
from hansa.algorithms.fedadam import fedadam
from hansa.algorithms.fedavg import fedavg
from hansa.algorithms.fedavgm import fedavgm
from hansa.algorithms.fedprox import fedprox
from hansa.algorithms.fedsgd import fedsgd
from hansa.algorithms.fedyogi import fedyogi
from hansa.core.parts import Algorithm
from hansa.errors import PlanError
from hansa.nearest import suggest

ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = {
    function.__name__: function
    for function in (fedsgd, fedavg, fedprox, fedavgm, fedadagrad, fedadam, fedyogi)
}
"""The functions by the names that jobs use. Their keywords are the keys of `[algorithm]`."""


def build_algorithm(name: str, options: Mapping[str, object]) -> Algorithm:
    """The algorithm that a job names, with the job's options.

    Raises:
      PlanError: the name or a key is unknown, or a value is impossible; `part` is
        `algorithm.name` or `algorithm.<key>`.
    """
    function = ALGORITHMS.get(name)
    if function is None:
        raise PlanError(
            "algorithm.name", f"'{name}' is not known", suggest(name, ALGORITHMS, "algorithms")
        )
    keys = keys_of(function)
    for key in options:
        if key not in keys:
            raise PlanError(f"algorithm.{key}", f"is no key of {name}", suggest(key, keys, "keys"))
    return function(**options)


def words_of(algorithm: Algorithm) -> dict[str, object]:
    """The options with which `build_algorithm` gives an equal algorithm again.

    Raises:
      PlanError: the algorithm was not made by one of `ALGORITHMS`, so no words say what it is.
    """
    function = ALGORITHMS.get(algorithm.name)
    if function is not None:
        keys, owners = keys_of(function), (algorithm.work, algorithm.server)
        words = {k: getattr(owner, k) for k in keys for owner in owners if hasattr(owner, k)}
        if len(words) == len(keys) and function(**words) == algorithm:
            return words
    raise PlanError(
        "algorithm",
        f"'{algorithm.name}' has parts that the words of a job cannot name, so no site could "
        "build it",
        f"make it with one of: {', '.join(ALGORITHMS)}",
    )


def keys_of(function: Callable[..., Algorithm]) -> tuple[str, ...]:
    """The keywords of an algorithm's function."""
    return tuple(inspect.signature(function).parameters)
