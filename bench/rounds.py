"""Seconds per round and the coordinator's memory, with sites as separate processes on loopback.

    python bench/rounds.py [--quick] [--json]

Sites do trivial work, so that what is measured is the round itself: parameters down, updates up,
hashes, schema checks, exact sums, receipts, a new model on the disk. The
seconds are the median over rounds after the first. The peak is the largest resident memory of the
coordinator's process from the first to the last round; `idle_mb` is its memory before, with all
sites attending, after a job with a tiny model (so that every module is loaded).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hansa.algorithms import fedavg
from hansa.core.job import Cohort, Job, Rounds
from hansa.local.federation import LocalFederation
from hansa.submission import submit
from hansa.work.bundle import pack

HERE = Path(__file__).resolve().parent
MODEL_SIZES = {"Trivial": 1_663_370, "Trivial25M": 25_000_000}


@dataclass(frozen=True)
class Setting:
    """One measurement: its name, the task, how many sites, how many rounds."""

    name: str
    task: str
    sites: int
    rounds: int
    quick: bool


SETTINGS = (
    Setting("sites10_1.7M", "Trivial", 10, 12, quick=True),
    Setting("sites50_1.7M", "Trivial", 50, 6, quick=True),
    Setting("sites200_1.7M", "Trivial", 200, 3, quick=False),
    Setting("sites10_25M", "Trivial25M", 10, 5, quick=False),
)


@dataclass(frozen=True)
class Result:
    """What one setting gave."""

    seconds_per_round: float
    peak_mb: float
    idle_mb: float
    model_mb: float

    @property
    def model_copies(self) -> float:
        """Peak above idle, in copies of the model."""
        return (self.peak_mb - self.idle_mb) / self.model_mb


def measure(setting: Setting) -> Result:
    """Runs one setting from scratch."""
    job = make_job(setting.task, setting.sites, setting.rounds)
    names = [f"site-{number:03}" for number in range(setting.sites)]
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalFederation(Path(folder)) as federation,
    ):
        federation.start_coordinator()
        for name in names:
            federation.join(name, {}, [pack(job).digest])
            federation.start_site(name)
        federation.wait_for_sites(setting.sites)
        pid = federation.pid("coordinator")
        closing_times(federation, make_job("TrivialTiny", setting.sites, 1))
        idle = memory_mb(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts from here
        closed = closing_times(federation, job)
        if len(closed) != setting.rounds:
            sys.exit(f"{setting.name}: the job ended after {len(closed)} rounds")
        gaps = [after - before for before, after in pairwise(closed)]
        return Result(
            statistics.median(gaps),
            memory_mb(pid, "VmHWM"),
            idle,
            4e-6 * MODEL_SIZES[setting.task],
        )


def make_job(task: str, sites: int, rounds: int) -> Job:
    """A job of trivial work at all sites."""
    return Job(
        name="rounds",
        task=f"task:{task}",
        rounds=Rounds(count=rounds, deadline=600.0, quorum=sites),
        cohort=Cohort(population=sites),
        algorithm=fedavg(client_lr=1.0, local_steps=1),
        evaluate_every=0,
        folder=HERE / "trivial",
    )


def closing_times(federation: LocalFederation, job: Job) -> list[float]:
    """Runs a job to its end; when each of its training rounds was closed."""
    submitted, closed = submit(job, federation.remote), []
    for event in federation.remote.events(submitted.job, 0, seconds=600):
        if event["kind"] == "round.closed" and event["body"]["purpose"] == "train":
            closed.append(event["time"])
        if event["body"].get("to") in ("done", "failed", "refused"):
            break
    return closed


def memory_mb(pid: int, field: str) -> float:
    """A line of /proc/PID/status in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024e-6
    sys.exit(f"no {field} for process {pid}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the long settings out")
    parser.add_argument("--only", help="one setting by name")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args(argv)
    results: dict[str, Result] = {}
    for setting in SETTINGS:
        if (args.quick and not setting.quick) or args.only not in (None, setting.name):
            continue
        results[setting.name] = found = measure(setting)
        print(
            f"{setting.name}: {found.seconds_per_round:.3f} s per round, peak {found.peak_mb:.0f} "
            f"MB, idle {found.idle_mb:.0f} MB, {found.model_copies:.1f} model copies above idle",
            file=sys.stderr,
        )
    if args.json:
        print(
            json.dumps(
                {
                    "seconds_per_round": {n: r.seconds_per_round for n, r in results.items()},
                    "coordinator_peak_mb": {n: r.peak_mb for n, r in results.items()},
                    "idle_mb": min(r.idle_mb for r in results.values()),
                    "idle_mb_by_setting": {n: r.idle_mb for n, r in results.items()},
                    "model_copies": {n: r.model_copies for n, r in results.items()},
                }
            )
        )


if __name__ == "__main__":
    main()
