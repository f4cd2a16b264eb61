"""Sweeps: every combination is checked first, runs by itself, and is run once."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from hansa.errors import HansaError, JobError, Refused
from hansa.jobfile import load_job
from hansa.runs.compare import compare, ordered
from hansa.runs.folder import in_use, read_status
from hansa.runs.processes import Processes
from hansa.runs.settings import Range, assignments, drawn, grid, label, settings
from hansa.runs.sweep import check, prepare, read
from hansa.simulation import simulate
from tests.support.cli import command, environment, make_jobs, run, run_here

LR = "algorithm.client_lr"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    make_jobs(tmp_path)
    return tmp_path


def prepared(folder: Path, *words: str):
    job = str(folder / "toy")
    return prepare(job, check(job, grid(settings(words))), folder / "sweep", "inline", {})


def test_values_and_ranges_as_they_are_written():
    assert settings([f"{LR}=0.01, 0.1,1", "cohort.sampler=fixed,'poisson'", "seed=1"]) == [
        (LR, (0.01, 0.1, 1)),
        ("cohort.sampler", ("fixed", "poisson")),
        ("seed", (1,)),
    ]
    assert settings(["cohort.size=int:10..50", f"{LR}=log:1e-3..1"]) == [
        ("cohort.size", Range("int", 10, 50)),
        (LR, Range("log", 0.001, 1)),
    ]
    assert assignments([f"{LR}=0.1", 'rounds.deadline="60s"', "quantization.rotate=true"]) == {
        LR: 0.1,
        "rounds.deadline": "60s",
        "quantization.rotate": True,
    }


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (f"{LR}", "sets nothing"),
        (f"{LR}=", "sets nothing"),
        (f"{LR}=log:0..1", "needs ends above 0"),
        (f"{LR}=log:1..0.1", "the smaller one"),
        (f"{LR}=uniform:a..b", "its ends are numbers"),
        ("cohort.size=int:1.5..3", "its ends are whole numbers"),
        ("cohortt.size=1", "no section 'cohortt'"),
    ],
)
def test_words_that_set_nothing(word, said):
    with pytest.raises(JobError, match=said):
        settings([word])
    with pytest.raises(JobError, match="set twice"):
        settings([f"{LR}=1", f"{LR}=2"])


def test_a_grid_is_every_combination():
    tried = settings([f"{LR}=0.1,1", "cohort.population=4,5,6"])
    assert [tuple(c.values()) for c in grid(tried)] == [
        (0.1, 4), (0.1, 5), (0.1, 6), (1, 4), (1, 5), (1, 6),
    ]  # fmt: skip
    with pytest.raises(JobError, match="is a range, and a grid needs values"):
        grid(settings([f"{LR}=log:0.1..1"]))


def test_a_random_search_draws_evenly_and_repeats_itself():
    tried = settings([f"{LR}=log:0.001..1", "cohort.size=int:1..4", "seed=1,2"])
    found = drawn(tried, 400, seed=3)
    assert len(found) == len({repr(c) for c in found}) == 400
    assert found == drawn(tried, 400, seed=3)
    assert found[:50] == drawn(tried, 50, seed=3)
    assert found != drawn(tried, 400, seed=4)
    rates = [c[LR] for c in found]
    assert all(0.001 <= rate <= 1 and float(f"{rate:.4g}") == rate for rate in rates)
    for low in (0.001, 0.01, 0.1):  # a third in each decade; 5 standard deviations are 47
        assert abs(sum(low <= rate < 10 * low for rate in rates) - 133) < 47
    for size in (1, 2, 3, 4):
        assert abs(sum(c["cohort.size"] == size for c in found) - 100) < 44
    flat = [c["x"] for c in drawn([("x", Range("uniform", 2.0, 4.0))], 300, seed=0)]
    assert abs(sum(value < 3 for value in flat) - 150) < 44
    assert len(drawn(settings(["seed=1,2,3"]), 50, seed=0)) == 3


def test_labels_are_short_and_tell_apart():
    assert label({LR: 0.1, "cohort.size": 5}) == "client_lr=0.1 size=5"
    assert label({"privacy.clip": 1.0, "aggregation.clip": 2.0, "quantization.rotate": True}) == (
        "privacy.clip=1 aggregation.clip=2 quantization.rotate=true"
    )


def test_an_address_is_for_ray_and_each_run_is_told(jobs):
    """Nobody listens there: each run says so itself, with its own exit."""
    words = ("--set", f"{LR}=0.01,1", "--address", "localhost:9", "--json")
    refused = run("sweep", "toy", *words, cwd=jobs)
    assert refused.code == 64
    assert "an address is for the engine ray" in " ".join(refused.err.split())
    assert not (jobs / "runs").exists()
    done = run("sweep", "toy", *words, "--engine", "ray", cwd=jobs)
    assert done.code == 1, done.err
    at = jobs / json.loads(done.out)["folder"]
    again = run("sweep", "--resume", str(at), "--address", "localhost:9", "--json", cwd=jobs)
    assert again.code == 1
    for number in (1, 2):
        said = (at / f"run-{number:04}" / "log.txt").read_text()
        assert len(re.findall(r"nobody answers at \S+:9\.", said)) == 2, said


def test_a_sweep_is_its_runs(jobs):
    done = run("sweep", "toy", "--set", f"{LR}=0.01,1", "--set", "rounds.count=2,4",
               "--parallel", "2", "--json", cwd=jobs)  # fmt: skip
    assert done.code == 0, done.err
    said = json.loads(done.out)
    at = jobs / said["folder"]
    assert at == jobs / "runs" / "toy-sweep-001"
    losses = []
    for entry in said["runs"]:
        alone = simulate(load_job(jobs / "toy", entry["values"]))
        assert entry["model_sha256"] == alone.model_sha256
        assert entry["final"]["loss"] == alone.metrics["loss"]
        assert (
            json.loads((jobs / entry["folder"] / "run.json").read_text())["overrides"]
            == (entry["values"])
        )
        losses.append(entry["final"]["loss"])
    assert losses == sorted(losses)
    assert said["best"] == said["runs"][0]["name"]
    assert (said["by"], said["better"], said["refused"]) == ("loss", "lower", [])
    with (at / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [entry["name"] for entry in said["runs"]]
    assert [float(row["loss"]) for row in rows] == losses
    assert {row[LR] for row in rows} == {"0.01", "1.0"}
    root = ET.fromstring((at / "comparison.svg").read_text())
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4 * 3
    before = {p: p.stat().st_mtime_ns for p in at.rglob("*.npz")}
    assert read(at).left == ()
    again = run_here("sweep", "--resume", str(at), "--by", "auroc", cwd=jobs)
    assert again.code == 0
    assert {p: p.stat().st_mtime_ns for p in at.rglob("*.npz")} == before
    table = again.out.splitlines()
    assert max(map(len, table[:6])) <= 80
    assert table[0].split() == [
        "Run", "client_lr", "count", "auroc", "loss", "accuracy", "Rounds",
    ]  # fmt: skip
    scores = [float(line.split()[3]) for line in table[1:5]]
    assert scores == sorted(scores, reverse=True)
    listed = run_here("runs", cwd=jobs).out.splitlines()
    assert listed[1].startswith(said["best"])


def test_every_refused_combination_is_listed_and_nothing_runs(jobs):
    words = ("sweep", "toy", "--set", "cohort.population=1,4", "--set", f"{LR}=0.1,-1")
    done = run_here(*words, "--json", cwd=jobs)
    assert done.code == 2
    said = json.loads(done.out)
    assert [entry["values"]["cohort.population"] for entry in said["refused"]] == [1, 1, 4]
    assert said["runs"] == []
    told = " ".join(done.err.split())
    assert "3 of 4 combinations are refused" in told
    for combination in ("population=1 client_lr=0.1", "population=1 client_lr=-1",
                        "population=4 client_lr=-1"):  # fmt: skip
        assert f"- {combination} " in told
    assert "client_lr is -1.0, not a number above 0" in told or "client_lr is -1" in told
    assert not (jobs / "runs").exists()
    kept = run_here(*words, "--skip-refused", "--json", "--output", "out", cwd=jobs)
    assert kept.code == 0, kept.err
    left = json.loads(kept.out)
    assert [entry["values"] for entry in left["runs"]] == [{"cohort.population": 4, LR: 0.1}]
    assert len(left["refused"]) == 3
    assert read(jobs / "out").left == ()


def test_a_failing_run_does_not_end_the_others(jobs):
    task = jobs / "toy" / "task.py"
    task.write_text(
        task.read_text().replace(
            "        rng = np.random.default_rng(list(site.name.encode()))",
            "        import os, sys\n"
            "        if site.name == 'client-0006' and 'simulate' in sys.argv:\n"
            "            os.kill(os.getpid(), 9)\n"
            "        rng = np.random.default_rng(list(site.name.encode()))",
        )
    )
    done = run("sweep", "toy", "--set", "cohort.population=4,6,5", "--json", cwd=jobs)
    assert done.code == 1
    said = json.loads(done.out)
    assert [(e["values"]["cohort.population"], e["state"]) for e in said["runs"]][2] == (
        6,
        "failed",
    )
    assert [entry["state"] for entry in said["runs"]] == ["finished", "finished", "failed"]
    assert said["runs"][2]["because"] == "its process was ended by SIGKILL"
    shown = run_here("runs", said["folder"], cwd=jobs).out
    assert "(failed after 0 rounds): its process was ended by SIGKILL." in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


SLOWLY = """\
        import pathlib, time
        time.sleep(0.05 * pathlib.Path("slowly").exists())
