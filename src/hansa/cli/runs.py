"""`hansa runs`: runs beside each other, and the table that a sweep prints, too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hansa.cli.arguments import BY, JSON
from hansa.cli.output import GAP, emit, say, table, width

if TYPE_CHECKING:
    from hansa.runs.compare import Comparison, Row


def runs(
    folders: list[Path] | None = typer.Argument(
        None,
        metavar="[FOLDER]...",
        help="Folders of runs or sweeps, or folders that hold some; runs if left out.",
        show_default=False,
    ),
    by: str | None = BY,
    json: bool = JSON,
) -> None:
    """List runs that were simulated, and compare them.

    The best comes first. Columns are the words in which the jobs differ, then the metrics of the
    final model, as many as fit.
    """
    from hansa.runs.compare import compare
    from hansa.runs.folder import HOME
    from hansa.runs.sweep import runs_under

    given = folders or [HOME]
    found = list(dict.fromkeys(run for each in given for run in runs_under(each)))
    comparison = compare(found, by)
    if json:
        emit(comparison.to_json())
    else:
        show(comparison)


def show(comparison: Comparison) -> None:
    """Prints the table, at the width of the terminal, and why runs have no final model."""
    rows = comparison.rows
    lasting = all(row.state in ("finished", "stopped") for row in rows)
    columns = [("Run", [row.name for row in rows])]
    columns += [
        (_short(key, comparison.keys), [_text(row.values.get(key)) for row in rows])
        for key in comparison.keys
    ]
    ending = [("Rounds", [str(row.rounds) for row in rows])]
    ending += [] if lasting else [("State", [row.state for row in rows])]
    metrics = [comparison.by] if comparison.by else []
    metrics += [name for name in comparison.better if name != comparison.by]
    for name in metrics:
        column = (name, [_number(row.final.get(name)) for row in rows])
        if name == comparison.by or _wide([*columns, column, *ending]) <= width():
            columns.append(column)
    while _wide([*columns, *ending]) > width() and len(columns) > 2:
        del columns[-2 if comparison.by else -1]  # the metric that is sorted by stays
    shown = [*columns, *ending]
    table(
        [name for name, _ in shown],
        list(zip(*(values for _, values in shown), strict=True)) if rows else [],
    )
    if comparison.by:
        say(f"Sorted by {comparison.by}, {comparison.better[comparison.by]} is better.")
    for row in rows:
        if row.state not in ("finished", "stopped"):
            say(f"{row.name} {_ended(row)}", "", "  ")


def _ended(row: Row) -> str:
    return f"({row.state} after {row.rounds} rounds): {row.because}."


def _wide(columns: list[tuple[str, list[str]]]) -> int:
    sizes = [max(map(len, [name, *values])) for name, values in columns]
    return sum(sizes) + GAP * (len(sizes) - 1)


def _short(key: str, keys: tuple[str, ...]) -> str:
    """The key without its section, unless another key has the same name."""
    name = key.rpartition(".")[2]
    return name if sum(other.rpartition(".")[2] == name for other in keys) == 1 else key


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
