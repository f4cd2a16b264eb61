"""`hansa budget` against a coordinator that runs as a process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hansa.budget.cost import Need
from hansa.budget.entry import Key
from hansa.coordinator import config
from hansa.coordinator.store import Store
from hansa.core.events import Gaussian
from hansa.local.federation import LocalFederation
from tests.support.budgets import block
from tests.support.cli import JOB, TASK, Run, run_here

DP = """
[privacy]
mechanism = "gaussian"
clip = 1.0
noise_multiplier = 6.0
delta = 1e-3

[aggregation]
weighting = "uniform"
"""


@dataclass(frozen=True)
class World:
    """A running coordinator without sites, and a private job beside it."""

    folder: Path

    def hansa(self, *words: str) -> Run:
        return run_here("budget", *words, cwd=self.folder)

    def json(self, *words: str) -> dict[str, Any]:
        done = self.hansa(*words, "--json")
        assert done.code == 0, done.err
        told: dict[str, Any] = json.loads(done.out)
        return told


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("budget")
    (folder / "job").mkdir()
    (folder / "job" / "task.py").write_bytes(TASK.read_bytes())
    (folder / "job" / "job.toml").write_text(JOB + DP)
    with LocalFederation(folder, name="hanse") as federation:
        federation.start_coordinator()
        here = World(folder)
        assert "No privacy budget" in here.hansa("show").out
        assert "Nothing was charged" in here.hansa("history").out
        here.json("create", "patients", "--epsilon", "8", "--delta", "1e-5")
        here.json("create", "kiel", "--epsilon", "4", "--delta", "1e-5", "--owner", "kiel")
        settings = config.load(federation.coordinator)
        with Store.open(config.store_url(federation.coordinator, settings)) as store:
            key, half = Key("heart-1", "train", 0, 0), Need(200_000, 100_000, 2)
            store.budgets.write(lambda _, book: book.hold("heart-1", {"patients": half}, 2.0))
            store.budgets.reserve(key, Gaussian(9.0), {"patients": 100_000}, 3.0)
            store.budgets.commit(key, 4.0)
        yield here


def test_the_order_is_found_if_it_is_left_out(world: World) -> None:
    (kiel, patients) = world.json("show")["blocks"]
    assert patients["order"] == 4  # see test_cost: most plain Gaussians fit there
    assert patients["capacity"] == block().capacity
    assert kiel["owner"] == "kiel"


def test_show_says_what_is_spent_left_and_what_fits(world: World) -> None:
    (told,) = world.json("show", "patients")["blocks"]
    assert (told["committed"], told["held"]) == (100_000, 100_000)
    assert told["free"] == told["capacity"] - 200_000
    assert told["epsilon_spent"] == pytest.approx(block().epsilon_of(100_000))
    assert told["epsilon_left"] == pytest.approx(8.0 - block().epsilon_of(200_000))
    assert told["last"]["fits"]["jobs"] == told["free"] // 200_000
    shown = world.hansa("show")
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert "owner kiel" in " ".join(shown.out.split())


def test_show_can_forecast_a_job_that_was_never_run(world: World) -> None:
    from hansa.budget.cost import need
    from hansa.jobfile import load_job
    from hansa.recipes import compile_plan

    (told,) = world.json("show", "patients", "--job", "job")["blocks"]
    cost = need(compile_plan(load_job(str(world.folder / "job"))), 4)
    assert told["last"]["urdp"] == cost.urdp
    assert told["last"]["fits"] == {
        "jobs": told["free"] // cost.urdp,
        "releases": told["free"] // cost.each,
    }


def test_history_lists_every_step(world: World) -> None:
    entries = world.json("history", "patients")["entries"]
    assert [e["kind"] for e in entries] == ["create", "hold", "reserve", "commit"]
    assert [e["kind"] for e in world.json("history", "--job", "heart-1")["entries"]] == [
        *("hold", "reserve", "commit")
    ]
    assert "heart-1" in world.hansa("history").out
    unknown = world.hansa("history", "patient")
    assert unknown.code == 1
    assert "no privacy budget 'patient'" in unknown.err


def test_an_export_is_verified_without_the_coordinator(world: World) -> None:
    assert world.json("verify")["entries"] == 5
    assert world.json("export", "log.jsonl")["lines"] == 7
    root = json.loads((world.folder / "coordinator" / "operator.json").read_text())["root"]
    (world.folder / "root.pem").write_text(root)
    told = world.json("verify", "--file", "log.jsonl", "--root", "root.pem", "--coordinator", "no")
    assert told["root_checked"]
    assert told["hash"] == world.json("verify")["hash"]
    spent = {b["name"]: b["spent"] for b in told["blocks"]}
    assert spent == {"kiel": 0, "patients": 100_000}
    bare = world.hansa("verify", "--file", "log.jsonl")
    assert bare.code == 0
    assert "give --root" in bare.err
    content = (world.folder / "log.jsonl").read_bytes()
    (world.folder / "bad.jsonl").write_bytes(content.replace(b'"urdp":100000', b'"urdp":1', 1))
    bad = world.hansa("verify", "--file", "bad.jsonl")
    assert bad.code == 1
    assert "is broken" in bad.err


def test_what_is_impossible_is_refused_with_a_fix(world: World) -> None:
    again = world.hansa("create", "patients", "--epsilon", "9", "--delta", "1e-5")
    assert again.code == 2
    assert "none ever changes" in " ".join(again.err.split())
    for words in (
        ("--epsilon", "0", "--delta", "1e-5"),
        ("--epsilon", "8", "--delta", "1e-5", "--relation", "both"),
        ("--epsilon", "8", "--delta", "1e-5", "--order", "1"),
    ):
        done = world.hansa("create", "other", *words)
        assert done.code == 2, done.err
        assert "Fix:" in done.err
    missing = world.hansa("verify", "--file", "nothing.jsonl")
    assert missing.code == 1


def test_the_order_follows_the_workload(world: World) -> None:
    words = ("--epsilon", "8", "--delta", "1e-5", "--workload", "job", "--purpose", "planned")
    made = world.json("create", "planned", *words)
    assert made["order"] == 4  # everyone takes part: plain Gaussians
    assert made["purpose"] == "planned"
