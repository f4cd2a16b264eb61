"""Where a run's job came from: its file, its text, and what the command line changed in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hansa.core.job import Job
from hansa.devices import Origin
from hansa.errors import HansaError
from hansa.jobfile import job_from_words
from hansa.jobfile.read import find, read_text
from hansa.runs.disk import read_json
from hansa.runs.folder import RESOLVED, read_run


@dataclass(frozen=True, slots=True)
class Source:
    """A job's origin.

    Attributes:
      file: the job's file; empty for a job that was written in Python.
      text: what it says.
      overrides: values that were given instead of the file's, by `section.key`.
      devices: the file of the devices that the clients are on; None without devices.
    """

    file: str = ""
    text: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    devices: Origin | None = None

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        overrides: Mapping[str, Any],
        devices: Path | str | None = None,
    ) -> Source:
        """The origin of a job that a person named.

        Raises:
          JobError: there is no such job, or no such devices.
        """
        file, shown = find(path)
        origin = None if devices is None else Origin.of(devices)
        return cls(str(file.resolve()), read_text(file, shown), overrides, origin)


def job_of(folder: Path) -> Job:
    """The job of a run, with every word as it was when the run began.

    Raises:
      HansaError: it is no run's folder, or the folder is damaged.
    """
    home = read_run(folder)["folder"]
    words = read_json(folder / RESOLVED)
    try:
        return job_from_words(words, RESOLVED, folder=Path(home) if home else None)
    except (AttributeError, TypeError) as error:
        raise HansaError(
            f"{folder / RESOLVED} is damaged",
            fix="restore the file from a copy, or run the job anew",
        ) from error


def devices_of(folder: Path) -> Origin | None:
    """The devices of a run, as they were when it began; None without devices.

    Raises:
      HansaError: it is no run's folder.
    """
    words = read_run(folder).get("devices")
    return None if words is None else Origin(words["file"], words["sha256"])


def flat(words: Mapping[str, Any]) -> dict[str, Any]:
    """Words by `section.key`."""
    found: dict[str, Any] = {}
    for name, value in words.items():
        if isinstance(value, Mapping):
            found.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            found[name] = value
    return found
