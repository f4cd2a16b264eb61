"""SIGKILL at every named point of a charge: nothing is un-spent, nothing released uncommitted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.crash_budget import COSTS, ROUNDS, jobs_of

ROOT = Path(__file__).parents[2]
POINTS = {
    *("before commit", "after commit", "before flush", "after flush"),
    *("before the release", "after the release"),
}


def storm(kills: int, folder: Path, url: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.support.crash_budget", str(kills), str(folder)]
    done = subprocess.run(
        [*command, url] if url else command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(runs: list[dict[str, Any]], kills: int) -> None:
    assert [run for run in runs if run["wrong"]] == []
    assert len(runs) == kills + 1
    jobs = jobs_of(kills)
    # Undisturbed, each job is charged its rounds once; and so it is after all the kills.
    assert runs[-1]["spent"] == {name: jobs * ROUNDS * urdp for name, urdp in COSTS.items()}


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_ten_kills_within_charges(kind, tmp_path, request):
    url = "" if kind == "sqlite" else request.getfixturevalue("migrated_database")
    check(storm(10, tmp_path, url), 10)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_hundred_kills_within_charges(kind, tmp_path, request):
    url = "" if kind == "sqlite" else request.getfixturevalue("migrated_database")
    runs = storm(200, tmp_path, url)
    check(runs, 200)
    assert {run["what"] for run in runs} >= POINTS
