"""What a command line sets: one value of a key, several to try, or a range to draw from.

| words                              | what is tried                                         |
|------------------------------------|-------------------------------------------------------|
| algorithm.client_lr=0.1            | this value                                            |
| algorithm.client_lr=0.01,0.1,1     | each of them; one of them at a time in a random search |
| algorithm.client_lr=log:0.001..1   | random search: evenly in the logarithm                |
| aggregation.trim=uniform:0.1..0.4  | random search: evenly                                 |
| cohort.size=int:10..50             | random search: a whole number, both ends included     |
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hansa.core.keys import ReplayKey
from hansa.errors import JobError
from hansa.jobfile.override import FILE, check_name, value_of

DIGITS = 4
"""Significant digits of what is drawn, so that people can read it and write it down."""

_RANGE = re.compile(r"(log|uniform|int):(.+?)\.\.(.+)")

Combination: TypeAlias = Mapping[str, Any]
"""One value for each key, by `section.key`."""


@dataclass(frozen=True, slots=True)
class Range:
    """Values to draw from.

    Attributes:
      kind: log, uniform or int.
      low: smallest value.
      high: largest value.
    """

    kind: str
    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> float | int:
        """One value, of four significant digits unless it is a whole number."""
        if self.kind == "int":
            return int(generator.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "log":
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = generator.uniform(self.low, self.high)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


Setting: TypeAlias = tuple[str, Range | tuple[Any, ...]]
"""A key and what is tried."""


def assignments(words: Sequence[str]) -> dict[str, Any]:
    """One value for each key: what `hansa simulate --set` takes.

    Raises:
      JobError: the words are no KEY=VALUE, or name a key twice.
    """
    found = {}
    for word in words:
        name, text = _split(word)
        if name in found:
            raise _twice(name)
        found[name] = value_of(text)
    return found


def settings(words: Sequence[str]) -> list[Setting]:
    """What `hansa sweep --set` takes: values or ranges.

    Raises:
      JobError: the words are none, or name a key twice.
    """
    found: dict[str, Range | tuple[Any, ...]] = {}
    for word in words:
        name, text = _split(word)
        if name in found:
            raise _twice(name)
        found[name] = _tried(name, text)
    return list(found.items())


def grid(tried: Sequence[Setting]) -> list[Combination]:
    """Every combination, the last key fastest.

    Raises:
      JobError: a range has no end of values.
    """
    for name, values in tried:
        if isinstance(values, Range):
            raise JobError(
                f"{name} is a range, and a grid needs values",
                fix="draw from it with --random N, or list values, such as 0.01,0.1,1",
                file=FILE,
            )
    names = [name for name, _ in tried]
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(v for _, v in tried if not isinstance(v, Range)))
    ]


def drawn(tried: Sequence[Setting], number: int, seed: int) -> list[Combination]:
    """Random combinations, each once; fewer than `number` if there are not so many.

    The first of them are the same for a larger number.
    """
    found: dict[str, Combination] = {}
    for turn in range(20 * number):
        generator = ReplayKey.of_seed(seed).generator("search", turn)
        made = {name: _choice(values, generator) for name, values in tried}
        found.setdefault(repr(made), made)
        if len(found) == number:
            break
    return list(found.values())


def label(combination: Combination) -> str:
    """A combination in short: `client_lr=0.1 size=50`; whole names where short ones are equal."""
    short = [name.rpartition(".")[2] for name in combination]
    names = short if len(set(short)) == len(short) else list(combination)
    told = (_text(value) for value in combination.values())
    return " ".join(f"{name}={value}" for name, value in zip(names, told, strict=True))


def _text(value: object) -> str:
    return (
        f"{value:g}"
        if isinstance(value, float)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )


def _choice(values: Range | tuple[Any, ...], generator: np.random.Generator) -> Any:
    if isinstance(values, Range):
        return values.draw(generator)
    return values[int(generator.integers(len(values)))]


def _split(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    name = name.strip()
    if not equals or not name or not text.strip():
        raise JobError(
            f"'{word}' sets nothing", fix="write it as algorithm.client_lr=0.1", file=FILE
        )
    check_name(name)
    return name, text.strip()


def _tried(name: str, text: str) -> Range | tuple[Any, ...]:
    match = _RANGE.fullmatch(text)
    if match is None:
        parts = next(csv.reader([text], quotechar="'", skipinitialspace=True))
        return tuple(dict.fromkeys(value_of(part.strip()) for part in parts if part.strip()))
    kind, ends = match[1], [value_of(match[2]), value_of(match[3])]
    types = (int,) if kind == "int" else (int, float)
    if not all(isinstance(end, types) and not isinstance(end, bool) for end in ends):
        raise _no_range(name, text, f"its ends are {'whole ' * (kind == 'int')}numbers")
    low, high = ends
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise _no_range(name, text, "its first end is the smaller one")
    if kind == "log" and low <= 0:
        raise _no_range(name, text, "a logarithm needs ends above 0")
    return Range(kind, low, high)


def _no_range(name: str, text: str, why: str) -> JobError:
    return JobError(
        f"{name}={text} is no range: {why}",
        fix="write it as log:0.001..1, uniform:0.1..0.4 or int:10..50",
        file=FILE,
    )


def _twice(name: str) -> JobError:
    return JobError(
        f"{name} is set twice", fix="name all its values once, such as 0.01,0.1,1", file=FILE
    )
