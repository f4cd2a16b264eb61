"""Writes a simulation down in a folder, or goes on with one that was written down.

simulate ──► begin(plan, task) ──► journal, ledger, state ──► rounds ──► finish(result)
               │ new: the folder is made                          │
               │ resumed: it is compared and read                 └─ kill: the last checkpoint
               ▼
             status.json: running
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol

from hansa.core import canonical
from hansa.core.job import Job
from hansa.core.parts import Task
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord
from hansa.errors import HansaError, Refused, RoundVoid
from hansa.jobfile import job_to_words
from hansa.runs import chart, folder, same
from hansa.runs.checkpoint import FOLDER as CHECKPOINTS
from hansa.runs.checkpoint import write_model
from hansa.runs.disk import explained, write_json, write_text
from hansa.runs.environment import environment_of
from hansa.runs.fingerprint import fingerprints
from hansa.runs.folder import Lock, Status, write_status
from hansa.runs.journal import FileJournal, FileLedger, Pace
from hansa.runs.outcome import ending, outcome, stopped_early
from hansa.runs.settings import label
from hansa.runs.source import Source, job_of
from hansa.simulation import Memory, Result

LOOSE = ("vector", "auto")
"""Engines that may train clients in stacks: results are those of the others to about 1e-4."""


class Listener(Protocol):
    """Who is told how a recorded run goes, such as a tracking server.

    Attributes:
      lost: why it was not told everything; empty while all is well.
    """

    lost: str

    def begin(self, at: Path, plan: Plan) -> None:
        """The run begins or goes on; its folder says the rest."""

    def heard(self, record: RoundRecord) -> None:
        """A round was closed."""

    def end(self, at: Path, status: Status) -> None:
        """The run ended, for good or not; what it left is in its folder."""


@dataclass(slots=True)
class Recorder:
    """A `hansa.simulation.Keeper` with a folder. Use it as a context manager around `simulate`.

    Attributes:
      output: the new run's folder; the next number under `runs` if None.
      source: where the job came from.
      pace: of the checkpoints.
      listeners: who is told how it goes.
      resumed: whether `output` holds a run that goes on.
      engine: what `simulate` is told to run the clients with.
      at: the run's folder, once it is known.
      on_begin: called with the number of rounds that were done before, when the run begins.
      data: digests of the clients' examples, if they were read already.
      notes: what the person should be told, such as another version of NumPy.
    """

    output: Path | None = None
    source: Source = field(default_factory=Source)
    pace: Pace = field(default_factory=Pace)
    listeners: Sequence[Listener] = ()
    resumed: bool = False
    engine: str = "inline"
    at: Path | None = None
    on_begin: Callable[[int], None] | None = None
    data: Mapping[str, str | None] | None = None
    notes: list[str] = field(default_factory=list)
    _lock: Lock | None = None
    _plan: Plan | None = None
    _journal: FileJournal | None = None
    _ledger: FileLedger | None = None
    _ended: bool = False

    @classmethod
    def resume(
        cls,
        at: Path,
        pace: Pace | None = None,
        listeners: Sequence[Listener] = (),
        engine: str | None = None,
    ) -> Recorder:
        """Goes on with the run in a folder.

        Args:
          at: the folder.
          pace: of the checkpoints from now on.
          listeners: who is told how it goes on.
          engine: what runs the clients from now on; as before if None.

        Raises:
          HansaError: it is no run's folder.
          Refused: the run is over or failed for good, or the engine gives other bits.
        """
        status = folder.read_status(at)
        if status.done:
            raise Refused(
                f"the run in '{at}' is over: {status.because}", fix="begin a new run of the job"
            )
        if status.state == "void":
            raise Refused(
                f"the run in '{at}' failed, and would fail again: {status.because}",
                fix="change the job and begin a new run",
            )
        began = folder.read_run(at)["engine"]
        if engine is not None and (engine in LOOSE) != (began in LOOSE):
            raise Refused(
                f"the run in '{at}' began with the engine {began}, and {engine} gives other bits",
                fix=f"go on with --engine {began}, or begin a new run",
            )
        chosen = engine or began
        return cls(at, pace=pace or Pace(), listeners=listeners, resumed=True, engine=chosen)

    def job(self, given: Job | None = None) -> Job:
        """The job of a run that goes on, after a look at its code.

        Args:
          given: the job that the person named, if any; it must be the run's.

        Raises:
          Refused: the code has changed.
        """
        at = self._output()
        job = job_of(at) if given is None else given
        same.check_code(at, job)
        return job

    def devices(self, given: Path | None = None) -> Path | None:
        """The devices of a run that goes on, after a look at them.

        Args:
          given: the file that the person named, if any; it must say what the run's said.

        Raises:
          Refused: they have changed.
        """
        return same.check_devices(self._output(), given)

    def prepare(self, plan: Plan, task: Task, population: Sequence[str]) -> Path:
        """Makes the folder of a run that will begin later, by `resume`.

        Raises:
          HansaError: the folder cannot be made or written.
        """
        at = self.at = folder.make(self.output, plan.job.name)
        self._describe(at, plan, task, population)
        write_status(at, Status("prepared", 0, plan.job.rounds.count, "nothing ran yet"))
        return at

    def begin(self, plan: Plan, task: Task, population: Sequence[str]) -> Memory:
        """Makes the folder, or reads it, before the first round.

        Raises:
          HansaError: the folder cannot be made, read or written.
          Refused: job, code or data are not those that the run began with.
        """
        self._plan = plan
        if self.resumed:
            self.at = at = self._output()
            self._lock = Lock(at)
            same.check_job(at, plan)
            same.check_data(at, task)
            changed = same.changed_environment(at)
            if changed:
                self.notes.append(
                    f"Since the run began, {'; '.join(changed)}: the model may differ in its last "
                    "bits from that of a run that was not interrupted."
                )
        else:
            self.at = at = folder.make(self.output, plan.job.name)
            self._lock = Lock(at)
            self._describe(at, plan, task, population)
        self._journal = FileJournal(at, metric_names(plan), self.pace, self._saved)
        self._ledger = FileLedger(at, plan)
        state = self._journal.restore()
        self._ledger.restore()
        self._saved(self._journal.rounds)
        if self.on_begin is not None:
            self.on_begin(self._journal.rounds)
        for listener in self.listeners:
            listener.begin(at, plan)
        return Memory(self._journal, self._ledger, state)

    def heard(self, record: RoundRecord) -> None:
        """Tells the listeners of a round; for `simulate`'s `on_round`."""
        for listener in self.listeners:
            listener.heard(record)

    def finish(self, result: Result) -> dict[str, object]:
        """Writes what a finished run leaves.

        Returns:
          What `hansa simulate --json` prints.

        Raises:
          HansaError: the disk refuses; the run can be resumed.
        """
        at, plan, state = self._output(), result.plan, result.state
        if self._journal is not None:
            self._journal.finish()
        if self.resumed and "vector" in result.engine:
            self.notes.append(
                "Clients were trained in stacks, so the model is that of a run that was not "
                "interrupted to about 1e-4, not to the bit; the engines inline, workers and ray "
                "give the same bits."
            )
        said = {**outcome(result), "folder": str(at)}
        write_model(at / folder.MODEL, plan.task.schema, state.params)
        write_json(at / folder.RESULT, said, sync=True)
        lines = chart.lines_of(at.name, result.records)
        better = {m.name: m.better.name.lower() for m in plan.task.metrics}
        changed = label(folder.read_run(at)["overrides"])
        title = f"{plan.job.name}: {at.name} {changed}".strip()
        write_text(at / folder.CHART, chart.picture(lines, title=title, better=better))
        kind = "stopped" if stopped_early(plan, state) else "finished"
        self._end(Status(kind, state.round, plan.job.rounds.count, ending(plan, state)))
        return said

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None and self._journal is not None and not self._ended:
                self._end(self._failure(error))
        except HansaError:
            self.notes.append(f"What happened could not be written to {self.at}.")
        finally:
            for files in (self._journal, self._ledger):
                if files is not None:
                    files.close_files()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _failure(self, error: BaseException) -> Status:
        done, total = 0, 0
        if self._journal is not None and self._plan is not None:
            done, total = self._journal.rounds, self._plan.job.rounds.count
        if isinstance(error, KeyboardInterrupt):
            self.notes.append(f"The run can go on with: hansa simulate --resume {self.at}")
            return Status("interrupted", done, total, "somebody interrupted it (Ctrl-C)")
        because = error.message if isinstance(error, HansaError) else repr(error)
        kind = "void" if isinstance(error, RoundVoid) else "failed"
        return Status(kind, done, total, because)

    def _end(self, status: Status) -> None:
        self._ended = True
        at = self._output()
        write_status(at, status, sync=True)
        for listener in self.listeners:
            listener.end(at, status)
            if listener.lost:
                self.notes.append(f"{listener.lost}.")

    def _saved(self, rounds: int) -> None:
        if self._plan is not None and self.at is not None:
            total = self._plan.job.rounds.count
            write_status(self.at, Status("running", rounds, total, "it is going on"))

    def _output(self) -> Path:
        at = self.at or self.output
        if at is None:
            raise HansaError("this run has no folder yet", fix="call simulate with the recorder")
        return at

    def _describe(self, at: Path, plan: Plan, task: Task, population: Sequence[str]) -> None:
        """Everything that is known before the first round; `run.json`, which names it, is last."""
        job, words = plan.job, job_to_words(plan.job)
        with explained(f"'{at}' cannot be written to", at):
            (at / CHECKPOINTS).mkdir()
        if self.source.text:
            write_text(at / folder.JOB, self.source.text)
        write_json(at / folder.RESOLVED, words)
        write_json(at / folder.PLAN, plan_words(plan))
        write_json(at / folder.ENVIRONMENT, environment_of(job.folder))
        data = fingerprints(task, population) if self.data is None else self.data
        run = {
            "format": folder.FORMAT,
            "name": job.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "job_file": self.source.file or None,
            "folder": None if job.folder is None else str(job.folder),
            "overrides": dict(self.source.overrides),
            "engine": self.engine,
            "devices": None if self.source.devices is None else asdict(self.source.devices),
            "seeds": {"job": job.seed},
            "plan_digest": plan.digest,
            "task_digest": plan.task.digest,
            "metrics": {m.name: m.better.name.lower() for m in plan.task.metrics},
            "watch": job.rounds.watch,
            "data_covers": f"{len(data)} of {len(population)} clients",
            "data": data,
        }
        write_json(at / folder.RUN, run)


def metric_names(plan: Plan) -> tuple[str, ...]:
    """What is measured in each round, the training loss first; nothing if nothing leaves."""
    if not plan.measures:
        return ()
    return ("train_loss", *(metric.name for metric in plan.task.metrics))


def plan_words(plan: Plan) -> dict[str, object]:
    """The plan as a run's folder holds it; infinite numbers are null."""
    return {
        "job": plan.job.name,
        "digest": plan.digest,
        "task_digest": plan.task.digest,
        "trail": [{"part": step.part, "facts": canonical.plain(step.facts)} for step in plan.trail],
        "event": canonical.plain(plan.event),
        "epsilon": plan.epsilon,
        "delta": plan.job.privacy.delta,
        "unit": plan.job.privacy.unit,
        "quorum": plan.quorum,
        "claims": list(plan.claims),
        "cost": canonical.plain(plan.cost),
    }
