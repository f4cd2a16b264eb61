"""Reads TOML and explains what is wrong with it, on the line where the mistake was made.

`tomllib` reports where it gave up. For a bracket or a quote that is never closed, and for a key
that is set twice, that is not where the mistake is: the scanner of `locate` finds the beginning.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from hansa.errors import JobError
from hansa.jobfile.locate import NotToml, Path, Sighting, locate, sightings
from hansa.jobfile.mistakes import dotted

_SAID = re.compile(r"(?P<reason>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end .*)\)")
_FIXES = (
    ("invalid value", "put a text in quotes; write true and false in lower case"),
    ("expected '='", "write key = value"),
    ("expected newline", "put one key = value on a line, and a text in quotes"),
)


def parse(text: str, file: str) -> tuple[Mapping[str, Any], Mapping[Path, int]]:
    """What a TOML text says, and the line of each of its keys.

    Args:
      text: the text, its lines ending in a line feed.
      file: the file as the user named it.

    Raises:
      JobError: the text is not TOML.
    """
    try:
        return tomllib.loads(text), locate(text)
    except tomllib.TOMLDecodeError as error:
        raise _explain(text, str(error), file) from error


def _explain(text: str, said: str, file: str) -> JobError:
    match = _SAID.fullmatch(said)
    reason = match["reason"] if match else said
    reason = reason[:1].lower() + reason[1:]
    last = text.rstrip("\n").count("\n") + 1
    line = int(match["line"]) if match and match["line"] else last
    if reason.startswith(("cannot", "duplicate")):
        return _twice(text, reason, file, line)
    opened = _opened(text)
    if opened and (opened < line or reason.startswith(("unclosed", "unterminated"))):
        return _not_closed(file, opened)
    if reason.startswith("illegal character '\\n'"):
        return _not_closed(file, line)
    where = f" (column {match['column']})" if match and match["column"] else ""
    fix = next((fix for start, fix in _FIXES if reason.startswith(start)), None)
    return JobError(
        f"this is not TOML: {reason}{where}",
        fix=fix or "write a section as [name] and each key as key = value",
        file=file,
        line=line,
    )


def _opened(text: str) -> int:
    """The line where the piece begins that is never closed; 0 if there is none."""
    try:
        sightings(text)
    except NotToml as error:
        return error.line
    return 0


def _not_closed(file: str, line: int) -> JobError:
    return JobError(
        "this is not TOML: a quote or a bracket that opens on this line is not closed",
        fix="close it, and put a comma between two items of a list",
        file=file,
        line=line,
    )


def _twice(text: str, reason: str, file: str, line: int) -> JobError:
    """The error for a key or a section that is set again on this line."""
    try:
        *earlier, last = sightings("\n".join(text.split("\n")[:line]))
    except NotToml:
        return JobError(
            f"this is not TOML: {reason}", fix="keep one of the two", file=file, line=line
        )
    first = _clash(earlier, last)
    since = f", first on line {first.line}" if first else ""
    name = dotted(last.path)
    if last.kind == "header":
        message, fix = f"[{name}] is opened", f"put all keys of [{name}] below one header"
    else:
        message, fix = f"{name} is set", "keep one of the two lines"
    return JobError(f"{message} a second time{since}", fix=fix, file=file, line=last.line)


def _clash(earlier: list[Sighting], last: Sighting) -> Sighting | None:
    """What was set before, under the same name or as a key where a table is needed now."""
    around = {last.path[:end] for end in range(1, len(last.path))}
    return next(
        (s for s in earlier if s.path == last.path or (s.kind == "key" and s.path in around)),
        None,
    )
