"""A week of a million phones: seconds to the first round, memory, and how fast the week goes by.

    python bench/devices.py [--quick] [--json]

A round asks 500 of 1,000,000 clients, who are online at night, and counts the first 100 updates
(`bench/many`). Seconds are those of a process of its own, from its start, with imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
POPULATION = 1_000_000
COLUMNS = (
    "first_round_seconds",
    "seconds",
    "peak_mb",
    "rounds",
    "void",
    "virtual_days",
    "counted",
    "accuracy",
)


def alone(rounds: int) -> dict[str, Any]:
    """The simulation, in this process."""
    from hansa.algorithms import fedavg
    from hansa.core.job import Cohort, Job, Rounds
    from hansa.core.round import RoundRecord
    from hansa.simulation import simulate

    job = Job(
        name="many",
        task="task:Many",
        rounds=Rounds(count=rounds, deadline=3600.0, quorum=50, attempts=9),
        cohort=Cohort(population=POPULATION, sampler="fixed", size=100, over_selection=5.0),
        algorithm=fedavg(client_lr=0.5, local_epochs=5, batch_size=8),
        folder=HERE / "many",
    )
    first: list[float] = []

    def heard(_: RoundRecord) -> None:
        first.append(time.time())

    result = simulate(job, on_round=heard, devices=HERE / "many" / "devices.toml")
    return {
        "first_round": first[0],
        "ended": time.time(),
        "peak_mb": peak_mb(),
        "rounds": sum(not record.void for record in result.records),
        "void": sum(record.void for record in result.records),
        "virtual_days": (result.virtual_seconds or 0.0) / 86_400,
        "counted": sum(len(record.members) for record in result.records),
        "accuracy": result.metrics["accuracy"],
    }


def peak_mb() -> float:
    """Most resident memory since this program began; `ru_maxrss` would count who started it."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(rounds: int) -> dict[str, Any]:
    """The same in a process of its own, with the time from its start."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, __file__, "--alone", str(rounds)], check=True, capture_output=True
    )
    said = json.loads(done.stdout)
    return {
        "first_round_seconds": said.pop("first_round") - began,
        "seconds": said.pop("ended") - began,
        **said,
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds, not a week")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.alone:
        print(json.dumps(alone(asked.alone)))
        return
    found = measure(3 if asked.quick else 700)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for name in COLUMNS:
        print(f"{name:<20} {found[name]:.4g}")


if __name__ == "__main__":
    main()
