"""Runs with a folder, for tests: whole, or broken off as a kill would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hansa.core.job import Job
from hansa.core.round import RoundRecord
from hansa.devices import Origin
from hansa.runs import Pace, Recorder, Source
from hansa.simulation import Result, simulate

EVERY_ROUND = Pace(every=1)


class Killed(BaseException):
    """What ends a run without a word."""


def recorded(
    of: Job, at: Path, pace: Pace = EVERY_ROUND, devices: Path | None = None, **words: object
) -> Result:
    """A whole run with a folder."""
    with Recorder(at, _source(devices), pace=pace) as recorder:
        result = simulate(of, keeper=recorder, devices=devices, **words)  # type: ignore[arg-type]
        recorder.finish(result)
    return result


def broken_off(
    of: Job, at: Path, after: int, pace: Pace = EVERY_ROUND, devices: Path | None = None
) -> None:
    """A run that ends after so many closed rounds, as if its process was killed then."""
    recorder, heard = Recorder(at, _source(devices), pace=pace), list[RoundRecord]()

    def count(record: RoundRecord) -> None:
        heard.append(record)
        if len(heard) == after:
            raise Killed

    killed(recorder, lambda: simulate(of, keeper=recorder, on_round=count, devices=devices))


def _source(devices: Path | None) -> Source:
    return Source(devices=None if devices is None else Origin.of(devices))


def killed(recorder: Recorder, run: Callable[[], object]) -> None:
    """Runs until `Killed`; the system then gives the folder free, and nobody says good-bye."""
    try:
        run()
    except Killed:
        for held in (recorder._journal, recorder._ledger, recorder._lock):
            if held is not None:
                (held.release if held is recorder._lock else held.close_files)()  # type: ignore[union-attr]
    else:
        raise AssertionError("the run was over before it could be killed")


def resumed(at: Path, given: Job | None = None, pace: Pace = EVERY_ROUND) -> Result:
    """The rest of a run."""
    with Recorder.resume(at, pace) as recorder:
        result = simulate(recorder.job(given), keeper=recorder, devices=recorder.devices())
        recorder.finish(result)
    return result
