"""Limits that a release gate sets on a matrix, such as accuracy=0.8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hansa.errors import Refused
from hansa.nearest import suggest
from hansa.redteam.rows import Row

HIGH = (
    "accuracy",
    "worst_group",
    "worst_site",
    "worst_class",
    "worst_cohort",
    "minority",
    "detected",
)
"""Numbers of a row that must not be too low."""

LOW = (
    "attack_success", "false_positives", "minority_false_positives", "minority_cost", "site_spread",
)  # fmt: skip
"""Numbers of a row that must not be too high."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The lowest or the highest value that every row may have.

    Attributes:
      name: a column.
      value: the limit.
      least: whether it is the lowest; else the highest.
    """

    name: str
    value: float
    least: bool

    @classmethod
    def read(cls, text: str, *, least: bool) -> Limit:
        """From NAME=NUMBER.

        Raises:
          Refused: there is no such column, or the value is no number.
        """
        name, _, number = text.partition("=")
        known = HIGH if least else LOW
        if name not in known:
            raise Refused(
                f"'{name}' has no {'lowest' if least else 'highest'} value",
                fix=suggest(name, known, "names"),
            )
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise Refused(f"'{text}' sets no limit", fix=f"write a number: {name}=0.8")
        return cls(name, value, least)

    def broken(self, row: Row) -> str:
        """How a row breaks the limit; empty if it does not. What is not known breaks it."""
        found = getattr(row, self.name)
        what = self.name.replace("_", " ")
        if found is None:
            if row.share == 0 and self.name in ("detected", "attack_success"):
                return ""  # nobody is there to be found or to succeed
            return f"{what} is not known"
        if self.least and found < self.value:
            return f"{what} {found:.3g} is under {self.value:g}"
        if not self.least and found > self.value:
            return f"{what} {found:.3g} is over {self.value:g}"
        return ""


def broken(limits: Sequence[Limit], rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """All rows that break a limit, each with how."""
    return [(row, found) for row in rows for limit in limits if (found := limit.broken(row))]
