"""Runs beside each other: what they differ in, what they came to, the best first."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hansa.errors import HansaError
from hansa.nearest import suggest
from hansa.runs import chart, folder
from hansa.runs.chart import Line
from hansa.runs.disk import explained, finite, read_json, write_text
from hansa.runs.folder import read_run, read_status
from hansa.runs.journal import METRICS
from hansa.runs.settings import label
from hansa.runs.source import flat

TABLE = "comparison.csv"
PICTURE = "comparison.svg"


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
      name: of its folder.
      folder: where it is.
      values: what it differs from the others in, by `section.key`.
      state: see `hansa.runs.folder.Status`.
      because: why it ended, or is not over.
      rounds: that are done.
      final: values of the final model; of a run that is not over, of the last model measured.
      seconds: its rounds took.
      model_sha256: of the final model; empty while there is none.
    """

    name: str
    folder: str
    values: Mapping[str, Any]
    state: str
    because: str
    rounds: int
    final: Mapping[str, float | None]
    seconds: float
    model_sha256: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs in the order of one metric, the best first; those without a value last.

    Attributes:
      rows: the runs.
      by: the metric; empty if none was measured.
      better: `higher` or `lower`, by metric.
      keys: what runs differ in.
    """

    rows: tuple[Row, ...]
    by: str
    better: Mapping[str, str]
    keys: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The comparison as one JSON object; what is not finite is null."""
        best = self.rows[0] if self.rows and value_of(self.rows[0], self.by) is not None else None
        found = finite(
            {
                "by": self.by or None,
                "better": self.better.get(self.by),
                "best": None if best is None else best.name,
                "runs": [asdict(row) for row in self.rows],
            }
        )
        return dict(found) if isinstance(found, dict) else {}


def compare(
    folders: Sequence[Path], by: str | None = None, keys: Sequence[str] | None = None
) -> Comparison:
    """Compares runs.

    Args:
      folders: one for each run.
      by: the metric to sort by; the one that the job watches if None.
      keys: what is shown of each run's job; the words in which they differ if None.

    Raises:
      HansaError: a folder is no run's, or nothing of that name was measured.
    """
    about = [read_run(at) for at in folders]
    words = [flat(read_json(at / folder.RESOLVED)) for at in folders]
    shown = differing(words) if keys is None else tuple(keys)
    better = {name: way for run in about for name, way in run["metrics"].items()}
    chosen = _chosen(by, better, [run["watch"] for run in about])
    names = _names(folders)
    rows = [_row(*each, shown) for each in zip(names, folders, words, strict=True)]
    return Comparison(tuple(ordered(rows, chosen, better.get(chosen, ""))), chosen, better, shown)


def ordered(rows: Sequence[Row], by: str, better: str) -> list[Row]:
    """The best first; equal ones, and those without a value, as they came."""
    sign = -1.0 if better == "higher" else 1.0

    def place(row: Row) -> tuple[bool, float]:
        value = value_of(row, by)
        return (value is None, 0.0 if value is None else sign * value)

    return sorted(rows, key=place)


def value_of(row: Row, by: str) -> float | None:
    """What a run is sorted by; None where it has no final model, or its value is not finite."""
    value = row.final.get(by)
    if row.state not in folder.DONE or value is None or not math.isfinite(value):
        return None
    return value


def differing(words: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The words in which jobs differ, in the order of the jobs."""
    names = dict.fromkeys(name for each in words for name in each)
    return tuple(n for n in names if len({repr(each.get(n)) for each in words}) > 1)


def write(at: Path, comparison: Comparison, title: str) -> None:
    """Writes the table as CSV and the picture of the metrics over rounds.

    Raises:
      HansaError: the disk refuses.
    """
    write_text(at / TABLE, to_csv(comparison))
    first = [comparison.by] if comparison.by else []
    panels = [*first, *(name for name in comparison.better if name != comparison.by)]
    lines = [Line(_title(row), _points(Path(row.folder))) for row in comparison.rows]
    text = chart.picture(lines, title=title, better=comparison.better, metrics=panels)
    write_text(at / PICTURE, text)


def to_csv(comparison: Comparison) -> str:
    """The table with everything that the comparison holds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = list(comparison.better)
    writer.writerow(
        ["run", *comparison.keys, "state", "rounds", *metrics, "seconds", "model_sha256", "because"]
    )
    for row in comparison.rows:
        values = [row.final.get(name) for name in metrics]
        writer.writerow(
            [
                row.name,
                *(row.values.get(key) for key in comparison.keys),
                row.state,
                row.rounds,
                *("" if value is None else repr(value) for value in values),
                f"{row.seconds:.3f}",
                row.model_sha256,
                row.because,
            ]
        )
    return out.getvalue()


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of folders; with that of the folder around them where two are equal."""
    short = [at.name for at in folders]
    if len(set(short)) == len(short):
        return short
    return [f"{at.resolve().parent.name}/{at.name}" for at in folders]


def _row(name: str, at: Path, words: Mapping[str, Any], keys: Sequence[str]) -> Row:
    status, lines = read_status(at), _lines(at)
    result = read_json(at / folder.RESULT) if status.done else {}
    final = result.get("final", {})
    if not status.done and lines:
        known = read_run(at)["metrics"]
        final = {name: float(v) for name, v in lines[-1].items() if name in known and v}
    return Row(
        name=name,
        folder=str(at),
        values={key: words.get(key) for key in keys},
        state=status.state,
        because=status.because,
        rounds=status.round,
        final=final,
        seconds=sum(float(line["seconds"]) for line in lines),
        model_sha256=result.get("model_sha256", ""),
    )


def _chosen(by: str | None, better: Mapping[str, str], watched: Sequence[str]) -> str:
    if by is not None and by not in better:
        raise HansaError(
            f"no run measured '{by}'", fix=f"sort by another one: {suggest(by, better, 'metrics')}"
        )
    if by is not None:
        return by
    return next((name for name in [*watched, *better] if name in better), "")


def _title(row: Row) -> str:
    return f"{row.name}  {label(row.values)}" if row.values else row.name


def _points(at: Path) -> dict[str, list[tuple[float, float]]]:
    """The measured values of a run over the rounds that the model was trained for."""
    names = read_run(at)["metrics"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for line in _lines(at):
        for name, points in found.items():
            text = line.get(name)
            if text and math.isfinite(float(text)):
                points.append((float(line["trained"]), float(text)))
    return found


def _lines(at: Path) -> list[dict[str, str]]:
    """The whole lines of a run's metrics; its last may be under way."""
    path = at / METRICS
    if not path.exists():
        return []
    with explained(f"{path} cannot be read", at):
        text = path.read_text("utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
