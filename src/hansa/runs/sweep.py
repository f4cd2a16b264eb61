"""One job with many values: every combination is checked, then each runs in a folder of its own.

    settings ──► combinations ──► plans, all of them ──► prepared folders ──► processes ──► table
                                     │
                                     └─ refused: each with its reasons, before anything runs

A run is a process that resumes its prepared folder. So what is left of a sweep that was broken off
is done by the same step: runs that are over are not run again, others go on where they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hansa.core.job import Job
from hansa.core.parts import Task
from hansa.core.plan import Plan
from hansa.errors import HansaError, Refused
from hansa.jobfile import load_job
from hansa.recipes import compile_plan
from hansa.runs import folder
from hansa.runs.disk import explained, read_json, write_json
from hansa.runs.fingerprint import fingerprints
from hansa.runs.folder import SWEEP
from hansa.runs.recorder import Recorder
from hansa.runs.settings import Combination
from hansa.runs.source import Source
from hansa.simulation import population_of
from hansa.work.bundle import facts_of, load_task

FORMAT = 1
NAME = "run-{:04d}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A combination that was checked.

    Attributes:
      values: of the keys that are tried.
      plan: what would run; None if it is refused.
      task: its task, if it could be loaded.
      error: why it is refused.
    """

    values: Combination
    plan: Plan | None = None
    task: Task | None = None
    error: HansaError | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's folder.

    Attributes:
      at: the folder.
      name: of the job.
      keys: that are tried.
      runs: the folders of its runs, in the order of the combinations.
    """

    at: Path
    name: str
    keys: tuple[str, ...]
    runs: tuple[Path, ...]

    @property
    def left(self) -> tuple[Path, ...]:
        """Runs that are not over; one that was void again and again would be so once more."""
        return tuple(at for at in self.runs if not over(at))


def over(at: Path) -> bool:
    """Whether a run needs no further process."""
    status = folder.read_status(at)
    return status.done or status.state == "void"


def check(
    path: str, combinations: Sequence[Combination], heard: Callable[[int], None] | None = None
) -> list[Candidate]:
    """Makes the plan of every combination.

    Args:
      path: the job, as a person names it.
      combinations: what to try.
      heard: called with the number of combinations that were checked.

    Raises:
      HansaError: the job or its task cannot be read at all, whatever the combination.
    """
    Source.of(path, {})  # a job that is not there is said once
    tasks: dict[str, Task] = {}
    found = []
    for number, values in enumerate(combinations):
        found.append(_checked(path, values, tasks))
        if heard is not None:
            heard(number + 1)
    return found


def prepare(
    path: str,
    candidates: Sequence[Candidate],
    output: Path | None,
    engine: str,
    about: Mapping[str, Any],
) -> Sweep:
    """Makes the sweep's folder, with a folder for each run.

    Args:
      path: the job, as a person names it.
      candidates: whose plans are made; refused ones are left out.
      output: the sweep's folder; the next number under `runs` if None.
      engine: what runs the clients.
      about: how the combinations were found, to be written down.

    Raises:
      HansaError: the folder exists, or the disk refuses.
      Refused: nothing is left to run.
    """
    wanted = [(c.values, c.plan, c.task) for c in candidates if c.plan and c.task]
    if not wanted:
        raise Refused("every combination is refused", fix="see the reasons of each")
    name = wanted[0][1].job.name
    at = folder.make(output, f"{name}-sweep")
    data: dict[tuple[str, ...], Mapping[str, str | None]] = {}
    runs = []
    for number, (values, plan, task) in enumerate(wanted, start=1):
        population = tuple(population_of(plan.job, task))
        if population not in data:
            data[population] = fingerprints(task, population)
        recorder = Recorder(
            at / NAME.format(number),
            Source.of(path, values),
            engine=engine,
            data=data[population],
        )
        runs.append(recorder.prepare(plan, task, population))
    keys = list(dict.fromkeys(key for values, _, _ in wanted for key in values))
    words = {
        "format": FORMAT,
        "name": name,
        **about,
        "keys": keys,
        "runs": [
            {"folder": run.name, "values": dict(values)}
            for run, (values, _, _) in zip(runs, wanted, strict=True)
        ],
        "refused": [
            {"values": dict(c.values), "because": str(c.error)} for c in candidates if c.error
        ],
    }
    write_json(at / SWEEP, words, sync=True)  # last: a sweep is prepared whole or not at all
    return Sweep(at, name, tuple(keys), tuple(runs))


def read(at: Path) -> Sweep:
    """A sweep that was prepared before.

    Raises:
      HansaError: it is no sweep's folder, or of another version.
    """
    if not (at / SWEEP).exists():
        raise HansaError(
            f"there is no {SWEEP} in '{at}': it is no sweep's folder, or one that was not prepared "
            "to the end",
            fix="name a sweep's folder, or begin a new sweep",
        )
    words = read_json(at / SWEEP)
    if words.get("format") != FORMAT:
        raise HansaError(
            f"the sweep in '{at}' has format {words.get('format')}, this Hansa reads {FORMAT}",
            fix="use the Hansa that made it",
        )
    runs = tuple(at / run["folder"] for run in words["runs"])
    return Sweep(at, words["name"], tuple(words["keys"]), runs)


def runs_under(at: Path) -> list[Path]:
    """The runs that a folder stands for: itself, those of a sweep, or those inside it.

    Raises:
      HansaError: there are none.
    """
    if (at / folder.RUN).exists():
        return [at]
    with explained(f"{at} cannot be read", at):
        inside = sorted(at.iterdir()) if at.is_dir() else []
    found = [run for each in inside for run in _inside(each)]
    if not found:
        raise HansaError(
            f"there is no run in '{at}'",
            fix="make one with: hansa simulate JOB, or name its folder",
        )
    return found


def _inside(at: Path) -> list[Path]:
    if (at / folder.RUN).exists():
        return [at]
    return (
        [at / run["folder"] for run in read_json(at / SWEEP)["runs"]]
        if (at / SWEEP).exists()
        else []
    )


def _checked(path: str, values: Combination, tasks: dict[str, Task]) -> Candidate:
    try:
        job: Job = load_job(path, values)
        if job.task not in tasks:
            tasks[job.task] = load_task(job)
        task = tasks[job.task]
        plan = compile_plan(job, facts_of(job, task))
        population_of(plan.job, task)
    except HansaError as error:
        return Candidate(values, error=error)
    return Candidate(values, plan, task)
