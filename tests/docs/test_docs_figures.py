"""Figures in README.md are those that the commands give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hansa
from hansa.cli.demo import SCORES
from hansa.examples.heart.job import heart_job, heart_sites
from hansa.examples.heart.report import compare
from hansa.examples.heart.task import Heart
from hansa.scaffold import create
from tests.support.cli import run_here

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
NUMBER = re.compile(r"\d\.\d{3}")
CLOSE = 0.002
"""What another processor may change in the last figure."""


def test_the_table_of_the_demo() -> None:
    """A federation ends with the bits of a simulation, so this needs no processes."""
    job, task = heart_job(), Heart()
    result = hansa.simulate(job)
    splits = {name: task.data(site) for name, site in heart_sites().items()}
    report = compare(job, task, splits, result.state.params)
    assert f"{report.patients} held-out patients" in README
    for name, model, judged in SCORES:
        [row] = re.findall(rf"^{model} +{judged} +(.+)$", README, re.MULTILINE)
        score = getattr(report, name)
        expected = [x for e in (score.accuracy, score.auroc) for x in (e.value, e.low, e.high)]
        assert [float(x) for x in NUMBER.findall(row)] == pytest.approx(expected, abs=CLOSE)
    for number in (1, 2, 40):
        line = re.findall(rf"^round {number}/40  4 hospitals  (.+)$", README, re.MULTILINE)[0]
        metrics = result.records[number - 1].metrics
        expected = [metrics["loss"], metrics["auroc"]]
        assert [float(x) for x in NUMBER.findall(line)] == pytest.approx(expected, abs=CLOSE)


def test_the_refusal_and_the_claims_of_the_tour(tmp_path: Path) -> None:
    create(tmp_path / "study", "numpy")
    file = tmp_path / "study" / "job.toml"
    high = file.read_text("utf-8").replace('risk_tier = "low"', 'risk_tier = "high"')
    file.write_text(high)
    refused = run_here("plan", "study", cwd=tmp_path)
    assert refused.code == 2
    assert refused.err in README

    private = re.sub(
        r"^# (?=\[privacy\]|mechanism|clip|epsilon|delta)", "", high, flags=re.MULTILINE
    )
    file.write_text(private)
    twice = run_here("plan", "study", cwd=tmp_path)
    assert "aggregation.clip has no effect" in twice.err
    file.write_text(re.sub(r"^clip = 5.0.*$", "", private, flags=re.MULTILINE))
    planned = run_here("plan", "study", cwd=tmp_path)
    claims = re.findall(
        r"^- Differential privacy.*?(?=^- Not hidden)", planned.out, re.MULTILINE | re.DOTALL
    )
    assert planned.code == 0
    assert claims[0] in README
