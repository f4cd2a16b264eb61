"""A run's folder: what is in it, how one is made, and in what state it is.

run.json          what runs: digests, seeds, overrides, the data's digests
job.toml          the job as it was written
resolved.json     the job as it runs: every word, overrides and found numbers included
plan.json         trail, claims, epsilon, cost
environment.json  versions, machine, commit
status.json       how far it is (see `Status`), and why
rounds.jsonl      one line per round, to go on from
metrics.csv       the same for people
ledger.jsonl      charges
checkpoints/      states between rounds
result.json       at the end: what hansa simulate --json prints
model.npz         at the end: the model's arrays by name
metrics.svg       at the end: a picture of the metrics
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from hansa.errors import HansaError, Refused
from hansa.runs.disk import explained, read_json, write_json

RUN = "run.json"
JOB = "job.toml"
RESOLVED = "resolved.json"
PLAN = "plan.json"
ENVIRONMENT = "environment.json"
STATUS = "status.json"
RESULT = "result.json"
MODEL = "model.npz"
CHART = "metrics.svg"
LOCK = "lock"
SWEEP = "sweep.json"

FORMAT = 1
"""Version of the files above."""

HOME = Path("runs")
"""Where runs go unless they are told otherwise, in the current folder."""

DONE = frozenset({"finished", "stopped"})
"""States of a run that has a final model."""

_held: set[Path] = set()
_TRIES, _AGAIN_SECONDS = 10, 0.05


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is.

    Attributes:
      state: prepared (nothing ran yet), running, finished (all rounds), stopped (early, as the
        job's patience says), interrupted, failed, void (a round was, again and again, and would be
        once more), or killed (its process is gone).
      round: rounds that are done and recorded.
      rounds: of the job.
      because: why it ended, or is not over.
    """

    state: str
    round: int
    rounds: int
    because: str

    @property
    def done(self) -> bool:
        """Whether there is a final model."""
        return self.state in DONE

    def __str__(self) -> str:
        return f"{self.state} after round {self.round} of {self.rounds}: {self.because}"


def make(output: Path | None, name: str) -> Path:
    """Makes a new folder: `output`, or the next number under `runs`.

    A folder that is empty is taken as it is.

    Raises:
      HansaError: it exists and holds something, or cannot be made.
    """
    if output is not None:
        with explained(f"the folder '{output}' cannot be made", output.parent):
            if output.is_dir() and any(output.iterdir()):
                raise occupied(output)
            output.mkdir(parents=True, exist_ok=True)
        return output
    with explained(f"a folder under '{HOME}' cannot be made", HOME):
        HOME.mkdir(exist_ok=True)
        while True:  # ends: each turn, somebody made a folder
            taken = [re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name) for p in HOME.iterdir()]
            number = max((int(match[1]) for match in taken if match), default=0) + 1
            at = HOME / f"{name}-{number:03d}"
            with suppress(FileExistsError):
                at.mkdir()
                return at


def occupied(output: Path) -> HansaError:
    """What is said of a folder that holds something already."""
    inside = (output / RUN).exists() or (output / SWEEP).exists()
    return HansaError(
        f"the folder '{output}' holds {'a run' if inside else 'something'} already",
        fix=f"name another --output{f', or go on with --resume {output}' if inside else ''}",
    )


def read_run(folder: Path) -> Mapping[str, Any]:
    """What `run.json` says.

    Raises:
      HansaError: it is no run's folder, or it was written by a newer Hansa.
    """
    said: dict[str, Any] = read_json(folder / RUN)
    if said.get("format") != FORMAT:
        raise HansaError(
            f"the run in '{folder}' has format {said.get('format')}, this Hansa reads {FORMAT}",
            fix="use the Hansa that made it; environment.json names its version",
        )
    return said


def read_status(folder: Path) -> Status:
    """How far a run is; one whose process is gone was killed.

    Raises:
      HansaError: it is no run's folder.
    """
    said = read_json(folder / STATUS)
    status = Status(said["state"], said["round"], said["rounds"], said["because"])
    if status.state == "running" and not in_use(folder):
        return Status("killed", status.round, status.rounds, "its process is gone")
    return status


def write_status(folder: Path, status: Status, *, sync: bool = False, **more: object) -> None:
    """Replaces `status.json`.

    Raises:
      HansaError: the disk refuses.
    """
    words = {
        "state": status.state,
        "round": status.round,
        "rounds": status.rounds,
        "because": status.because,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": os.getpid(),
        **more,
    }
    write_json(folder / STATUS, words, sync=sync)


class Lock:
    """Keeps a folder for one process; it is free again when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder.

        Raises:
          Refused: another process has it, or this one.
          HansaError: the disk refuses.
        """
        self._at = (folder / LOCK).resolve()
        if self._at in _held:  # such locks do not keep a process from itself
            raise _busy(folder)
        with explained(f"{self._at} cannot be opened", folder):
            self._file: IO[str] = self._at.open("a+", encoding="ascii")
        for left in reversed(range(_TRIES)):  # whoever looks whether it is free has it meanwhile
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if not left:
                    self._file.close()
                    raise _busy(folder) from error
                time.sleep(_AGAIN_SECONDS)
        _held.add(self._at)

    def release(self) -> None:
        """Gives the folder free."""
        _held.discard(self._at)
        self._file.close()


def _busy(folder: Path) -> Refused:
    return Refused(
        f"the run in '{folder}' is going on already", fix="wait for it, or end its process first"
    )


def in_use(folder: Path) -> bool:
    """Whether some process has the folder."""
    at = (folder / LOCK).resolve()
    if at in _held:
        return True
    if not at.exists():
        return False
    try:
        with at.open("a+", encoding="ascii") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
