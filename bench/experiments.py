"""What writing a run down costs: the heart example with and without a folder, and its start.

    python bench/experiments.py [--quick] --json

Runs with and without a folder take turns, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hansa.core.vector import sha256
from hansa.jobfile import load_job
from hansa.runs import Recorder, Source
from hansa.simulation import simulate

JOB = "heart"


def timed(folder: Path | None) -> tuple[float, float, str]:
    """Seconds of wall time and of this process's CPU, and the model."""
    job = load_job(JOB)
    wall, cpu = time.perf_counter(), time.process_time()
    if folder is None:
        result = simulate(job, engine="inline")
    else:
        with Recorder(folder, Source.of(JOB, {})) as recorder:
            result = simulate(job, engine="inline", keeper=recorder, on_round=recorder.heard)
            recorder.finish(result)
    return time.perf_counter() - wall, time.process_time() - cpu, sha256(result.state.params)


def first_round(folder: Path) -> float:
    """Seconds from calling the command to the line of its first round."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "hansa", "simulate", JOB, "--rounds", "2"]
    with subprocess.Popen(
        [*words, "--output", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        seconds = time.perf_counter() - started
        process.stderr.read()
    return seconds


def help_seconds() -> float:
    """Seconds of `hansa --help`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hansa", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    turns = 5 if args.quick else 15
    timed(None)  # loads what both need
    without, with_folder = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns):
            without.append(timed(None))
            with_folder.append(timed(Path(folder) / str(turn)))
        size = sum(f.stat().st_size for f in (Path(folder) / "0").rglob("*") if f.is_file())
        start = [first_round(Path(folder) / f"start-{turn}") for turn in range(3)]
    models = {model for _, _, model in (*without, *with_folder)}
    assert len(models) == 1, "a run with a folder has another model"
    cpu = [statistics.median(cpu for _, cpu, _ in runs) for runs in (without, with_folder)]
    wall = [min(wall for wall, _, _ in runs) for runs in (without, with_folder)]
    found = {
        "job": JOB,
        "turns": turns,
        "seconds_without": round(wall[0], 4),
        "seconds_with": round(wall[1], 4),
        "wall_cost": round(wall[1] / wall[0] - 1, 4),
        "cpu_seconds_without": round(cpu[0], 4),
        "cpu_seconds_with": round(cpu[1], 4),
        "cpu_cost": round(cpu[1] / cpu[0] - 1, 4),
        "folder_bytes": size,
        "first_round_seconds": round(min(start), 3),
        "help_seconds": round(min(help_seconds() for _ in range(5)), 3),
    }
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:<22}{value}")


if __name__ == "__main__":
    main()
