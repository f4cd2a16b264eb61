"""What a run leaves in its folder, and how it fails to."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import fields, replace

import numpy as np
import pytest

from hansa.core.job import Rounds
from hansa.core.rollback import Rejected
from hansa.core.round import RoundRecord, TrainState
from hansa.core.vector import sha256
from hansa.errors import HansaError, PlanRefused
from hansa.jobfile import job_from_words, load_job
from hansa.recipes import compile_plan
from hansa.runs import Pace, Recorder, Source, checkpoint
from hansa.runs.folder import in_use, read_status
from hansa.runs.outcome import ending
from hansa.runs.rows import of_json, to_json
from hansa.simulation import simulate
from tests.support.cli import command, environment, make_jobs, run, run_here
from tests.support.fulldisk import short_files
from tests.support.runs import recorded, resumed
from tests.support.toy import job

NAMES = ("loss", "accuracy", "auroc")


def test_a_folder_says_all_that_the_run_followed_from_and_came_to(tmp_path):
    make_jobs(tmp_path)
    done = run("simulate", "toy", "--json", "--seed", "7", "--set", "algorithm.client_lr=0.3",
               cwd=tmp_path)  # fmt: skip
    said = json.loads(done.out)
    at = tmp_path / said["folder"]
    assert at == tmp_path / "runs" / "toy-001"
    assert {path.name for path in at.iterdir()} == {
        "run.json", "job.toml", "resolved.json", "plan.json", "environment.json", "status.json",
        "rounds.jsonl", "metrics.csv", "ledger.jsonl", "checkpoints", "result.json", "model.npz",
        "metrics.svg", "lock",
    }  # fmt: skip
    assert json.loads((at / "result.json").read_text()) == said
    assert (at / "job.toml").read_text() == (tmp_path / "toy" / "job.toml").read_text()
    words = json.loads((at / "resolved.json").read_text())
    assert (words["seed"], words["algorithm"]["client_lr"]) == (7, 0.3)
    again = compile_plan(job_from_words(words, folder=tmp_path / "toy"))
    plan = json.loads((at / "plan.json").read_text())
    assert plan["digest"] == said["plan_digest"] == again.digest
    assert plan["claims"] == list(again.claims)
    about = json.loads((at / "run.json").read_text())
    assert about["overrides"] == {"algorithm.client_lr": 0.3, "seed": 7}
    assert about["seeds"] == {"job": 7}
    assert about["data_covers"] == "4 of 4 clients"
    assert len(set(about["data"].values())) == 4
    ran_on = json.loads((at / "environment.json").read_text())
    assert ran_on["packages"]["numpy"] == np.__version__
    with np.load(at / "model.npz") as arrays:
        assert list(arrays) == ["w", "b"]
        assert sha256(np.concatenate([arrays["w"], arrays["b"]])) == said["model_sha256"]
    assert str(read_status(at)) == "finished after round 3 of 3: all 3 rounds were run"


def test_metrics_are_the_rounds(tmp_path):
    result = recorded(job(), tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["purpose"] for row in rows] == ["train"] * 3 + ["evaluate"]
    assert [(row["round"], row["trained"]) for row in rows] == [
        ("1", "0"), ("2", "1"), ("3", "2"), ("3", "3"),
    ]  # fmt: skip
    for row, record in zip(rows, result.records, strict=True):
        assert {name: float(row[name]) for name in NAMES} == {
            name: record.metrics[name] for name in NAMES
        }
        assert row["model_sha256"] == record.model
        assert (row["asked"], row["counted"], row["void"]) == ("6", "6", "0")
        assert row["rejected"] == "0"
    assert rows[-1]["train_loss"] == ""
    root = ET.fromstring((tmp_path / "run" / "metrics.svg").read_text())
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 4, 4, 4]


def test_a_record_reads_back_equal():
    result = simulate(job())
    for record in result.records:
        assert of_json(to_json(record)) == record
    odd = replace(
        result.records[0], metrics={"loss": float("inf"), "auroc": None}, virtual_seconds=2.5
    )
    assert of_json(to_json(odd)) == odd
    timed = replace(odd, virtual_seconds=12.5, ages=(3, 0, 1))
    assert of_json(to_json(timed)) == timed
    back = replace(odd, rejected=Rejected("loss", float("inf"), 0.25, 0.1, 3))
    assert of_json(to_json(back)) == back
    none = replace(odd, rejected=Rejected("loss", float("-inf"), None, 0.1, 0))
    assert of_json(to_json(none)) == none
    for torn in ("", "{", "[]", '{"purpose": "train"}', to_json(odd)[:-9]):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|no record of a round"):
            of_json(torn)


def test_what_a_checkpoint_and_a_record_hold_is_all_there_is():
    """A field that is added must be written down, or shown to follow from the others."""
    assert {f.name for f in fields(TrainState)} == {
        "round", "attempt", "params", "model", "server", "best", "stale", "clip", "memory",
        "flights", "standing", "accepted",
    }  # fmt: skip
    assert {f.name for f in fields(RoundRecord)} == {
        "purpose", "round", "attempt", "cohort", "members", "dropouts", "void", "metrics",
        "seconds", "model", "virtual_seconds", "ages", "rejected",
    }  # fmt: skip


def test_folders_are_numbered_and_none_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        with Recorder() as recorder:
            recorder.finish(simulate(job(), keeper=recorder))
        assert recorder.at is not None
        assert recorder.at.as_posix() == f"runs/toy-00{number}"
    (tmp_path / "runs" / "toy-041").mkdir()
    with Recorder() as recorder:
        recorder.finish(simulate(job(), keeper=recorder))
    assert recorder.at is not None
    assert recorder.at.name == "toy-042"
    before = (recorder.at / "result.json").read_bytes()
    with pytest.raises(HansaError, match="holds a run already"):
        recorded(job(seed=2), recorder.at)
    assert (recorder.at / "result.json").read_bytes() == before


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HansaError, match="cannot be made") as caught:
        recorded(job(), tmp_path / "file" / "run")
    assert "a file is in the way" in caught.value.fix
    with pytest.raises(HansaError, match="cannot be made"):
        recorded(job(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(HansaError, match="holds something already"):
        recorded(job(), tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    recorded(job(), tmp_path / "empty")


def test_a_refused_plan_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of = job(aggregation=replace(job().aggregation, clip=1.0))
    with pytest.raises(PlanRefused), Recorder() as recorder:
        simulate(of, keeper=recorder)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path):
    of, at = job(rounds=Rounds(count=60)), tmp_path / "run"
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with (
            pytest.raises(HansaError, match="cannot be written down: File too large") as caught,
            Recorder(at, pace=Pace(every=1)) as recorder,
            short_files(9000),
        ):
            simulate(of, keeper=recorder)
    finally:
        signal.signal(signal.SIGXFSZ, before)
    assert "go on with --resume" in caught.value.fix
    last = checkpoint.newest(at)
    assert last is not None
    assert 0 < last.state.round < 60
    assert read_status(at).state == "failed"
    assert not list(at.rglob(".*.new"))
    assert resumed(at).model_sha256 == simulate(of).model_sha256


def test_early_stopping_is_said(tmp_path):
    make_jobs(tmp_path)
    file = tmp_path / "toy" / "job.toml"
    file.write_text(
        file.read_text().replace("count = 3", 'count = 40\npatience = 2\nwatch = "accuracy"')
    )
    done = run_here("simulate", "toy", cwd=tmp_path)
    [at] = (tmp_path / "runs").iterdir()
    status, said = read_status(at), json.loads((at / "result.json").read_text())
    assert status.state == "stopped"
    assert 3 <= status.round < 40
    assert said["rounds"] == status.round
    assert status.because == said["ended_because"]
    assert f"so training stopped after round {status.round} of 40" in status.because
    assert "accuracy had no better value than 0." in status.because
    assert f"Stopped early: {status.because}." in " ".join(done.out.split())
    whole = simulate(load_job(tmp_path / "toy"), rounds=2)
    assert ending(whole.plan, whole.state) == "all 2 rounds were run"


def test_no_output_writes_nothing(tmp_path):
    make_jobs(tmp_path)
    said = json.loads(run_here("simulate", "toy", "--no-output", "--json", cwd=tmp_path).out)
    assert said["folder"] is None
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_is_written_down_and_the_run_goes_on(tmp_path):
    make_jobs(tmp_path)
    file = tmp_path / "toy" / "job.toml"
    file.write_text(file.read_text().replace("count = 3", "count = 4000"))
    process = subprocess.Popen(
        command("simulate", "toy", "--output", "run"),
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 9/"):
            os.kill(process.pid, signal.SIGINT)
            break
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "go on with: hansa simulate --resume run" in " ".join(err.split())
    status = read_status(tmp_path / "run")
    assert status.state == "interrupted"
    assert 9 <= status.round < 4000
    assert not in_use(tmp_path / "run")


@pytest.mark.parametrize(
    "words",
    [
        ("simulate",),
        ("simulate", "toy", "--output", "x", "--no-output"),
        ("simulate", "toy", "--no-output", "--mlflow", "sqlite:///x"),
        ("simulate", "--resume", "x", "--output", "y"),
        ("simulate", "--resume", "x", "--seed", "3"),
        ("simulate", "--resume", "x", "--set", "seed=3"),
        ("simulate", "toy", "--checkpoint-every", "-1"),
    ],
)
def test_wrong_command_lines(words, tmp_path):
    make_jobs(tmp_path)
    assert run_here(*words, cwd=tmp_path).code == 64
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("algorithm.client_lr", "'algorithm.client_lr' sets nothing"),
        ("algorithm.client_lr=fast", 'algorithm.client_lr is "fast"; it must be a number'),
        ("algorithm.clint_lr=1", "[algorithm] has no key clint_lr"),
        ("cohrt.size=1", "there is no section 'cohrt'"),
        ("seeds=1", "there is no key 'seeds'"),
        ("cohort=1", "'cohort' is a section"),
    ],
)
def test_wrong_settings_are_explained(word, said, tmp_path):
    make_jobs(tmp_path)
    done = run_here("simulate", "toy", "--set", word, cwd=tmp_path)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert "--set" in done.err or "job.toml" in done.err
    assert not (tmp_path / "runs").exists()


def test_a_job_from_a_file_and_one_from_python_are_told_apart(tmp_path):
    make_jobs(tmp_path)
    source = Source.of(tmp_path / "toy", {})
    with Recorder(tmp_path / "run", source) as recorder:
        recorder.finish(simulate(load_job(tmp_path / "toy"), keeper=recorder))
    said = json.loads((tmp_path / "run" / "run.json").read_text())
    assert said["job_file"] == str(tmp_path / "toy" / "job.toml")
    assert tomllib.loads((tmp_path / "run" / "job.toml").read_text())["name"] == "toy"
    recorded(job(), tmp_path / "other")
    assert not (tmp_path / "other" / "job.toml").exists()