"""


def test_ctrl_c_leaves_runs_that_go_on(jobs):
    """The runs are slow until they were interrupted: none is over, however busy the machine is."""
    file, task = jobs / "toy" / "job.toml", jobs / "toy" / "task.py"
    file.write_text(file.read_text().replace("count = 3", "count = 60"))
    first = '        """Cross-entropy and its gradient."""\n'
    assert first in task.read_text()
    task.write_text(task.read_text().replace(first, first + SLOWLY))
    (jobs / "slowly").touch()
    process = subprocess.Popen(
        command("sweep", "toy", "--set", f"{LR}=0.05,0.1", "--parallel", "2",
                "--output", "sweep"),
        cwd=jobs, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if (jobs / "sweep" / "sweep.json").exists() and all(
            _lines(at) > 2 for at in read(jobs / "sweep").runs
        ):
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    (jobs / "slowly").unlink()
    assert process.returncode == 130
    assert "hansa sweep --resume sweep" in err
    sweep = read(jobs / "sweep")
    assert not any(in_use(at) for at in sweep.runs)
    states = [read_status(at).state for at in sweep.runs]
    assert states == ["interrupted", "interrupted"]
    assert (jobs / "sweep" / "comparison.csv").exists()
    rest = run("sweep", "--resume", "sweep", "--parallel", "2", "--json", cwd=jobs)
    assert rest.code == 0, rest.err
    for entry in json.loads(rest.out)["runs"]:
        alone = simulate(load_job(jobs / "toy", entry["values"]))
        assert entry["model_sha256"] == alone.model_sha256


def _lines(at: Path) -> int:
    path = at / "metrics.csv"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_all_runs_have_the_jobs_seed_unless_it_is_tried(jobs):
    sweep = prepared(jobs, f"{LR}=0.1,1")
    seeds = [json.loads((at / "run.json").read_text())["seeds"] for at in sweep.runs]
    assert seeds == [{"job": 0}] * 2
    tried = prepare(
        str(jobs / "toy"),
        check(str(jobs / "toy"), grid(settings(["seed=3,4"]))),
        jobs / "other",
        "inline",
        {},
    )
    seeds = [json.loads((at / "run.json").read_text())["seeds"] for at in tried.runs]
    assert seeds == [{"job": 3}, {"job": 4}]


def test_folders_that_are_no_sweep(jobs):
    with pytest.raises(HansaError, match="no sweep's folder"):
        read(jobs / "toy")
    prepared(jobs, "seed=3,4")
    with pytest.raises(HansaError, match="holds a run already"):
        prepared(jobs, "seed=3,4")
    with pytest.raises(Refused, match="every combination is refused"):
        prepare("x", [], jobs / "none", "inline", {})
    assert run_here("runs", "toy", cwd=jobs).code == 1
    assert run_here("runs", cwd=jobs).code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("sweep",),
        ("sweep", "toy"),
        ("sweep", "toy", "--resume", "x"),
        ("sweep", "--resume", "x", "--set", "seed=1"),
        ("sweep", "toy", "--set", "seed=1", "--by", "lss"),
        ("sweep", "toy", "--set", "seed=1", "--engine", "warp"),
        ("sweep", "toy", "--set", "seed=1", "--parallel", "0"),
    ],
)
def test_wrong_command_lines(words, jobs):
    assert run_here(*words, cwd=jobs).code == 64
    assert not (jobs / "runs").exists()


def test_the_best_is_first_and_what_has_no_value_last(jobs):
    sweep = prepared(jobs, "seed=1,2,3,4")
    rows = compare(sweep.runs).rows
    assert [row.state for row in rows] == ["prepared"] * 4
    from dataclasses import replace

    values = [(0.5, "finished"), (float("nan"), "finished"), (0.1, "failed"), (0.2, "stopped")]
    odd = [
        replace(row, final={"loss": value}, state=state)
        for row, (value, state) in zip(rows, values, strict=True)
    ]
    names = [row.name for row in odd]
    assert [r.name for r in ordered(odd, "loss", "lower")] == [names[i] for i in (3, 0, 1, 2)]
    assert [r.name for r in ordered(odd, "loss", "higher")] == [names[i] for i in (0, 3, 1, 2)]


def test_no_process_begins_after_the_stop(jobs):
    sweep = prepared(jobs, "seed=1,2,3")

    def stop(at, status):
        raise KeyboardInterrupt

    processes = Processes(1)
    with pytest.raises(KeyboardInterrupt):
        processes.run(sweep.runs, stop)
    states = [read_status(at).state for at in sweep.runs]
    assert states[0] == "finished"
    assert states[2] == "prepared"
