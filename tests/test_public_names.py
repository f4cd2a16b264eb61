"""`import hansa`: which names there are, and that they cost nothing until they are used."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hansa

ROOT = Path(__file__).resolve().parents[1]

NAMES = [
    "AUROC",
    "Accuracy",
    "Aggregation",
    "Better",
    "Calibration",
    "Cohort",
    "Defend",
    "Examples",
    "HansaError",
    "Job",
    "JobError",
    "JobRefused",
    "Loss",
    "NumpyTask",
    "Outputs",
    "Plan",
    "PlanError",
    "PlanRefused",
    "Privacy",
    "Quantization",
    "Ratio",
    "Result",
    "Rounds",
    "SecureAggregation",
    "Site",
    "Split",
    "TorchTask",
    "__version__",
    "compile_plan",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedsgd",
    "fedyogi",
    "load_job",
    "simulate",
]
"""What a release promises: a name that is taken away breaks somebody's code."""


def test_public_names_are_pinned():
    assert sorted(hansa.__all__) == sorted(NAMES)
    assert dir(hansa) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_calls_itself_so(name):
    found = getattr(hansa, name)
    assert found is getattr(hansa, name)
    assert name == "__version__" or found.__name__ == name


def test_all_algorithms_are_public():
    from hansa.algorithms import ALGORITHMS

    assert set(ALGORITHMS) <= set(hansa.__all__)
    assert all(getattr(hansa, name) is function for name, function in ALGORITHMS.items())


def test_all_words_of_a_job_are_public():
    from hansa.jobfile.keys import sections

    assert {of.__name__ for of in sections().values()} <= set(hansa.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'hansa' has no attribute 'simulat'"):
        _ = hansa.simulat  # type: ignore[attr-defined]
    assert not hasattr(hansa, "jobs")


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert hansa.__version__ == project["version"]


def test_the_examples_of_the_module_run():
    """The four lines that `help(hansa)` begins with."""
    lines = re.findall(r"^    (\w.*?)(?:  #.*)?$", hansa.__doc__ or "", re.MULTILINE)
    assert len(lines) == 4
    done = python("; ".join(lines) + "; print(result.plan.digest == plan.digest)")
    assert done.stdout.strip() == "True", done.stderr


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_import_loads_nothing():
    code = "import sys, hansa; print(*sys.modules); hansa.Rounds; print('numpy' in sys.modules)"
    before, after = python(code).stdout.splitlines()
    loaded = set(before.split())
    assert "hansa" in loaded
    assert loaded.isdisjoint({"numpy", "pydantic", "torch", "typer", "rich", "hansa.core"})
    assert after == "True"


def test_names_without_torch_do_not_need_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import hansa; names = set(hansa.__all__);"
        "[getattr(hansa, n) for n in names - {'TorchTask'}]\n"
        "try: hansa.TorchTask\n"
        "except hansa.HansaError as error: print(error.fix)"
    )
    assert python(code).stdout.strip() == "run: pip install 'hansa[torch]'"


def processor_seconds(code: str, repeats: int = 7) -> float:
    """Median processor time of an interpreter that runs the code; wall time depends on others."""
    found = []
    for _ in range(repeats):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        after = os.times()
        user = after.children_user - before.children_user
        found.append(user + after.children_system - before.children_system)
    return statistics.median(found)


def test_import_is_fast():
    """The budget is 150 ms on a machine that starts an interpreter in 15 to 20 ms."""
    assert processor_seconds("import hansa") < 7 * max(processor_seconds("pass"), 0.02)
