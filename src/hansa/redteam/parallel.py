"""Runs the cells of a matrix in several processes at a time; what comes of each is the same.

    record, cells ──► errands ──► workers ──► outcome ──► record, written by this process alone
                         ▲                       │
                         └── needed the model ◄──┘  of the run with nobody bad

A cell that needs the model of the run with nobody bad is begun after that run, and is sent it.

| what happens                          | result                                                  |
|---------------------------------------|---------------------------------------------------------|
| a worker is killed                    | its cell runs again in another one, up to three times   |
| a cell cannot run                     | the same error as in one process; all others end        |
| Ctrl-C                                | all workers end; what is in the record is kept          |
| this process is killed                | its workers hear it and end                             |
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from hansa.core.vector import Vector
from hansa.errors import HansaError, Refused
from hansa.redteam.cell import Cell, Outcome
from hansa.redteam.orders import Answer, Failed, Order, Setup, Wire
from hansa.redteam.record import Record, key_of
from hansa.redteam.running import OnCell, Work, compares, unattacked
from hansa.runs.children import Children, each
from hansa.work.threads import environment

TRIES = 3
"""How often a cell is run whose workers are killed."""

_STDERR = 2


def in_processes(
    parallel: int, work: Work, cells: Sequence[Cell], record: Record, on_cell: OnCell
) -> dict[Cell, Outcome]:
    """Runs all cells that the record does not have, `parallel` at a time.

    What is known is told first, then each cell when it has ended.

    Args:
      parallel: cells at a time.
      work: the job, and the plans of its cells.
      cells: what is run.
      record: what was run before; what runs now is added as it ends.
      on_cell: called after each, in this thread.

    Raises:
      HansaError: a cell cannot run, or workers are killed again and again.
    """
    schedule, crew = _Schedule(work, record, on_cell), _Crew(work)
    try:
        each(parallel, schedule.begin(cells), crew.run, schedule.ended, crew.children.stop)
    finally:
        crew.close()
    return schedule.outcomes


@dataclass(frozen=True, slots=True)
class _Errand:
    """A cell that can run now.

    Attributes:
      order: what its worker is told.
      key: what names the cell in the record.
      known: its outcome is known, and only its model is wanted.
    """

    order: Order
    key: str
    known: bool = False


@dataclass(slots=True)
class _Schedule:
    """Which cells can run, and what is known of the others.

    Attributes:
      outcomes: of all cells that are known or have ended.
    """

    work: Work
    record: Record
    on_cell: OnCell
    outcomes: dict[Cell, Outcome] = field(default_factory=dict)
    _same: dict[str, list[Cell]] = field(default_factory=dict)
    """Cells by their key: those of one key are one run."""
    _waiting: dict[str, list[Cell]] = field(default_factory=dict)
    """Cells that need a model, by the key of the cell that gives it."""

    def begin(self, cells: Sequence[Cell]) -> list[_Errand]:
        """What can run at once, in the order of the cells."""
        ready, known = list[Cell](), set[Cell]()
        for cell in cells:
            key = self._key(cell)
            found = self.record.find(self.work.plan(cell).digest, cell)
            if found is not None:
                self._tell(cell, found, new=False)
            elif key in self._same:
                self._same[key].append(cell)
            else:
                self._same[key] = [cell]
                if not compares(cell):
                    ready.append(cell)
                    continue
                clean = unattacked(cell)
                needed = self._waiting.setdefault(self._key(clean), [])
                if not needed and self._key(clean) not in self._same:
                    ready.append(clean)
                    known.add(clean)
                needed.append(cell)
        return [self._errand(cell, known=cell in known) for cell in ready]

    def ended(self, errand: _Errand, answer: Answer) -> list[_Errand]:
        """Writes down what came of a cell; gives those that waited for its model."""
        cell = errand.order.cell
        if not errand.known:
            self.record.add(self.work.plan(cell).digest, cell, answer.outcome)
            for number, same in enumerate(self._same[errand.key]):
                self._tell(same, answer.outcome, new=number == 0)
        waiting = self._waiting.pop(errand.key, [])
        return [self._errand(other, answer.params) for other in waiting]

    def _errand(self, cell: Cell, clean: Vector | None = None, known: bool = False) -> _Errand:
        key = self._key(cell)
        return _Errand(Order(cell, clean, wanted=key in self._waiting), key, known)

    def _tell(self, cell: Cell, outcome: Outcome, new: bool) -> None:
        self.outcomes[cell] = outcome
        self.on_cell(cell, outcome, new)

    def _key(self, cell: Cell) -> str:
        return key_of(self.work.plan(cell).digest, cell)


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process that runs one cell after the other."""

    process: subprocess.Popen[bytes]
    wire: Wire


@dataclass(slots=True)
class _Crew:
    """The workers: as many as there are threads that wait for one."""

    work: Work
    children: Children = field(default_factory=lambda: Children(signal.SIGTERM))
    _idle: list[_Worker] = field(default_factory=list)

    def run(self, errand: _Errand) -> Answer:
        """Has one cell run by a worker that is free, or by a new one.

        Raises:
          HansaError: the cell cannot run, or each worker that ran it was killed.
        """
        how = ""
        for _ in range(TRIES):
            worker = self._idle.pop() if self._idle else self._start()
            said = _asked(worker, errand.order)
            if isinstance(said, Answer):
                self._idle.append(worker)
                return said
            how = _words(self._gone(worker))
            if isinstance(said, Failed):
                raise (Refused if said.refused else HansaError)(said.message, fix=said.fix)
        cell = errand.order.cell
        raise HansaError(
            f"the process that ran {cell.attack} on {cell.skew} data {how}, {TRIES} times",
            fix="run fewer cells at a time, with a lower --parallel, if memory ran out; see what "
            "the task does with --parallel 1",
        )

    def close(self) -> None:
        """Hangs up: workers end by themselves when they hear it."""
        while self._idle:
            self._gone(self._idle.pop())

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = self.children.start(
                [sys.executable, "-P", "-m", "hansa.redteam.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE,  # nobody writes to it; it ends with this process
                stdout=_STDERR,  # what a task prints is no result
                env=environment(),
                pass_fds=(theirs.fileno(),),
            )
            wire: Wire = Connection(ours.detach())
        with suppress(OSError):  # its end is seen when its answer is waited for
            wire.send(self.work.job)
            wire.send(Setup(self.work.own.clients, dict(self.work.plans)))
        return _Worker(process, wire)

    def _gone(self, worker: _Worker) -> int:
        worker.wire.close()
        if worker.process.stdin is not None:
            worker.process.stdin.close()
        return self.children.wait(worker.process)


def _asked(worker: _Worker, order: Order) -> Answer | Failed | None:
    """What a worker says of a cell; None if it is gone."""
    with suppress(OSError):
        worker.wire.send(order)
    try:
        said: Answer | Failed = worker.wire.recv()
    except (EOFError, OSError):
        return None
    return said


def _words(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
