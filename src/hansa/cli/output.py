"""What commands write: results on stdout, everything else on stderr.

    emit    one JSON object                     stdout
    say     a line or a paragraph, wrapped      stdout
    table   columns, wrapped                    stdout
    note    a line about what goes on           stderr
    Progress  a bar on a terminal, plain lines in a log   stderr
    fail    an error: message and fix           stderr

Text is wrapped at the width of the terminal, at 80 columns where there is none. There are no
colours but bold headings, on a terminal, unless NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hansa.errors import HansaError, PlanRefused

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

GAP = 2
NARROWEST = 12

TELL_SECONDS = 10.0
"""How often a log is told how fast it goes, and how long it will take."""


def emit(value: Mapping[str, Any]) -> None:
    """Writes one JSON object to stdout."""
    print(json.dumps(value, indent=2, allow_nan=False))


def say(text: str = "", indent: str = "", later: str | None = None) -> None:
    """Writes a paragraph to stdout, wrapped; lines after the first begin with `later` if given."""
    print(wrapped(text, indent, later))


def heading(text: str) -> None:
    """Writes an empty line and a heading to stdout."""
    print(f"\n{strong(text)}")


def note(text: str) -> None:
    """Writes a line about what goes on to stderr."""
    print(text, file=sys.stderr, flush=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes columns to stdout; what does not fit is wrapped, the widest column first."""
    for line in columns(headers, [list(row) for row in rows], width()):
        print(line)


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]], most: int) -> list[str]:
    """The lines of a table that is at most `most` characters wide, if words allow it.

    A cell may hold several lines; each is wrapped by itself.
    """
    whole = [[cell.split("\n") for cell in row] for row in (headers, *rows)]
    widths = [
        max(1, max(len(line) for cell in column for line in cell))
        for column in zip(*whole, strict=True)
    ]
    while sum(widths) + GAP * (len(widths) - 1) > most and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in whole:
        cells = [_fitted(cell, size) for cell, size in zip(row, widths, strict=True)]
        lines += [
            (" " * GAP).join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in zip_longest(*cells, fillvalue="")
        ]
    return lines


def _fitted(cell: Sequence[str], size: int) -> list[str]:
    return [
        piece
        for line in cell
        for piece in textwrap.wrap(line, size, break_on_hyphens=False) or [""]
    ]


def fail(error: Exception) -> int:
    """Writes an error to stderr and gives the exit code that belongs to it."""
    from hansa.report import problems

    found = problems(error)
    if len(found) > 1:
        what = "The plan is refused" if isinstance(error, PlanRefused) else "The job is refused"
        print(f"{what} for {len(found)} reasons.", file=sys.stderr)
    for problem in found:
        if len(found) > 1:
            print(file=sys.stderr)
        where = f"{problem.part}: " if problem.part else ""
        print(wrapped(f"Error: {where}{problem.because}.", "", "  "), file=sys.stderr)
        print(wrapped(f"Fix: {problem.fix}.", "  "), file=sys.stderr)
    return error.exit_code if isinstance(error, HansaError) else 1


def usage(error: Any) -> None:
    """Writes to stderr what is wrong with a command line."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "hansa"
    print(wrapped(f"Error: {error.format_message()}", "", "  "), file=sys.stderr)
    print(f"  Fix: see {command} --help", file=sys.stderr)


def width() -> int:
    """Columns of the terminal; COLUMNS if it is set, 80 where there is no terminal."""
    return max(shutil.get_terminal_size((80, 24)).columns, 40)


def wrapped(text: str, first: str = "", later: str | None = None) -> str:
    """A paragraph at the width of the terminal."""
    return textwrap.fill(
        text,
        width(),
        initial_indent=first,
        subsequent_indent=first if later is None else later,
        break_on_hyphens=False,
        break_long_words=False,
    )


def strong(text: str) -> str:
    """Bold on a terminal, unless NO_COLOR is set."""
    plain = (
        not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    )
    return text if plain else f"\033[1m{text}\033[0m"


class Progress:
    """Steps of something that takes long: a bar on a terminal, one plain line a step in a log.

    Use it as a context manager and call `step` once for each step that is done.

    Args:
      title: what a step is.
      total: how many steps there are.
      done: how many of them were done before.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self._title, self._total, self._done = title, total, done
        self._began, self._first, self._clients = time.monotonic(), done, 0
        self._tell = TELL_SECONDS
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar, self._task = _bar(self._title, self._total, self._done)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, line: str) -> None:
        """Says something that is no step."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            note(line)

    def begin(self, done: int) -> None:
        """Says that so many steps were done before, once that is known."""
        self._done = self._first = done
        self._began, self._clients, self._tell = time.monotonic(), 0, TELL_SECONDS
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done)

    def step(self, line: str = "", clients: int | None = None) -> None:
        """One more step is done.

        Args:
          line: what came of it.
          clients: how many took part; what is said of speed and of the time left follows from it.
        """
        self._done += 1
        self._clients += clients or 0
        seconds = max(time.monotonic() - self._began, 1e-6)
        rate = "" if clients is None else f"{self._clients / seconds:.3g} clients/s"
        if self._bar is not None and self._task is not None:
            told = "  ".join(part for part in (rate, line) if part)
            self._bar.update(self._task, advance=1, line=told)
            return
        note(wrapped(f"{self._title} {self._done}/{self._total}  {line}", "", "    "))
        if rate and seconds >= self._tell and self._done < self._total:
            self._tell = seconds + TELL_SECONDS
            left = seconds / (self._done - self._first) * (self._total - self._done)
            note(f"    {rate}, {duration(left)} left")


def duration(seconds: float) -> str:
    """A duration as people say it, in its two largest units: `45 s`, `2 min 5 s`, `1 h 40 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _bar(title: str, total: int, done: int) -> tuple[Bar, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    def fixed(columns: int) -> Column:
        return Column(min_width=columns, max_width=columns, no_wrap=True)

    figures = len(str(total))
    bar = Bar(
        TextColumn(title, table_column=fixed(len(title))),
        BarColumn(bar_width=16, table_column=fixed(16)),
        MofNCompleteColumn(table_column=fixed(2 * figures + 1)),
        TimeRemainingColumn(table_column=fixed(7)),
        TextColumn("{task.fields[line]}", table_column=Column(ratio=1, no_wrap=True)),
        console=Console(stderr=True),
        expand=True,
    )
    task = bar.add_task(title, total=total, completed=done, line="")
    bar.start()
    return bar, task
