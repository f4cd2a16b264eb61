"""A run's memory in its folder: rounds, charges and states, written as they happen.

    reserve, commit ──► ledger.jsonl      a charge is remembered before anything is released
    close           ──► rounds.jsonl, metrics.csv, then a checkpoint

Whoever goes on after a kill goes on from the last checkpoint. Rounds that were closed after it are
dropped and run again, with the same result; their charges are known already and cost nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hansa.core import canonical
from hansa.core.contribute import Purpose
from hansa.core.events import Event
from hansa.core.plan import Plan
from hansa.core.round import Charge, Opening, RoundRecord, TrainState
from hansa.engines.memory import MemoryJournal
from hansa.errors import HansaError
from hansa.privacy.ledger import MemoryLedger
from hansa.runs import checkpoint, rows
from hansa.runs.checkpoint import Checkpoint
from hansa.runs.disk import explained, write_text

ROUNDS = "rounds.jsonl"
METRICS = "metrics.csv"
LEDGER = "ledger.jsonl"

SHARE = 0.01
"""Share of a run's time that checkpoints may take, where no number of rounds is set for them."""

SYNC_SECONDS = 10.0
"""Most of a run that a loss of power takes with it, where rounds are shorter."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a checkpoint is written, and how many are kept.

    Attributes:
      every: rounds from one to the next; 0 = as often as takes 1 % of the time at most.
      keep: the last so many stay; 0 = all.
    """

    every: int = 0
    keep: int = 2


@dataclass(slots=True)
class FileJournal:
    """`core.round.Journal` in a folder.

    Attributes:
      folder: the run's folder, which holds a folder for checkpoints.
      metrics: names of what is measured, as columns.
      pace: of the checkpoints.
      on_saved: called with the number of rounds that are done, after each checkpoint.
      memory: the rounds so far.
    """

    folder: Path
    metrics: Sequence[str]
    pace: Pace
    on_saved: Callable[[int], None]
    memory: MemoryJournal = field(default_factory=MemoryJournal)
    _rounds: IO[str] | None = None
    _csv: IO[str] | None = None
    _began: float = field(default_factory=time.perf_counter)
    _spent: float = 0.0
    _synced: float = field(default_factory=time.perf_counter)
    _trained: TrainState | None = None

    @property
    def records(self) -> Sequence[RoundRecord]:
        """Of all rounds that were closed, in order."""
        return self.memory.records

    @property
    def rounds(self) -> int:
        """Training rounds that are done."""
        return sum(r.purpose is Purpose.TRAIN and not r.void for r in self.memory.records)

    def restore(self) -> TrainState | None:
        """Goes back to the last checkpoint: what was written after it is dropped.

        Returns:
          The state to go on from; None if there is no checkpoint yet.

        Raises:
          HansaError: the record is damaged, or the disk refuses.
        """
        last = checkpoint.newest(self.folder)
        count = 0 if last is None else last.records
        records = self._read(count)
        write_text(self.folder / ROUNDS, "".join(map(rows.to_json, records)))
        lines = [rows.row(record, self.metrics) for record in records]
        write_text(self.folder / METRICS, rows.header(self.metrics) + "".join(lines))
        self.memory.records.extend(records)
        self._trained = None if last is None else last.state
        return self._trained

    async def open(self, opening: Opening) -> Opening:
        """Begins a round; nothing of it is needed after a kill, since its cohort is drawn again."""
        return await self.memory.open(opening)

    async def close(self, record: RoundRecord, state: TrainState) -> TrainState:
        """Ends a round.

        Raises:
          HansaError: the disk refuses; the run can go on from its last checkpoint.
        """
        state = await self.memory.close(record, state)
        with explained(f"round {record.round + 1} cannot be written down", self.folder):
            if self._rounds is None or self._csv is None:
                self._rounds = (self.folder / ROUNDS).open("a", encoding="utf-8")
                self._csv = (self.folder / METRICS).open("a", encoding="utf-8", newline="")
            _append(self._rounds, rows.to_json(record))
            _append(self._csv, rows.row(record, self.metrics))
        # Whoever goes on measures the final model again, so a measurement needs no checkpoint.
        if record.purpose is Purpose.TRAIN:
            self._trained = state
            if self._due(state):
                self._save(state)
        return state

    def finish(self) -> None:
        """Makes the last trained state a durable checkpoint.

        Raises:
          HansaError: the disk refuses.
        """
        if self._trained is not None:
            trained = sum(r.purpose is Purpose.TRAIN for r in self.memory.records)
            last = Checkpoint(self._trained, trained)
            checkpoint.save(self.folder, last, self.pace.keep, sync=True)

    def close_files(self) -> None:
        """Closes what is open; what a full disk did not take is in no checkpoint either."""
        for file in (self._rounds, self._csv):
            try:
                if file is not None:
                    file.close()
            except OSError:
                continue
        self._rounds = self._csv = None

    def _due(self, state: TrainState) -> bool:
        if self.pace.every:
            return state.round % self.pace.every == 0
        return self._spent <= SHARE * (time.perf_counter() - self._began)

    def _save(self, state: TrainState) -> None:
        started = time.perf_counter()
        sync = started - self._synced > SYNC_SECONDS
        at = Checkpoint(state, len(self.memory.records))
        checkpoint.save(self.folder, at, self.pace.keep, sync=sync)
        self.on_saved(state.round)
        ended = time.perf_counter()
        self._synced = ended if sync else self._synced
        self._spent += ended - started

    def _read(self, count: int) -> list[RoundRecord]:
        path = self.folder / ROUNDS
        with explained(f"{path} cannot be read", self.folder):
            lines = path.read_text("utf-8").splitlines() if path.exists() else []
        try:
            records = [rows.of_json(line) for line in lines[:count]]
        except ValueError as error:
            raise _damaged(path) from error
        if len(records) < count:
            raise _damaged(path)
        return records


