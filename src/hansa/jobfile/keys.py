"""The sections and keys of a job file, read off the dataclasses and functions that they stand for.

Names, types, defaults and meanings are those of `hansa.core.job` and of the functions in
`hansa.algorithms`; a file can say exactly what Python can. What is added here is the range that
a value must lie in, and how values are described to a person.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union

from hansa.core.job import Job
from hansa.jobfile.locate import Path

REQUIRED = dataclasses.MISSING
"""The default of a key that has none."""

DURATIONS = frozenset({("rounds", "deadline")})
"""Keys that also take "60s", "5m" or "2h"."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The values that a key can have, beyond its type.

    Attributes:
      at_least: smallest value.
      above: value that must be exceeded.
      at_most: largest value.
      below: value that must not be reached.
      pattern: regular expression that the whole text must match.
      words: what the pattern means.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    pattern: str = ""
    words: str = ""

    def __str__(self) -> str:
        if self.words:
            return self.words
        pairs = (
            ("at least", self.at_least),
            ("more than", self.above),
            ("at most", self.at_most),
            ("less than", self.below),
        )
        return " and ".join(f"{word} {value:g}" for word, value in pairs if value is not None)

    def admits(self, value: object) -> bool:
        """Whether a value of the right type lies in the range."""
        if isinstance(value, str):
            return re.fullmatch(self.pattern or ".*", value, re.DOTALL) is not None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return True
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


_NAME = Limit(pattern="[A-Za-z0-9_-]{1,64}", words="1 to 64 letters, digits, dashes or underscores")
_TASK = Limit(
    pattern=r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*",
    words='a module and a class, such as "task:Heart"',
)
_WATCH = Limit(pattern=r".+", words="the name of a metric")
_COUNT, _NOT_NEGATIVE, _POSITIVE = Limit(at_least=1), Limit(at_least=0), Limit(above=0)

LIMITS: Mapping[Path, Limit] = {
    ("name",): _NAME,
    ("task",): _TASK,
    ("seed",): _NOT_NEGATIVE,
    ("evaluate_every",): _NOT_NEGATIVE,
    ("rounds", "count"): _COUNT,
    ("rounds", "deadline"): _POSITIVE,
    ("rounds", "quorum"): _NOT_NEGATIVE,
    ("rounds", "attempts"): _COUNT,
    ("rounds", "patience"): _NOT_NEGATIVE,
    ("rounds", "watch"): _WATCH,
    ("cohort", "population"): _COUNT,
    ("cohort", "rate"): Limit(at_least=0, at_most=1),
    ("cohort", "size"): _NOT_NEGATIVE,
    ("cohort", "cap"): _NOT_NEGATIVE,
    ("cohort", "over_selection"): Limit(at_least=1),
    ("cohort", "separation"): _NOT_NEGATIVE,
    ("cohort", "buffer"): _NOT_NEGATIVE,
    ("cohort", "concurrency"): _NOT_NEGATIVE,
    ("cohort", "staleness_exponent"): _NOT_NEGATIVE,
    ("cohort", "max_staleness"): _NOT_NEGATIVE,
    ("privacy", "clip"): _NOT_NEGATIVE,
    ("privacy", "epsilon"): _NOT_NEGATIVE,
    ("privacy", "delta"): Limit(at_least=0, below=1),
    ("privacy", "noise_multiplier"): _NOT_NEGATIVE,
    ("privacy", "colluding"): _NOT_NEGATIVE,
    ("privacy", "examples"): _NOT_NEGATIVE,
    ("privacy", "metrics_clip"): _NOT_NEGATIVE,
    ("privacy", "metrics_noise_multiplier"): _NOT_NEGATIVE,
    ("privacy", "clip_quantile"): Limit(at_least=0, below=1),
    ("privacy", "clip_learning_rate"): _POSITIVE,
    ("privacy", "clip_noise"): _NOT_NEGATIVE,
    ("aggregation", "trim"): Limit(at_least=0, below=0.5),
    ("aggregation", "bad"): Limit(above=0, below=0.5),
    ("aggregation", "max_weight"): _NOT_NEGATIVE,
    ("aggregation", "clip"): _NOT_NEGATIVE,
    ("aggregation", "fairness"): _NOT_NEGATIVE,
    ("aggregation", "tail"): Limit(above=0, at_most=1),
    ("defend", "rollback"): _NOT_NEGATIVE,
    ("quantization", "step"): _NOT_NEGATIVE,
    ("secure_aggregation", "corrupt"): Limit(at_least=0, below=1),
    ("secure_aggregation", "groups"): _NOT_NEGATIVE,
    ("secure_aggregation", "dropouts"): Limit(at_least=0, below=1),
}
ANYTHING = Limit()

