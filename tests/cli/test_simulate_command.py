"""`hansa simulate` is `hansa.simulate`, with words around it."""

from __future__ import annotations

import json

import pytest

from hansa.jobfile import load_job
from hansa.simulation import simulate

KEYS = {
    "job",
    "plan_digest",
    "engine",
    "engine_because",
    "ended_because",
    "rounds",
    "seconds_per_round",
    "clients_per_second",
    "metrics",
    "final",
    "model_sha256",
    "folder",
}
NAMES = {"loss", "accuracy", "auroc"}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ((), {}),
        (("--rounds", "2"), {"rounds": 2}),
        (("--clients", "3"), {"clients": 3}),
        (("--seed", "7"), {"seed": 7}),
        (
            ("--seed", "7", "--rounds", "1", "--clients", "2", "--engine", "inline"),
            {"seed": 7, "rounds": 1, "clients": 2},
        ),
    ],
)
def test_json_is_the_result(hansa, tmp_path, words, changes):
    done = hansa("simulate", "toy", "--json", *words)
    said = json.loads(done.out)
    result = simulate(load_job(tmp_path / "toy"), **changes)
    assert done.code == 0
    assert said.keys() == KEYS
    assert said["model_sha256"] == result.model_sha256
    assert said["plan_digest"] == result.plan.digest
    assert said["engine"] == "inline"
    assert said["rounds"] == len(said["metrics"]) == changes.get("rounds", 3)
    assert [set(values) for values in said["metrics"]] == [NAMES | {"train_loss"}] * said["rounds"]
    assert said["metrics"] == [record.metrics for record in result.records[:-1]]
    assert said["final"] == {name: result.metrics[name] for name in NAMES}
    assert said["seconds_per_round"] > 0
    assert said["clients_per_second"] > 0


JUMPY = (
    *("--set", "algorithm.client_lr=30.0", "--set", "defend.rollback=0.001"),
    *("--rounds", "5", "--no-output"),
)
"""Steps so long that models get worse by themselves, the last one, too."""


def test_a_rejected_model_is_said_with_its_value_and_what_is_gone_back_to(hansa, tmp_path):
    said = json.loads(hansa("simulate", "toy", "--json", *JUMPY).out)
    first = said["rejected"][0]
    assert first.keys() == {"purpose", "round", "metric", "value", "best", "tolerance", "back"}
    assert first["value"] > first["best"] + 0.001
    done = hansa("simulate", "toy", *JUMPY)
    words = (
        f"round {first['round'] + 1}: the model is rejected: loss {first['value']:.4g} is worse "
        f"than {first['best']:.4g} by more than 0.001; on from the model that round "
        f"{first['back'] + 1} started from"
    )
    assert words in " ".join(done.err.split()), "while it runs"
    assert words in " ".join(done.out.split())
    shown = dict(line.split()[:2] for line in done.out.splitlines() if line.startswith("loss "))
    assert float(shown["loss"]) == pytest.approx(said["final"]["loss"], abs=1e-4)
    assert said["rejected"][-1]["purpose"] == "evaluate"
    assert "after the last round: the model is rejected" in " ".join(done.out.split())
    kept = min(values["loss"] for values in said["metrics"])
    assert said["final"]["loss"] == kept, "of the model that was kept, not of the last one"
    quiet = ("--set", "defend.rollback=50.0")
    assert "No model was rejected." in hansa("simulate", "toy", *quiet).out


def test_words_hold_the_result(hansa):
    said = json.loads(hansa("simulate", "toy", "--json").out)
    spoken = hansa("simulate", "toy")
    assert said["model_sha256"] in spoken.out
    for name, value in said["final"].items():
        assert f"{name} {value:.4f}" in " ".join(spoken.out.split())
    assert "train_loss" not in spoken.out
    assert f"loss {said['metrics'][2]['loss']:.4f}" in spoken.err


def test_values_with_noise_are_called_so_and_no_metrics_are_called_so(hansa, tmp_path):
    assert "No metrics leave" in hansa("simulate", "private", "--rounds", "1").out
    job = tmp_path / "private" / "job.toml"
    text = job.read_text()
    noisy = text.replace(
        "clip = 0.5", "clip = 0.5\nmetrics_clip = 40.0\nmetrics_noise_multiplier = 9.0"
    )
    job.write_text(noisy)
    assert "The values carry noise" in hansa("simulate", "private", "--rounds", "1").out


def test_a_client_that_fails_is_left_out_or_shown(hansa, tmp_path):
    task = tmp_path / "toy" / "task.py"
    task.write_text(
        task.read_text().replace(
            "        rng = np.random.default_rng(list(site.name.encode()))",
            "        if site.name.endswith('2'):\n"
            "            raise ValueError('no such column')\n"
            "        rng = np.random.default_rng(list(site.name.encode()))",
        )
    )
    kept = hansa("simulate", "toy")
    assert kept.code == 0
    assert "left out: 1 client, because" in " ".join(kept.err.split())
    shown = hansa("simulate", "toy", "--debug-clients")
    assert shown.code == 1
    assert "ValueError" in shown.err
    assert "no such column" in " ".join(shown.err.split())
    assert "Traceback" not in shown.err


def test_a_refused_plan_runs_nothing(hansa):
    done = hansa("simulate", "private", "--clients", "3", "--json")
    assert done.code == 2
    assert done.out == ""
    assert "round 1" not in done.err


def test_the_engine_and_its_reason_are_said_and_change_nothing(hansa):
    inline, workers = (
        json.loads(hansa("simulate", "toy", "--engine", engine, "--json").out)
        for engine in ("inline", "workers")
    )
    assert (workers["engine"], workers["engine_because"]) == ("workers", "it was asked for")
    for key in KEYS - {"engine", "seconds_per_round", "clients_per_second", "folder"}:
        assert workers[key] == inline[key]
    chosen = json.loads(hansa("simulate", "toy", "--json").out)
    assert chosen["engine"] == "inline"
    assert "not do sooner" in chosen["engine_because"]
    spoken = " ".join(hansa("simulate", "toy").out.split())
    assert "Engine: inline, because a client takes" in spoken
    refused = hansa("simulate", "toy", "--engine", "workers", "--debug-clients")
    assert refused.code == 1
    assert 'use the engine "inline" or "auto"' in " ".join(refused.err.split())
    assert hansa("simulate", "toy", "--engine", "worker").code == 64


def test_devices_set_a_virtual_clock_and_change_no_plan(hansa, tmp_path):
    (tmp_path / "devices.toml").write_text("[speed]\ncompute = 1.0\ncompute_spread = 0.5\n")
    words = ("simulate", "toy", "--no-output", "--devices", "devices.toml")
    plain = json.loads(hansa("simulate", "toy", "--no-output", "--json").out)
    timed = json.loads(hansa(*words, "--json").out)
    assert timed.keys() == KEYS | {"virtual_seconds", "rounds_virtual_seconds"}
    assert timed["plan_digest"] == plain["plan_digest"]
    assert timed["virtual_seconds"] == sum(timed["rounds_virtual_seconds"])
    spoken = " ".join(hansa(*words).out.split())
    assert f"would take {timed['virtual_seconds'] / 60:.1f} minutes" in spoken
    wrong = hansa(*words[:-1], "none.toml")
    assert wrong.code == 2
    assert "none.toml: the devices cannot be read" in " ".join(wrong.err.split())
