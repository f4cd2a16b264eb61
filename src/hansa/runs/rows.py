"""A run's rounds as rows: JSON lines to go on from, CSV for people and their tools.

In `metrics.csv` each round is one line; an empty cell is a value that was not measured.

| column       | meaning                                                             |
|--------------|---------------------------------------------------------------------|
| purpose      | train, or evaluate for the measurement of the final model           |
| round        | its number, from 1; of the last round in the line that evaluates    |
| attempt      | its try, from 1; a void round is tried again                        |
| void         | 1 if too few clients counted, so that the model stayed as it was    |
| rejected     | 1 if the measured model was too bad, and an earlier one taken up    |
| trained      | rounds that the measured model was trained for: `round` - 1, or all |
| asked        | clients of the cohort                                               |
| counted      | clients whose updates counted                                       |
| seconds      | from opening to closing                                             |
| model_sha256 | of the parameters after the round                                   |
| the metrics  | of the model that the round started from, in the task's units       |
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple
from typing import Any

from hansa.core.contribute import Purpose
from hansa.core.parts import Dropout
from hansa.core.rollback import Rejected
from hansa.core.round import RoundRecord

COLUMNS = (
    "purpose",
    "round",
    "attempt",
    "void",
    "rejected",
    "trained",
    "asked",
    "counted",
    "seconds",
    "model_sha256",
)


def header(metrics: Sequence[str]) -> str:
    """The first line of the CSV file."""
    return _line([*COLUMNS, *metrics])


def row(record: RoundRecord, metrics: Sequence[str]) -> str:
    """One line of the CSV file."""
    training = record.purpose is Purpose.TRAIN
    values = [record.metrics.get(name) for name in metrics]
    return _line(
        [
            record.purpose.value,
            record.round + 1 if training else record.round,
            record.attempt + 1,
            int(record.void),
            int(record.rejected is not None),
            record.round,
            len(record.cohort),
            len(record.members),
            f"{record.seconds:.6f}",
            record.model,
            *("" if value is None else repr(value) for value in values),
        ]
    )


def to_json(record: RoundRecord) -> str:
    """A record as one line of JSON that `of_json` reads back equal."""
    words: dict[str, Any] = {
        "purpose": record.purpose.value,
        "round": record.round,
        "attempt": record.attempt,
        "cohort": record.cohort,
        "members": record.members,
        "dropouts": [list(astuple(dropout)) for dropout in record.dropouts],
        "void": record.void,
        "metrics": record.metrics,
        "seconds": record.seconds,
        "model": record.model,
    }
    if record.virtual_seconds is not None:
        words["virtual_seconds"] = record.virtual_seconds
    if record.ages:
        words["ages"] = record.ages
    if record.rejected is not None:
        words["rejected"] = asdict(record.rejected)
    return json.dumps(words, separators=(",", ":")) + "\n"


def of_json(line: str) -> RoundRecord:
    """The record that a line holds.

    Raises:
      ValueError: the line is torn or damaged.
    """
    try:
        words = json.loads(line)
        return RoundRecord(
            purpose=Purpose(words["purpose"]),
            round=words["round"],
            attempt=words["attempt"],
            cohort=tuple(words["cohort"]),
            members=tuple(words["members"]),
            dropouts=tuple(Dropout(*dropout) for dropout in words["dropouts"]),
            void=words["void"],
            metrics=words["metrics"],
            seconds=words["seconds"],
            model=words["model"],
            virtual_seconds=words.get("virtual_seconds"),
            ages=tuple(words.get("ages", ())),
            rejected=Rejected(**words["rejected"]) if "rejected" in words else None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no record of a round: {error}") from error


def _line(cells: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
