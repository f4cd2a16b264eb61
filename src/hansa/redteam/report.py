"""A finished matrix: its rows, what they are of, and whether they keep to the limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hansa.errors import HansaError
from hansa.redteam.gate import Limit, broken
from hansa.redteam.matrix import Matrix
from hansa.redteam.rows import Row

FORMAT = 1
"""Version of the JSON."""

JSON_FILE, PAGE_FILE = "redteam.json", "redteam.html"


@dataclass(frozen=True, slots=True)
class Report:
    """What is shown, printed and written.

    Attributes:
      job: its name.
      rounds: of each run.
      clients: of the federation.
      told: share of bad clients that the rules are told, where they are told one.
      rows: one for each attack, share, skew and rule.
      limits: of the gate.
    """

    job: str
    rounds: int
    clients: int
    told: float
    rows: tuple[Row, ...]
    limits: tuple[Limit, ...] = ()

    @property
    def broken(self) -> list[tuple[Row, str]]:
        """Rows that break a limit."""
        return broken(self.limits, self.rows)

    def to_json(self) -> dict[str, Any]:
        """As it is printed."""
        return {
            "format": FORMAT,
            "job": self.job,
            "rounds": self.rounds,
            "clients": self.clients,
            "told_bad": self.told,
            "rows": [row.to_json() for row in self.rows],
            "limits": [
                {"name": limit.name, "at_least" if limit.least else "at_most": limit.value}
                for limit in self.limits
            ],
            "broken": [
                {
                    "attack": row.attack,
                    "share": row.share,
                    "skew": row.skew,
                    "rule": row.rule,
                    "because": because,
                }
                for row, because in self.broken
            ],
        }


def report_of(
    matrix: Matrix, rows: Sequence[Row], limits: Sequence[Limit], bad: float | None = None
) -> Report:
    """The report of a matrix that was run."""
    job = matrix.job
    told = job.aggregation.bad if bad is None else bad
    return Report(
        job.name, job.rounds.count, len(matrix.own.clients), told, tuple(rows), tuple(limits)
    )


def write(report: Report, folder: Path) -> None:
    """Writes the rows as JSON, and the page.

    Raises:
      HansaError: the folder cannot be written.
    """
    from hansa.redteam.page import page

    text = json.dumps(report.to_json(), indent=2, sort_keys=True, allow_nan=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON_FILE).write_text(text, "utf-8")
        (folder / PAGE_FILE).write_text(page(report), "utf-8")
    except OSError as error:
        raise HansaError(
            f"{folder} cannot be written ({error.strerror})", fix="name another folder"
        ) from error