# Where the type in Python is wider than the values that exist.
_NARROWER: Mapping[Path, Any] = {("quantization", "bits"): Literal[16, 24, 32]}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a job file.

    Attributes:
      path: section and name; the name alone at the top of the file.
      type: what Python calls its type.
      default: value of a key that is left out, or `REQUIRED`.
      meaning: the sentence that documents it in Python.
    """

    path: Path
    type: Any
    default: Any
    meaning: str

    @property
    def name(self) -> str:
        """The name without the section."""
        return self.path[-1]

    @property
    def limit(self) -> Limit:
        """The range of its values."""
        return LIMITS.get(self.path, ANYTHING)

    @property
    def kind(self) -> str:
        """The type in words."""
        return (
            'a duration: seconds, or "60s", "5m", "2h"'
            if self.path in DURATIONS
            else kind(self.type)
        )

    @property
    def allowed(self) -> str:
        """What the key takes: type and range."""
        limit = str(self.limit)
        if not limit:
            return self.kind
        return limit if self.limit.pattern else f"{self.kind}, {limit}"


def kind(of: Any) -> str:
    """A Python type in words that a person who does not write Python reads."""
    origin, inner = typing.get_origin(of), typing.get_args(of)
    if origin is Literal:
        *others, last = [toml(value) for value in inner]
        return f"{', '.join(others)} or {last}" if others else last
    if origin in (Union, types.UnionType):
        return " or ".join(kind(each) for each in inner if each is not type(None))
    if origin in (tuple, list):
        return f"an array, each {kind(inner[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(of, getattr(of, "__name__", str(of)))


def toml(value: object) -> str:
    """A value as a TOML file would hold it, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        short = value if len(value) <= 40 else value[:37] + "..."
        escaped = short.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value).replace("e-0", "e-")
    return "a section" if isinstance(value, Mapping) else str(value)


def _hints(of: Any) -> dict[str, Any]:
    return typing.get_type_hints(of)


def _fields(of: type) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(of) if f.metadata.get("words", True)]


def sections() -> Mapping[str, type]:
    """The dataclass of each section except `[algorithm]`, in the job's order."""
    hints = _hints(Job)
    return {
        f.name: hints[f.name]
        for f in _fields(Job)
        if dataclasses.is_dataclass(hints[f.name]) and f.name != ALGORITHM
    }


ALGORITHM = "algorithm"
"""The section whose keys are the keywords of the function that it names."""


def required_sections() -> frozenset[str]:
    """Sections that a job cannot do without."""
    return frozenset(
        f.name
        for f in _fields(Job)
        if f.default is REQUIRED and (f.name in sections() or f.name == ALGORITHM)
    )


@cache
def top_keys() -> Mapping[str, Key]:
    """The keys above the first section."""
    others = {*sections(), ALGORITHM}
    return {name: key for name, key in _dataclass_keys((), Job).items() if name not in others}


@cache
def section_keys(section: str) -> Mapping[str, Key]:
    """The keys of a section other than `[algorithm]`."""
    return _dataclass_keys((section,), sections()[section])


@cache
def algorithm_keys(function: Callable[..., Any]) -> Mapping[str, Key]:
    """The keys of `[algorithm]` beside `name`, for one algorithm's function."""
    hints, meanings = _hints(function), _meanings(function)
    return {
        name: Key(
            (ALGORITHM, name),
            hints[name],
            REQUIRED if p.default is inspect.Parameter.empty else p.default,
            meanings.get(name, ""),
        )
        for name, p in inspect.signature(function).parameters.items()
    }


def _dataclass_keys(at: Path, of: type) -> dict[str, Key]:
    hints, meanings = _hints(of), _meanings(of)
    return {
        f.name: Key(
            (*at, f.name),
            _NARROWER.get((*at, f.name), hints[f.name]),
            f.default,
            meanings.get(f.name, ""),
        )
        for f in _fields(of)
    }


def _meanings(of: object) -> dict[str, str]:
    """The sentences under `Attributes:` or `Args:` in a docstring, by name."""
    doc = inspect.getdoc(of) or ""
    block = re.search(r"^(?:Attributes|Args):\n((?:[ ]+.*\n?|\n)+)", doc, re.MULTILINE)
    found: dict[str, list[str]] = {}
    for line in (block.group(1) if block else "").splitlines():
        head = re.match(r"  (\w+): (.*)", line)
        if head:
            found[head.group(1)] = [head.group(2)]
        elif line.strip() and found:
            found[list(found)[-1]].append(line.strip())
    return {name: " ".join(lines).rstrip(".") for name, lines in found.items()}
