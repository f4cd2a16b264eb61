"""A matrix C for correlated noise, with the schema of participation and what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hansa.core.metrics import Floats
from hansa.errors import HansaError
from hansa.privacy.matrices import toeplitz, tree
from hansa.privacy.matrices.sensitivity import of_decreasing, of_separate_columns

Kind: TypeAlias = Literal["identity", "tree", "banded", "blt"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """How the noise of T rounds depends on each other.

    | kind     | C                                       | vectors kept        | separate columns |
    |----------|-----------------------------------------|---------------------|------------------|
    | identity | 1: noise of each round is independent   | none                | yes              |
    | tree     | one row of ones for each node           | 1 + log2(T)         | no               |
    | banded   | Toeplitz, `coefficients` and then zeros | one less than bands | if bands <= b    |
    | blt      | buffered linear Toeplitz                | one for each buffer | no               |

    Attributes:
      kind: which of them.
      rounds: T, most rows that may be released.
      separation: b, fewest rounds from one participation of a client to its next; 1 = every round.
      participations: k, most participations of a client.
      coefficients: of `banded` from the diagonal down; scales of the buffers of `blt`.
      decays: of the buffers of `blt`, in [0, 1].
      source: where the coefficients are from, in words.
      sens: sensitivity under the schema, for rows that move by 1.

    Raises:
      HansaError: the numbers are no schema, or no sensitivity is known for the coefficients.
    """

    kind: Kind
    rounds: int
    separation: int
    participations: int
    coefficients: tuple[float, ...] = ()
    decays: tuple[float, ...] = ()
    source: str = ""
    sens: float = field(init=False)

    def __post_init__(self) -> None:
        found = sensitivity(self, self.rounds, self.separation, self.participations)
        object.__setattr__(self, "sens", found)

    @property
    def bands(self) -> int:
        """Rows of C that one participation reaches, its own included."""
        if self.kind == "identity" or (self.kind == "blt" and not self.decays):
            return 1
        return min(len(self.coefficients), self.rounds) if self.kind == "banded" else self.rounds

    @property
    def orthogonal(self) -> bool:
        """Whether participations of one client never meet in a row of C.

        Then each is a Gaussian mechanism of its own, which sampling amplifies like any other
        (Choquette-Choo et al., NeurIPS 2023, arXiv 2306.08153).
        """
        return self.participations == 1 or (self.kind != "tree" and self.bands <= self.separation)

    @property
    def kept(self) -> int:
        """Most vectors of noise that are kept from round to round."""
        match self.kind:
            case "identity":
                return 0
            case "tree":
                return tree.levels(self.rounds)
            case "banded":
                return self.bands - 1
            case "blt":
                return len(self.decays)

    @property
    def spread(self) -> float:
        """Largest standard deviation of a row's noise, relative to that of the samples of Z."""
        if self.kind == "tree":
            return tree.row_deviation(self.rounds)
        return math.sqrt(math.fsum((toeplitz.inverse(self.column(self.rounds)) ** 2).tolist()))

    def column(self, rounds: int) -> Floats:
        """The (rounds,) first column of C, of a Toeplitz matrix; others have none."""
        if self.kind == "blt":
            return toeplitz.buffered(self.coefficients, self.decays, rounds)
        return toeplitz.column(self.coefficients or (1.0,), rounds)


def sensitivity(strategy: Strategy, rounds: int, separation: int, participations: int) -> float:
    """How far one client moves C X, relative to how far it moves one row.

    | matrix                                              | value                          |
    |-----------------------------------------------------|--------------------------------|
    | identity, and Toeplitz of at most b bands           | sqrt(k) * norm of a column     |
    | Toeplitz, coefficients falling and not negative     | exact                          |
    | tree                                                | a bound; exact for k = 1       |

    Args:
      strategy: the matrix; its own schema does not matter.
      rounds: rows of X.
      separation: fewest rounds from one participation to the next.
      participations: most participations.

    Raises:
      HansaError: the numbers are no schema, or no sensitivity is known for the coefficients.
    """
    _check(strategy, rounds, separation, participations)
    if strategy.kind == "tree":
        return math.sqrt(tree.squared_sensitivity(rounds, separation, participations))
    coefficients = strategy.coefficients if strategy.kind == "banded" else (1.0,)
    bands = rounds if strategy.kind == "blt" and strategy.decays else len(coefficients)
    if participations > 1 and bands > separation:
        return of_decreasing(strategy.column(rounds), separation, participations)
    column = coefficients if strategy.kind != "blt" else tuple(strategy.column(rounds).tolist())
    return of_separate_columns(column[:rounds], participations)


def most_participations(rounds: int, separation: int) -> int:
    """How often a client can take part at all: ceil(T / b)."""
    return -(-rounds // separation)


def _check(strategy: Strategy, rounds: int, separation: int, participations: int) -> None:
    if rounds < 1 or separation < 1 or participations < 1:
        raise HansaError(
            f"{participations} times in {rounds} rounds, {separation} apart, is no schema",
            fix="use at least 1 of each",
        )
    if participations > most_participations(rounds, separation):
        raise HansaError(
            f"nobody can take part {participations} times in {rounds} rounds, {separation} apart",
            fix=f"use at most {most_participations(rounds, separation)} participations",
        )
    numbers = (*strategy.coefficients, *strategy.decays)
    diagonal = strategy.coefficients[0] if strategy.kind == "banded" and numbers else 1.0
    shapes = {
        "identity": not numbers,
        "tree": not numbers,
        "banded": bool(strategy.coefficients) and not strategy.decays,
        "blt": len(strategy.coefficients) == len(strategy.decays),
    }
    if not (shapes[strategy.kind] and all(map(math.isfinite, numbers)) and diagonal > 0):
        raise HansaError(
            f"{numbers} are not the coefficients of a matrix of kind '{strategy.kind}'",
            fix="give banded a positive diagonal first, blt as many scales as decays, others none",
        )
