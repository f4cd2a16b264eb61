"""`hansa demo`: a whole federation, twice in the same folder, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hansa.core.vector import sha256
from tests.support.cli import Run

KEYS = {
    "job",
    "plan_digest",
    "engine",
    "rounds",
    "seconds_per_round",
    "clients_per_second",
    "metrics",
    "final",
    "model_sha256",
    "patients",
    "local_only",
    "local_at_home",
    "local_elsewhere",
    "federated",
    "federated_at_home",
    "pooled",
    "folder",
}
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


def test_words_and_json_tell_of_the_same_model(hansa: Callable[..., Run], tmp_path: Path) -> None:
    spoken = hansa("demo", "--rounds", "3", "--folder", "out")
    assert spoken.code == 0, spoken.err
    assert all(len(line) <= 80 for line in (spoken.out + spoken.err).splitlines())
    done = hansa("demo", "--rounds", "3", "--folder", "out", "--json")  # the folder is made anew
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told.keys() == KEYS
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == told
    assert (told["engine"], told["rounds"], len(told["metrics"])) == ("network", 3, 3)
    assert told["seconds_per_round"] > 0
    assert told["clients_per_second"] > 0
    assert f"model {told['model_sha256'][:16]}" in spoken.out

    for name in ("local_only", "local_at_home", "federated", "pooled"):
        for metric in ("accuracy", "auroc"):
            value, (low, high) = told[name][metric], told[name][f"{metric}_interval"]
            assert isinstance(value, float)
            assert low <= value <= high
            assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in spoken.out
    assert told["federated"]["accuracy"] == pytest.approx(told["final"]["accuracy"])

    arrays = np.load(tmp_path / "out" / "model.npz")
    flat = np.concatenate([arrays[name].ravel() for name in arrays.files])
    assert sha256(flat) == told["model_sha256"]
    for hospital in HOSPITALS:
        left = (tmp_path / "out" / hospital / "left-the-building.jsonl").read_text().splitlines()
        assert sum('"kind": "left"' in line for line in left) == 4  # three rounds, one measurement


def test_a_folder_of_somebody_else_is_left_alone(hansa: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = hansa("demo", "--folder", "mine")
    assert done.code == 1
    assert "holds something that the demo did not make" in done.err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert "cannot be made anew" in hansa("demo", "--folder", "mine/thesis.txt").err


@pytest.mark.parametrize(
    ("attack", "why"), [("scale", "exceeds its norm bound"), ("nan", "is not finite")]
)
def test_a_hostile_hospital_is_refused_and_the_others_train_on(
    hansa: Callable[..., Run], tmp_path: Path, attack: str, why: str
) -> None:
    done = hansa("demo", "--rounds", "3", "--folder", "out", "--attack", attack)
    assert done.code == 0, done.err
    assert all(len(line) <= 80 for line in (done.out + done.err).splitlines())
    words = " ".join(done.out.split())
    assert "va attacked. Its update was refused in 3 of 3 rounds" in words
    assert why in words
    assert "Four are too few for a rule" in words
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told.keys() == KEYS | {"hostile", "refused"}
    assert (told["hostile"], told["refused"]) == ("va", 3)
    assert np.isfinite(told["federated"]["auroc"])
    assert told["federated"]["auroc"] > 0.75


def test_an_attack_that_the_demo_does_not_know_is_a_wrong_command_line(
    hansa: Callable[..., Run],
) -> None:
    done = hansa("demo", "--attack", "scal")
    assert done.code == 64
    assert "no attack 'scal': write scale" in " ".join(done.err.split())
