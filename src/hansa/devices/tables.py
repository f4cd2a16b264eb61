"""Reads recorded traces: CSV files with a header, one fact a line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from hansa.devices.availability import Span
from hansa.devices.speed import Speed
from hansa.errors import JobError

ONLINE = ("client", "start", "end")
SPEEDS = ("client", "compute", "download", "upload")


def read_spans(path: Path) -> dict[str, tuple[Span, ...]]:
    """When devices are online: columns client, start, end, in seconds.

    Raises:
      JobError: the file cannot be read, or a line says what cannot be; names the line.
    """
    found: dict[str, list[Span]] = {}
    lines: dict[tuple[str, Span], int] = {}
    for line, client, (start, end) in _rows(path, ONLINE):
        if end <= start:
            raise _wrong(path, line, f"'{client}' goes offline before it is online", "swap them")
        found.setdefault(client, []).append((start, end))
        lines[client, (start, end)] = line
    for client, spans in found.items():
        spans.sort()
        for before, after in pairwise(spans):
            if after[0] < before[1]:
                raise _wrong(
                    path,
                    lines[client, after],
                    f"'{client}' is online already when it comes online at {after[0]:g} s",
                    "join stretches that overlap into one line",
                )
    return {client: tuple(spans) for client, spans in found.items()}


def read_speeds(path: Path) -> dict[str, Speed]:
    """How fast devices are: columns client, compute, download, upload, each a second.

    Raises:
      JobError: the file cannot be read, or a line says what cannot be; names the line.
    """
    found: dict[str, Speed] = {}
    for line, client, numbers in _rows(path, SPEEDS):
        if min(numbers) <= 0:
            raise _wrong(
                path, line, f"'{client}' has a speed of {min(numbers):g}", "use more than 0"
            )
        if client in found:
            raise _wrong(path, line, f"'{client}' is there twice", "keep one line of each device")
        found[client] = Speed(*numbers)
    return found


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, str, tuple[float, ...]]]:
    """Each line's number, client and numbers; columns that are not asked for are left alone."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(
            f"the trace cannot be read: {why}", fix="name a CSV file", file=str(path)
        ) from error
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    header = reader.fieldnames or ()
    for column in columns:
        if column not in header:
            raise _wrong(
                path,
                1,
                f"there is no column '{column}' among: {', '.join(header) or 'nothing'}",
                f"write a first line {','.join(columns)}",
            )
    several = False
    for row in reader:
        several = True
        yield (
            reader.line_num,
            _client(path, reader.line_num, row),
            tuple(_number(path, reader.line_num, column, row[column]) for column in columns[1:]),
        )
    if not several:
        raise _wrong(path, 1, "the trace has no lines below its header", "add a line per device")


def _client(path: Path, line: int, row: dict[str, str]) -> str:
    if not row["client"]:
        raise _wrong(path, line, "there is no client", "begin the line with a device's name")
    return row["client"]


def _number(path: Path, line: int, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise _wrong(
            path, line, f"{column} is {text or 'missing'}", "write a number that is not negative"
        )
    return value


def _wrong(path: Path, line: int, message: str, fix: str) -> JobError:
    return JobError(message, fix=fix, file=str(path), line=line)
