"""Cells that were run, one line each in a file, so that a matrix goes on where it was."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from hansa.core import canonical
from hansa.errors import HansaError
from hansa.redteam.cell import Cell, Outcome

CELLS = "cells.jsonl"
FORMAT = 2
"""Version of a line; lines of another are run again."""


@dataclass(slots=True)
class Record:
    """Outcomes by what gave them; in memory alone without a folder.

    What names an outcome is the plan's digest, which covers the job and the task's code, and the
    cell. Data are not covered: use a new folder after they changed.

    Attributes:
      file: where lines are added; None: nowhere.
    """

    file: Path | None = None
    _known: dict[str, Outcome] = field(default_factory=dict, repr=False)

    @classmethod
    def at(cls, folder: Path | None) -> Record:
        """Reads what a folder has, and makes it if need be.

        A last line that a kill cut short is left out.

        Raises:
          HansaError: the folder cannot be read or written.
        """
        if folder is None:
            return cls()
        file = folder / CELLS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = file.read_text("utf-8").splitlines() if file.exists() else []
        except OSError as error:
            raise _cannot(file, error) from error
        record = cls(file)
        for line in lines:
            try:
                value = json.loads(line)
                if value["format"] == FORMAT:
                    record._known[value["key"]] = Outcome.of_json(value["outcome"])
            except (ValueError, KeyError, TypeError):
                continue
        return record

    def find(self, digest: str, cell: Cell) -> Outcome | None:
        """What came of a cell before; None if it was not run."""
        return self._known.get(key_of(digest, cell))

    def add(self, digest: str, cell: Cell, outcome: Outcome) -> None:
        """Writes a cell down.

        Raises:
          HansaError: the file cannot be written.
        """
        key = key_of(digest, cell)
        self._known[key] = outcome
        if self.file is None:
            return
        line = json.dumps({"format": FORMAT, "key": key, "outcome": outcome.to_json()})
        try:
            ended = not self.file.exists() or self.file.read_bytes()[-1:] in (b"\n", b"")
            with self.file.open("a", encoding="utf-8") as out:
                out.write(("" if ended else "\n") + line + "\n")
        except OSError as error:
            raise _cannot(self.file, error) from error


def key_of(digest: str, cell: Cell) -> str:
    """What names the outcome of a cell; the digest covers its rule and its seed."""
    return canonical.digest(
        {"plan": digest, "attack": cell.attack, "share": cell.share, "skew": cell.skew}
    )


def _cannot(file: Path, error: OSError) -> HansaError:
    return HansaError(
        f"{file} cannot be read or written ({error.strerror})", fix="name another folder"
    )
