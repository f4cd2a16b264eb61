"""The tour of experiments runs as it is written, and its tables are those of the code.

The line about MLflow is run by `tests/runs/test_run_tracking.py`.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

from hansa.runs.folder import DONE, Status, read_status
from hansa.runs.rows import COLUMNS
from tests.docs.test_docs_tour import ROOT, shown
from tests.support.cli import run_here

PAGE = ROOT / "docs" / "experiments.md"


def table(first: str) -> list[str]:
    """The first column of the table whose header begins so, without its quotes."""
    text = PAGE.read_text("utf-8").partition(f"| {first} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def test_the_tour_runs(tmp_path):
    lines = [line for line in shown(PAGE) if "--mlflow" not in line]
    assert {line.split()[1] for line in lines} == {"simulate", "runs", "sweep"}
    out = {}
    for line in lines:
        done = run_here(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.code == 0, f"{line}: {done.err}"
        told = [text for text in (done.out + done.err).splitlines() if len(text) > 80]
        assert not told
        out[line] = done.out
    runs = tmp_path / "runs"
    assert {path.name for path in runs.iterdir()} == {
        "heart-001", "faster", "heart-sweep-001", "heart-sweep-002",
    }  # fmt: skip
    assert sorted(path.name for path in (runs / "heart-sweep-001").iterdir()) == [
        "comparison.csv", "comparison.svg", "lock", *(f"run-000{i}" for i in range(1, 5)),
        "sweep.json",
    ]  # fmt: skip
    assert "is over: all 12 rounds were run" in out[lines[3]]
    assert out[lines[2]].splitlines()[0].split() == [
        "Run", "client_lr", "auroc", "loss", "accuracy", "calibration_error", "Rounds",
    ]  # fmt: skip
    _check_folder(runs / "heart-001")


def _check_folder(at: Path) -> None:
    assert sorted(table("file")) == sorted(path.name for path in at.iterdir())
    with (at / "metrics.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header[: len(COLUMNS)] == list(COLUMNS) == table("column")
    assert header[len(COLUMNS)] == "train_loss"
    assert read_status(at).state == "finished"
    assert json.loads((at / "run.json").read_text())["data_covers"] == "4 of 4 clients"


def test_the_states_are_those_of_the_code():
    known = re.findall(
        r"\b[a-z]+\b", (Status.__doc__ or "").partition("state: ")[2].partition("round:")[0]
    )
    states = table("state")
    assert set(states) <= set(known)
    assert set(states) > DONE
    assert len(states) == len(set(states)) == 8
