"""Whether a run can go on: the same job, the same code, the same data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hansa.core.job import Job
from hansa.core.parts import Task
from hansa.core.plan import Plan
from hansa.devices import Origin
from hansa.errors import Refused
from hansa.jobfile import job_to_words
from hansa.runs.disk import read_json
from hansa.runs.environment import bits_of, environment_of
from hansa.runs.fingerprint import differing
from hansa.runs.folder import ENVIRONMENT, RESOLVED, read_run
from hansa.runs.source import devices_of, flat
from hansa.work.bundle import pack

_FIX = "undo the change, or begin a new run"


def check_code(folder: Path, job: Job) -> None:
    """Refuses to go on with other code, before any of it is loaded.

    Raises:
      Refused: the task's files are not those that the run began with.
    """
    if pack(job).digest != read_run(folder)["task_digest"]:
        raise Refused(
            f"the code of the task '{job.task}' is not what the run in '{folder}' began with",
            fix=_FIX,
        )


def check_job(folder: Path, plan: Plan) -> None:
    """Refuses to go on with another job.

    Raises:
      Refused: names the words that differ.
    """
    began, now = flat(read_json(folder / RESOLVED)), flat(job_to_words(plan.job))
    changed = [
        f"{name} was {began.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(began.keys() | now.keys())
        if began.get(name) != now.get(name)
    ]
    if changed:
        raise Refused(
            f"the job is not the one that the run in '{folder}' began with: {'; '.join(changed)}",
            fix=_FIX,
        )
    if plan.digest != read_run(folder)["plan_digest"]:
        raise Refused(
            f"the plan is not the one that the run in '{folder}' began with, though its words are: "
            "this Hansa makes another plan of them",
            fix="use the Hansa that made the run; environment.json names its version",
        )


def check_data(folder: Path, task: Task) -> None:
    """Refuses to go on with other data, as far as the data were recorded.

    Raises:
      Refused: names clients whose examples differ.
    """
    clients = differing(task, read_run(folder)["data"])
    if clients:
        more = f" and {len(clients) - 3} more" if len(clients) > 3 else ""
        raise Refused(
            f"the data of {', '.join(clients[:3])}{more} are not what the run in '{folder}' began "
            "with",
            fix="restore the data, or begin a new run",
        )


def check_devices(folder: Path, given: Path | None) -> Path | None:
    """The file of the devices to go on with; None without devices.

    Args:
      folder: the run's.
      given: the file that the person named, if any.

    Raises:
      Refused: the run began with other devices, or without.
      JobError: the file cannot be read.
    """
    began = devices_of(folder)
    if began is None:
        if given is not None:
            raise Refused(f"the run in '{folder}' began without devices", fix=_FIX)
        return None
    file = Path(began.file) if given is None else given
    if Origin.of(file).sha256 != began.sha256:
        raise Refused(
            f"the devices in '{file}' are not those that the run in '{folder}' began with", fix=_FIX
        )
    return file


def changed_environment(folder: Path) -> list[str]:
    """What has changed of that which bits may follow from; a run goes on all the same."""
    began: Mapping[str, Any] = bits_of(read_json(folder / ENVIRONMENT))
    now = bits_of(environment_of(None))
    return [
        f"{name} was {began.get(name)} and is {now.get(name)}"
        for name in sorted(began.keys() | now.keys())
        if began.get(name) != now.get(name)
    ]
