"""The command line as users have it: a process with its own streams, 80 columns, no colour."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from hansa.cli import main

TASK = Path(__file__).parent / "toyjob" / "task.py"

JOB = """\
name = "toy"
task = "task:Toy"

[rounds]
count = 3

[cohort]
population = 4

[algorithm]
name = "fedavg"
"""

PRIVATE = """\
name = "private"
task = "task:Toy"
risk_tier = "high"

[rounds]
count = 5

[cohort]
population = 100
sampler = "poisson"
rate = 0.2

[algorithm]
name = "fedadam"

[aggregation]
weighting = "uniform"

[privacy]
mechanism = "gaussian"
clip = 0.5
noise_multiplier = 4.0
delta = 1e-5

[quantization]
step = 1e-3
"""


@dataclass(frozen=True)
class Run:
    """What a command did."""

    code: int
    out: str
    err: str


def environment(**changes: str) -> dict[str, str]:
    """This process's environment: 80 columns, no colour, and one thread, as machines are shared."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "TERM")}
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    return {**kept, **plain, **changes}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "hansa", *words]


def run(*words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    done = subprocess.run(
        command(*words),
        cwd=cwd,
        env=environment() if env is None else dict(env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def run_here(*words: str, cwd: Path) -> Run:
    """The same in this process, many times faster: for verbs that leave no traces in it."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in environment().items():
            patch.setenv(name, value)
        os.chdir(cwd)
        try:
            code = main(words)
        finally:
            os.chdir(before)
    return Run(code, out.getvalue(), err.getvalue())


def make_jobs(folder: Path) -> None:
    """Three job folders: toy, private and broken."""
    broken = JOB.replace("count = 3", 'count = "3"').replace("population", "popullation")
    for name, text in (("toy", JOB), ("private", PRIVATE), ("broken", broken)):
        (folder / name).mkdir()
        (folder / name / "task.py").write_bytes(TASK.read_bytes())
        (folder / name / "job.toml").write_text(text)
