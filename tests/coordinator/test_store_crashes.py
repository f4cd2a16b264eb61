"""SIGKILL at every commit and file operation, and at random: the run ends as if undisturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def crash(mode: str, folder: Path, url: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.support.crash_store", mode, str(folder)]
    done = subprocess.run(
        [*command, url] if url else command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(params=["sqlite", "postgres"])
def where(request):
    """The URL that the crashing processes are given; SQLite makes a store in each run's folder."""
    return "" if request.param == "sqlite" else request.getfixturevalue("migrated_database")


def test_killed_at_any_step_nothing_is_lost_and_nothing_counted_twice(where, tmp_path):
    """One round counts, one is void and then rejects its model, one goes on from the accepted."""
    undisturbed, *runs = crash("points", tmp_path, where)
    kinds = {run["what"] for run in runs}
    assert {"before commit", "after commit"} <= kinds
    if not where:
        assert {"half-way through a write", "after fdatasync", "after replace"} <= kinds
    assert len(runs) >= (40 if not where else 10)
    assert [run for run in runs if run["wrong"]] == []
    assert {run["outcome"] for run in runs} == {undisturbed["outcome"]}


def test_a_storm_of_random_kills_changes_nothing(where, tmp_path):
    undisturbed, storm = crash("storm", tmp_path, where)
    assert storm["kills"] >= 5
    assert storm["wrong"] == []
    assert storm["outcome"] == undisturbed["outcome"]
