"""What is wrong with the words of a job, each with a line, a reason and the smallest fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from hansa.errors import JobError, JobRefused
from hansa.jobfile.locate import Path


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that the words cannot say.

    Attributes:
      path: the key or section it is about; `()` is the whole file.
      message: what was found and what is allowed, without a final dot.
      fix: what to write instead, without a final dot.
    """

    path: Path
    message: str
    fix: str


def refuse(mistakes: Sequence[Mistake], file: str, lines: Mapping[Path, int]) -> NoReturn:
    """Raises what is wrong, in the order of the file.

    Raises:
      JobError: for one mistake.
      JobRefused: for several.
    """
    found = [
        JobError(shortened(m.message), fix=m.fix, file=file, line=line_of(m.path, lines))
        for m in mistakes
    ]
    found.sort(key=lambda error: error.line)
    if len(found) == 1:
        raise found[0]
    raise JobRefused(found)


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """The line of a key, or of what encloses it when the key itself is not there; else 0."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return 0


def shortened(message: str, most: int = 500) -> str:
    """A message that quotes what somebody wrote, at a length that can be read and logged."""
    return message if len(message) <= most else f"{message[: most - 3]}..."


def dotted(path: Path) -> str:
    """A key as messages name it: `rounds.count`."""
    return ".".join(path)


def listed(words: Iterable[str]) -> str:
    """Names, one after the other, as a sentence holds them."""
    return ", ".join(words)