class FileLedger:
    """`core.round.Ledger` in a folder: a charge is written down before it counts.

    Args:
      folder: the run's folder.
      plan: what declares how much may be spent.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.memory = MemoryLedger(plan.charges)
        self._path, self._plan = folder / LEDGER, plan
        self._file: IO[str] | None = None
        self._known: set[tuple[str, Charge]] = set()
        self._last: tuple[Event | None, str] = (None, "")

    def restore(self) -> None:
        """Remembers what was charged before a kill; a torn last line is a charge never made.

        Raises:
          HansaError: the file is damaged, or holds charges of another plan.
        """
        with explained(f"{self._path} cannot be read", self._path.parent):
            text = self._path.read_text("utf-8") if self._path.exists() else ""
        *lines, torn = text.split("\n") if text else [""]
        for line in lines:
            self._remember(line)
        if torn:
            write_text(self._path, "".join(f"{line}\n" for line in lines))

    def reserve(self, charge: Charge) -> None:
        """Sets a charge aside; raises as `MemoryLedger`, and if the disk refuses."""
        self.memory.reserve(charge)
        self._write("reserve", charge)

    def commit(self, charge: Charge) -> None:
        """Spends a charge that was set aside; raises as `MemoryLedger`, and if the disk refuses."""
        self.memory.commit(charge)
        self._write("commit", charge)

    def close_files(self) -> None:
        """Closes the file."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError:
            pass
        self._file = None

    def _write(self, step: str, charge: Charge) -> None:
        if (step, charge) in self._known:
            return
        words = {
            "step": step,
            "purpose": charge.purpose.value,
            "round": charge.round,
            "attempt": charge.attempt,
            "event": self._digest(charge.event),
        }
        with explained(f"round {charge.round + 1} cannot be charged", self._path.parent):
            if self._file is None:
                self._file = self._path.open("a", encoding="utf-8")
            _append(self._file, json.dumps(words) + "\n")
        self._known.add((step, charge))

    def _digest(self, event: Event) -> str:
        """SHA-256 of an event; most rounds cost the same."""
        if event != self._last[0]:
            self._last = (event, canonical.digest(event))
        return self._last[1]

    def _remember(self, line: str) -> None:
        try:
            words = json.loads(line)
            step, purpose = words["step"], Purpose(words["purpose"])
            number, attempt, event = words["round"], words["attempt"], words["event"]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self._path) from error
        charge = Charge(
            self._plan.job.name,
            number,
            attempt,
            purpose,
            self._plan.charge(number) if attempt == 0 else self._plan.round_event,
        )
        if self._digest(charge.event) != event:
            raise _damaged(self._path)
        (self.memory.reserve if step == "reserve" else self.memory.commit)(charge)
        self._known.add((step, charge))


def _append(file: IO[str], text: str) -> None:
    file.write(text)
    file.flush()


def _damaged(path: Path) -> HansaError:
    return HansaError(
        f"{path} is damaged, or of another run",
        fix="restore the file from a copy, or run the job anew",
    )
