"""Where a TOML text sets its keys, so that a mistake can be shown with its line.

`tomllib` says what a text holds but not where. This scanner says where and does not interpret
values: it only finds their ends. It reads headers, dotted and quoted keys, comments, strings and
arrays over several lines, and inline tables.

| text                 | sightings                                        |
|----------------------|--------------------------------------------------|
| `[a.b]`              | `a`, `a.b`, both at the header's line            |
| `a.b = 1`            | `a`, `a.b`, both at the key's line               |
| `a = { b = 1 }`      | `a`, `a.b`, each at its own line                 |
| `[[a]]` twice        | `a` twice; keys inside are seen as `a.key`       |
| `a = [{ b = 1 }]`    | `a` alone: what an array holds has no name       |
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Path: TypeAlias = tuple[str, ...]
"""A dotted key, in pieces; `()` is the whole file."""

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_PIECE = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
# Multi-line strings first: a closing delimiter may follow up to two quotes of the same kind.
_STRING = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''',
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\s,\]}#\"'\[{][^,\]}#\n]*")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One place where a key is set or a table is opened.

    Attributes:
      path: the whole dotted key.
      line: counted from 1.
      kind: a key with its value, a header, or a table that one of them opens on its way.
    """

    path: Path
    line: int
    kind: Literal["key", "header", "way"]


class NotToml(ValueError):
    """The text ends or turns where TOML does not; holds the line where the open piece began."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


def locate(text: str) -> Mapping[Path, int]:
    """The line on which each key and each table of a valid TOML text is first seen."""
    found: dict[Path, int] = {}
    for sighting in sightings(text):
        found.setdefault(sighting.path, sighting.line)
    return found


def sightings(text: str) -> tuple[Sighting, ...]:
    """Every sighting, in the order of the text.

    Raises:
      NotToml: the text is not TOML; only `tomllib` says exactly why.
    """
    scanner = _Scanner(text)
    scanner.document()
    return tuple(scanner.seen)


class _Scanner:
    """A position in the text that only moves forward."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.seen: list[Sighting] = []
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def document(self) -> None:
        """Headers and pairs up to the end."""
        table: Path = ()
        while self._skip(_GAP) < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        line = self._line()
        closing = "]]" if self.text.startswith("[[", self.at) else "]"
        self.at += len(closing)
        path = self._key()
        self._expect(closing, line)
        self._see((), path, line, "header")
        return path

    def _pair(self, table: Path | None) -> None:
        """One `key = value`; `table` None means that the key has no name worth noting."""
        line = self._line()
        path = self._key()
        self._expect("=", line)
        if table is not None:
            self._see(table, path, line, "key")
        self._skip(_BLANK)
        self._value(None if table is None else table + path)

    def _key(self) -> Path:
        pieces = []
        while True:
            self._skip(_BLANK)
            pieces.append(_unquoted(self._match(_PIECE, self._line())))
            self._skip(_BLANK)
            if not self.text.startswith(".", self.at):
                return tuple(pieces)
            self.at += 1

    def _value(self, path: Path | None) -> None:
        line, first = self._line(), self.text[self.at : self.at + 1]
        if first == "[":
            self._items("]", line, lambda: self._value(None))
        elif first == "{":
            self._items("}", line, lambda: self._pair(path))
        elif first in ('"', "'"):
            self._match(_STRING, line)
        else:
            self._match(_PLAIN, line)

    def _items(self, closing: str, line: int, item: Callable[[], None]) -> None:
        self.at += 1
        while self._skip(_GAP) < len(self.text) and self.text[self.at] != closing:
            item()
            self._skip(_GAP)
            if not self.text.startswith(",", self.at):
                break
            self.at += 1
        self._expect(closing, line)

    def _see(self, table: Path, path: Path, line: int, kind: Literal["key", "header"]) -> None:
        for end in range(1, len(path)):
            self.seen.append(Sighting(table + path[:end], line, "way"))
        self.seen.append(Sighting(table + path, line, kind))

    def _line(self) -> int:
        return bisect_right(self._starts, self.at)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at

    def _match(self, pattern: re.Pattern[str], line: int) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise NotToml(line)
        self.at = match.end()
        return match.group()

    def _expect(self, text: str, line: int) -> None:
        if not self.text.startswith(text, self.at):
            raise NotToml(line)
        self.at += len(text)


def _unquoted(piece: str) -> str:
    """What a key means; escapes in quoted keys are left to `tomllib`."""
    if piece[0] == '"':
        try:
            return str(tomllib.loads(f"key = {piece}")["key"])
        except tomllib.TOMLDecodeError:
            return piece
    return piece[1:-1] if piece[0] == "'" else piece
