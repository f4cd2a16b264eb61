"""`hansa plan` says what the plan says, in words and in JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hansa.core import canonical, events
from hansa.jobfile import load_job
from hansa.privacy.advice import advice_on
from hansa.privacy.statement import of_json, statement_of
from hansa.privacy.statement_page import FORMS, written
from hansa.recipes import compile_plan

KEYS = {
    "job",
    "digest",
    "task_digest",
    "trail",
    "event",
    "relation",
    "epsilon",
    "delta",
    "noise_multiplier",
    "statement",
    "advice",
    "quorum",
    "claims",
    "cost",
    "errors",
}


def test_json_is_the_plan(hansa, tmp_path):
    said = json.loads(hansa("plan", "private", "--json").out)
    plan = compile_plan(load_job(tmp_path / "private"))
    assert said.keys() == KEYS
    assert said["digest"] == plan.digest
    assert said["task_digest"] == plan.task.digest
    assert [step["part"] for step in said["trail"]] == [step.part for step in plan.trail]
    assert all(step.keys() == {"part", "facts"} for step in said["trail"])
    assert said["trail"][-1]["facts"] == canonical.plain(plan.facts)
    assert events.of_json(said["event"]) == plan.event
    assert said["epsilon"] == plan.epsilon < math.inf
    assert said["delta"] == 1e-5
    assert said["quorum"] == plan.quorum
    assert said["claims"] == list(plan.claims)
    assert said["cost"] == {
        "down_bytes": plan.cost.down_bytes,
        "up_bytes": plan.cost.up_bytes,
        "coordinator_bytes": plan.cost.coordinator_bytes,
    }
    assert said["errors"] == []
    assert of_json(said["statement"]) == statement_of(plan)
    advice = advice_on(plan)
    assert advice is not None
    assert said["advice"] == advice.to_json()


def test_without_privacy_there_is_no_epsilon(hansa):
    said = json.loads(hansa("plan", "toy", "--json").out)
    assert said["epsilon"] is None
    assert said["delta"] is None
    assert said["advice"] is None
    assert said["statement"]["private"] is False


def test_words_hold_all_that_people_decide_on(hansa, tmp_path):
    said = hansa("plan", "private").out
    plan = compile_plan(load_job(tmp_path / "private"))
    flat = " ".join(said.split())
    for claim in plan.claims:
        assert claim in flat
    for number in (plan.digest, plan.task.digest, f"{plan.epsilon:.4g}", "1e-05", "multiplier 4"):
        assert number in flat
    for part in ("LocalSGD", "Weight", "Clip", "Quantize", "Mean", "CentralGaussian"):
        assert part in flat
    assert "norm at most 0.5, checked by the coordinator" in flat
    assert "integers modulo 2**32" in flat


def test_a_refused_job_file_is_json_too(hansa):
    done = hansa("plan", "broken", "--json")
    said = json.loads(done.out)
    assert done.code == 2
    assert said.keys() == KEYS
    assert said["digest"] is None
    assert [error["part"] for error in said["errors"]] == [
        str(Path("broken/job.toml:5")),
        str(Path("broken/job.toml:8")),
    ]
    assert all(error["because"] and error["fix"] for error in said["errors"])


def test_a_refused_plan_says_every_reason(hansa, tmp_path):
    job = tmp_path / "toy" / "job.toml"
    text = job.read_text().replace("count = 3", "count = 3\nquorum = 5")
    job.write_text(text + "\n[aggregation]\nclip = 1.0\n")
    spoken, written = hansa("plan", "toy"), hansa("plan", "toy", "--json")
    assert spoken.code == written.code == 2
    errors = json.loads(written.out)["errors"]
    assert {error["part"].split("(")[0] for error in errors} == {"rounds.quorum", "Clip"}
    flat = " ".join(spoken.err.split())
    for error in errors:
        assert f"Error: {error['part']}: {error['because']}." in flat
        assert f"Fix: {error['fix']}." in flat
    assert spoken.out == ""


def test_a_task_that_cannot_be_loaded_is_refused(hansa, tmp_path):
    (tmp_path / "toy" / "task.py").write_text("import nothing_of_the_kind\n")
    done = hansa("plan", "toy")
    assert done.code == 2
    assert "nothing_of_the_kind" in done.err
    assert "Traceback" not in done.err


def test_an_epsilon_is_told_with_its_company(hansa, tmp_path):
    said = " ".join(hansa("plan", "private").out.split())
    statement = statement_of(compile_plan(load_job(tmp_path / "private")))
    assert statement.sentence in said
    assert said.count("epsilon 0.4588") == 2
    assert "Noise against updates" in said
    assert "5 0.4588 " in said
    assert "No differential privacy" in hansa("plan", "toy").out
    assert "Noise against updates" not in hansa("plan", "toy").out


def test_lines_with_advice_fit_a_terminal(hansa, tmp_path):
    job = tmp_path / "private" / "job.toml"
    job.write_text(job.read_text().replace("noise_multiplier = 4.0", "noise_multiplier = 40.0"))
    said = hansa("plan", "private").out
    assert "Larger epsilon" in said
    assert all(len(line) <= 80 for line in said.splitlines())


def test_the_statement_is_written_in_the_form_that_is_asked_for(hansa, tmp_path):
    statement = statement_of(compile_plan(load_job(tmp_path / "private")))
    for suffix in FORMS:
        done = hansa("plan", "private", "--statement", f"s{suffix}", "--json")
        assert done.code == 0
        assert (tmp_path / f"s{suffix}").read_text("utf-8") == written(statement, suffix)
        assert json.loads(done.out)["digest"] == statement.plan_digest
    wrong = hansa("plan", "private", "--statement", "s.pdf")
    assert wrong.code == 1
    assert ".html" in wrong.err
    refused = hansa("plan", "broken", "--statement", "broken.md")
    assert refused.code == 2
    assert not (tmp_path / "broken.md").exists()
