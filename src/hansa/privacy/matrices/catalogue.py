"""The matrices that the package holds, and which one a run takes.

They were found by jax-privacy with `tools/matrices.py` and are data. A checksum over each file is
checked when it is read: an altered coefficient would not break the guarantee, because sensitivities
are computed here from the coefficients themselves, but it would spoil models for no visible reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from hansa.core import canonical
from hansa.errors import HansaError
from hansa.privacy.matrices import toeplitz
from hansa.privacy.matrices.error import prefix_error
from hansa.privacy.matrices.strategy import Kind, Strategy, most_participations

MOST_BANDS = 64
"""More bands are not used: each is a vector to keep, and buffers do as well with fewer."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A matrix that was found, and what was said about it by who found it.

    Attributes:
      rounds: T for which it is best.
      separation: b for which it is best.
      participations: k for which it is best.
      coefficients: of a banded matrix; scales of the buffers of a buffered one.
      decays: of the buffers.
      sens: sensitivity under (T, b, k).
      mean_error: mean error of prefix sums, as `PrefixError.mean`.
      max_error: the largest, as `PrefixError.max`.
    """

    rounds: int
    separation: int
    participations: int
    coefficients: tuple[float, ...]
    decays: tuple[float, ...]
    sens: float
    mean_error: float
    max_error: float


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All recorded matrices of a kind, and the version of jax-privacy that found them."""

    kind: Literal["banded", "blt"]
    version: str
    matrices: tuple[Recorded, ...]


@cache
def recorded(kind: Literal["banded", "blt"]) -> Catalogue:
    """The recorded matrices of a kind.

    Raises:
      HansaError: the file is not the one that was shipped.
    """
    content = read((files(__package__) / "data" / f"{kind}.json").read_text("ascii"))
    matrices = tuple(_recorded(entry) for entry in content["matrices"])
    return Catalogue(kind, content["jax_privacy"], matrices)


def read(text: str) -> dict[str, Any]:
    """The content of a file of matrices, without its checksum.

    Raises:
      HansaError: the checksum is not that of the content.
    """
    content: dict[str, Any] = json.loads(text)
    if content.pop("sha256", None) != canonical.digest(content):
        raise HansaError(
            "a file of matrices for correlated noise was altered",
            fix="install Hansa again, or run tools/matrices.py",
        )
    return content


@cache
def choose(kind: Kind, rounds: int, separation: int, participations: int = 0) -> Strategy:
    """The matrix of a kind that a run takes.

    Separations and participations beyond what the rounds allow are cut to what they allow.

    | kind     | which                                                                         |
    |----------|-------------------------------------------------------------------------------|
    | identity | the one that there is                                                         |
    | tree     | the one that there is                                                         |
    | banded   | recorded: as few rounds as are enough, most bands up to b and `MOST_BANDS`;   |
    |          | where none is: square-root coefficients, cut to so many bands                 |
    | blt      | recorded: as few rounds as are enough; of those, and of no correlation, the   |
    |          | one with the smallest mean error                                              |

    Args:
      kind: of the matrix.
      rounds: T, rows that will be released.
      separation: b, fewest rounds from one participation of a client to its next.
      participations: k, most participations of a client; 0 = as many as fit.

    Raises:
      HansaError: the numbers are no schema, or none is recorded for so many rounds.
    """
    if rounds < 1 or separation < 1 or participations < 0:
        raise HansaError(
            f"{participations} times in {rounds} rounds, {separation} apart, is no schema",
            fix="use at least 1 round and a separation of at least 1",
        )
    most = most_participations(rounds, separation)
    often = min(participations or most, most)
    apart = rounds if often == 1 else min(separation, rounds)
    match kind:
        case "identity":
            return Strategy(kind, rounds, apart, often, source="independent noise")
        case "tree":
            source = "a binary tree with Honaker's estimates from below"
            return Strategy(kind, rounds, apart, often, source=source)
        case "banded":
            return _banded(rounds, apart, often)
        case "blt":
            return _buffered(rounds, apart, often)


def _banded(rounds: int, separation: int, participations: int) -> Strategy:
    catalogue = recorded("banded")
    bands = min(separation, MOST_BANDS, rounds)
    enough = [m for m in _enough(catalogue, rounds) if len(m.coefficients) <= bands]
    best = max(enough, key=lambda m: len(m.coefficients), default=None)
    if best is not None:
        coefficients, source = best.coefficients, _source(catalogue, best)
    else:
        coefficients = toeplitz.square_root(bands)
        source = f"square-root coefficients, cut to {bands:,} bands"
    return Strategy("banded", rounds, separation, participations, coefficients, source=source)


def _buffered(rounds: int, separation: int, participations: int) -> Strategy:
    catalogue = recorded("blt")
    enough = _enough(catalogue, rounds)
    if not enough:
        most = max(m.rounds for m in catalogue.matrices)
        raise HansaError(
            f"no buffered matrix is recorded for {rounds:,} rounds, only for up to {most:,}",
            fix="use banded or tree, or fewer rounds",
        )
    candidates = [Strategy("blt", rounds, separation, participations, source="no buffers")]
    candidates += [
        Strategy(
            "blt",
            rounds,
            separation,
            participations,
            matrix.coefficients,
            matrix.decays,
            _source(catalogue, matrix),
        )
        for matrix in enough
    ]
    return min(candidates, key=lambda strategy: float(f"{prefix_error(strategy).mean:.6g}"))


def _enough(catalogue: Catalogue, rounds: int) -> list[Recorded]:
    """Those for the fewest rounds that are at least so many."""
    found = min((m.rounds for m in catalogue.matrices if m.rounds >= rounds), default=0)
    return [m for m in catalogue.matrices if m.rounds == found]


def _source(catalogue: Catalogue, matrix: Recorded) -> str:
    return (
        f"found by jax-privacy {catalogue.version} for {matrix.rounds:,} rounds and participations "
        f"{matrix.separation:,} rounds apart"
    )


def _recorded(entry: Mapping[str, Any]) -> Recorded:
    buffered = "scales" in entry
    return Recorded(
        rounds=entry["rounds"],
        separation=entry["separation"],
        participations=entry["participations"],
        coefficients=tuple(entry["scales" if buffered else "coefficients"]),
        decays=tuple(entry["decays"]) if buffered else (),
        sens=entry["sens"],
        mean_error=entry["mean_error"],
        max_error=entry["max_error"],
    )
