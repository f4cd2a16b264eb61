"""Runs in MLflow: the real library over a real database once, a stand-in for what goes wrong."""

from __future__ import annotations

import json
import shlex
import sqlite3
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hansa.errors import HansaError, MissingExtra
from hansa.runs import Pace, Recorder
from hansa.runs.folder import read_status
from hansa.runs.tracking import Tracking
from hansa.simulation import simulate
from tests.docs.test_docs_experiments import PAGE
from tests.docs.test_docs_tour import shown
from tests.support.cli import make_jobs, run, run_here
from tests.support.runs import Killed, killed
from tests.support.toy import job


def test_a_run_is_logged_with_the_usual_names(tmp_path):
    """The line that the page shows, with numbers to compare."""
    [line] = [line for line in shown(PAGE) if "--mlflow" in line]
    words = shlex.split(line)[1:]
    done = run(*words, "--set", "algorithm.client_lr=0.2", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    base = sqlite3.connect(tmp_path / "mlflow.db")
    try:
        [(name, status, identifier, artifacts)] = base.execute(
            "select r.name, r.status, r.run_uuid, r.artifact_uri from runs r join experiments e "
            "on r.experiment_id = e.experiment_id where e.name = 'hearts'"
        ).fetchall()
        params = dict(base.execute("select key, value from params").fetchall())
        tags = dict(base.execute("select key, value from tags").fetchall())
        metrics = base.execute("select key, step, value from metrics").fetchall()
    finally:
        base.close()
    assert (name, status) == ("heart-001", "FINISHED")
    assert params["algorithm.client_lr"] == "0.2"
    assert params["rounds.count"] == "3"
    assert params["algorithm.name"] == "fedavg"
    assert tags["hansa.plan_digest"] == said["plan_digest"]
    assert tags["hansa.model_sha256"] == said["model_sha256"]
    assert tags["hansa.state"] == "finished"
    assert tags["mlflow.source.name"].endswith("job.toml")
    losses = sorted((step, value) for key, step, value in metrics if key == "loss")
    expected = [values["loss"] for values in said["metrics"]] + [said["final"]["loss"]]
    assert losses == list(enumerate(expected))
    at = tmp_path / artifacts.removeprefix(str(tmp_path)).lstrip("/")
    assert {path.name for path in at.iterdir()} >= {"plan.json", "model.npz", "metrics.csv"}
    assert (at / "model.npz").read_bytes() == (tmp_path / said["folder"] / "model.npz").read_bytes()
    link = json.loads((tmp_path / said["folder"] / "mlflow.json").read_text())
    assert link == {"uri": "sqlite:///mlflow.db", "run": identifier}


class Server:
    """What a tracking server keeps; it can be told to be gone."""

    def __init__(self) -> None:
        self.gone = False
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: list[str] = []

    def get_experiment_by_name(self, name: str) -> Any:
        found = [i for i, known in enumerate(self.experiments) if known == name]
        return SimpleNamespace(experiment_id=str(found[0])) if found else None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return str(len(self.experiments) - 1)

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        name = f"r{len(self.runs)}"
        self.runs[name] = {"metrics": [], "params": {}, "tags": dict(tags), "status": "RUNNING",
                           "files": []}  # fmt: skip
        return SimpleNamespace(info=SimpleNamespace(run_id=name))

    def update_run(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status

    def get_metric_history(self, run: str, key: str) -> list[Any]:
        return [metric for metric in self.runs[run]["metrics"] if metric.key == key]

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        if self.gone:
            raise ConnectionError("no route\nto the host")
        self.runs[run]["metrics"] += metrics
        self.runs[run]["params"].update({param.key: param.value for param in params})

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.runs[run]["tags"][key] = value

    def log_artifact(self, run: str, path: str) -> None:
        self.runs[run]["files"].append(path)

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status


def steps(server: Server, run: str = "r0") -> list[int]:
    return [metric.step for metric in server.runs[run]["metrics"] if metric.key == "loss"]


def test_a_run_that_goes_on_is_the_same_run_there(tmp_path):
    server, at, heard = Server(), tmp_path / "run", []
    tracking = Tracking(server, "somewhere")
    recorder = Recorder(at, pace=Pace(9), listeners=[tracking])  # the rounds are run again

    def dying(record: Any) -> None:
        recorder.heard(record)
        heard.append(record)
        if len(heard) == 2:
            tracking._flush()  # a few seconds went by
            raise Killed

    killed(recorder, lambda: simulate(job(), keeper=recorder, on_round=dying))
    assert (steps(server), server.runs["r0"]["status"]) == ([0, 1], "RUNNING")
    with Recorder.resume(at, listeners=[Tracking(server, "somewhere")]) as again:
        again.finish(simulate(again.job(), keeper=again, on_round=again.heard))
    assert list(server.runs) == ["r0"]
    assert steps(server) == [0, 1, 2, 3]
    assert server.runs["r0"]["status"] == "FINISHED"
    assert any(file.endswith("model.npz") for file in server.runs["r0"]["files"])


def test_a_server_that_is_lost_does_not_end_the_run(tmp_path):
    server, at = Server(), tmp_path / "run"

    def lose(record: Any) -> None:
        server.gone = True
        recorder.heard(record)

    with Recorder(at, listeners=[Tracking(server, "somewhere")]) as recorder:
        recorder.finish(simulate(job(), keeper=recorder, on_round=lose))
    assert read_status(at).state == "finished"
    [note] = recorder.notes
    assert note == "MLflow at somewhere does not have the whole run: ConnectionError: no route."


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (HansaError("x", fix="y"), "FAILED")]
)
def test_how_it_ended_is_said(error, status, tmp_path):
    server = Server()

    def raising(record: Any) -> None:
        raise error

    with (
        pytest.raises((KeyboardInterrupt, HansaError)),
        Recorder(tmp_path / "run", listeners=[Tracking(server, "x")]) as recorder,
    ):
        simulate(job(), keeper=recorder, on_round=raising)
    assert server.runs["r0"]["status"] == status


def test_without_the_package_the_extra_is_named(monkeypatch):
    for name in ("mlflow", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"pip install 'hansa\[mlflow\]'"):
        Tracking.to("sqlite:///x.db")


def test_an_address_that_is_none_is_an_error_before_anything_runs(tmp_path):
    make_jobs(tmp_path)
    done = run_here("simulate", "toy", "--mlflow", "nonsense://x", cwd=tmp_path)
    assert done.code == 1
    assert "MLflow cannot write to 'nonsense://x'" in " ".join(done.err.split())
    assert not (tmp_path / "runs").exists()
