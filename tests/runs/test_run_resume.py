"""A run that was broken off goes on to the same bits, or says why it cannot."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.algorithms import fedadam, fedavg, fedavgm, fedyogi
from hansa.core.job import Aggregation, Cohort, Defend, Privacy, Rounds
from hansa.errors import HansaError, Refused, RoundVoid
from hansa.runs import Pace, Recorder, checkpoint
from hansa.runs.folder import read_status
from hansa.runs.journal import FileLedger
from hansa.simulation import simulate
from tests.support.cli import command, environment, make_jobs
from tests.support.runs import EVERY_ROUND, Killed, broken_off, killed, recorded, resumed
from tests.support.toy import job

UNIFORM = Aggregation(weighting="uniform")
TURNS = Cohort(population=6, sampler="cyclic", separation=3)
LOCAL: dict[str, Any] = {"client_lr": 0.5, "local_epochs": 1, "batch_size": 8}


def correlated(matrix: str) -> Privacy:
    return Privacy(
        mechanism="correlated",
        clip=1.0,
        noise_multiplier=0.4,
        delta=1e-3,
        matrix=matrix,  # type: ignore[arg-type]
    )


JOBS = {
    "mean": job(rounds=Rounds(count=5), algorithm=fedavg(**LOCAL)),
    "momentum": job(rounds=Rounds(count=5), algorithm=fedavgm(server_momentum=0.9, **LOCAL)),
    "adam": job(rounds=Rounds(count=5), algorithm=fedadam(server_lr=0.1, **LOCAL)),
    "yogi, sampled": job(
        rounds=Rounds(count=5, quorum=2),
        cohort=Cohort(population=6, sampler="poisson", rate=0.6),
        algorithm=fedyogi(server_lr=0.1, **LOCAL),
    ),
    "noise": job(
        rounds=Rounds(count=5),
        aggregation=UNIFORM,
        privacy=Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=0.4, delta=1e-3),
    ),
    "noise of buffers": job(
        cohort=TURNS, rounds=Rounds(count=6), aggregation=UNIFORM, privacy=correlated("blt")
    ),
    "noise of trees": job(
        cohort=TURNS, rounds=Rounds(count=6), aggregation=UNIFORM, privacy=correlated("tree")
    ),
    "adaptive clip": job(
        rounds=Rounds(count=5),
        aggregation=UNIFORM,
        privacy=Privacy(
            mechanism="gaussian", clip=0.3, noise_multiplier=0.4, delta=1e-3, clip_quantile=0.5
        ),
    ),
    "patience": job(
        rounds=Rounds(count=12, patience=2, watch="accuracy"),
        algorithm=fedavg(client_lr=0.05, batch_size=8),
    ),
    "rollback": job(
        rounds=Rounds(count=6),
        algorithm=fedavgm(server_momentum=0.9, **LOCAL),
        aggregation=UNIFORM,
        privacy=Privacy(
            mechanism="gaussian",
            clip=1.0,
            noise_multiplier=9.0,
            delta=1e-3,
            metrics_clip=30.0,
            metrics_noise_multiplier=0.01,
        ),
        defend=Defend(rollback=0.001),
    ),
    "arrivals": job(
        rounds=Rounds(count=6),
        cohort=Cohort(population=6, sampler="arrival", buffer=2, concurrency=5, max_staleness=2),
    ),
    "arrivals and a robust rule": job(
        rounds=Rounds(count=7),
        cohort=Cohort(population=9, sampler="arrival", buffer=5, concurrency=9),
        aggregation=Aggregation(rule="geometric_median", trusted="client-0002"),
        defend=Defend(standing=True),
    ),
    "void rounds": job(
        rounds=Rounds(count=5, quorum=4, attempts=9),
        cohort=Cohort(population=6, sampler="poisson", rate=0.6),
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_broken_off_after_any_round_it_ends_with_the_same_bits(name, tmp_path):
    beside = tmp_path / "whole" / "run"
    whole = recorded(JOBS[name], beside)
    assert whole.model_sha256 == simulate(JOBS[name]).model_sha256
    assert len(whole.records) >= 5
    if name == "void rounds":
        assert any(record.void for record in whole.records)
    if name == "rollback":
        assert sum(record.rejected is not None for record in whole.records) >= 2
    every = range(1, len(whole.records) + 1)
    for after in every if name in ("mean", "adam", "rollback") else (1, 4, len(every)):
        at = tmp_path / str(after) / "run"
        broken_off(JOBS[name], at, after)
        assert read_status(at).state == "killed"
        again = resumed(at)
        assert again.model_sha256 == whole.model_sha256
        assert [replace(r, seconds=0) for r in again.records] == [
            replace(r, seconds=0) for r in whole.records
        ]
        assert again.metrics == whole.metrics
        for file in ("model.npz", "ledger.jsonl", "resolved.json", "plan.json", "metrics.svg"):
            assert (at / file).read_bytes() == (beside / file).read_bytes(), file
        lines = (at / "metrics.csv").read_text().splitlines()
        assert len(lines) == 1 + len(whole.records)


@pytest.mark.parametrize("step", ["between the rows and the checkpoint", "in a row", "in a charge"])
def test_killed_in_the_middle_of_a_step(step, tmp_path, monkeypatch):
    of, at = JOBS["noise"], tmp_path / "run"
    whole = simulate(of)
    save, calls = checkpoint.save, []

    def dying(*words: object, **more: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        save(*words, **more)  # type: ignore[arg-type]

    recorder = Recorder(at, pace=EVERY_ROUND)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", dying)
        killed(recorder, lambda: simulate(of, keeper=recorder))
    if step == "in a row":
        for name in ("rounds.jsonl", "metrics.csv"):
            text = (at / name).read_text()
            (at / name).write_text(text[:-20])
    if step == "in a charge":
        text = (at / "ledger.jsonl").read_text()
        (at / "ledger.jsonl").write_text(text[:-20])
    again = resumed(at)
    assert again.model_sha256 == whole.model_sha256
    assert [r.round for r in again.records] == [r.round for r in whole.records]
    assert len((at / "metrics.csv").read_text().splitlines()) == 1 + len(whole.records)


def test_a_rare_checkpoint_costs_rounds_and_no_charge(tmp_path):
    of, at = JOBS["noise"], tmp_path / "run"
    broken_off(of, at, 3, Pace(every=2))
    last = checkpoint.newest(at)
    assert last is not None
    assert (last.state.round, last.records) == (2, 2)
    ledger = FileLedger(at, simulate(of).plan)
    ledger.restore()
    assert ledger.memory.spent == 3
    assert resumed(at).model_sha256 == simulate(of).model_sha256
    after = FileLedger(at, simulate(of).plan)
    after.restore()
    assert after.memory.spent == 5
    text = (at / "ledger.jsonl").read_text().splitlines()
    assert len(set(text)) == len(text)


def test_a_damaged_checkpoint_is_passed_over_and_none_is_an_error(tmp_path):
    of, at = JOBS["adam"], tmp_path / "run"
    broken_off(of, at, 3)
    older, newer = sorted((at / "checkpoints").iterdir())
    data = bytearray(newer.read_bytes())
    data[data.index(b"params.npy") + 150] ^= 1
    newer.write_bytes(data)
    assert resumed(at).model_sha256 == simulate(of).model_sha256
    shutil.rmtree(at)
    broken_off(of, at, 3)
    for file in (older, newer):
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(HansaError, match=r"all checkpoints .* are damaged"):
        resumed(at)


def test_checkpoints_are_kept_as_many_as_asked(tmp_path):
    for keep, left in ((0, 5), (2, 2), (1, 1)):
        recorded(JOBS["mean"], tmp_path / str(keep), Pace(1, keep))
        assert len(list((tmp_path / str(keep) / "checkpoints").iterdir())) == left


def test_another_job_is_refused_by_its_words(tmp_path):
    of, at = JOBS["mean"], tmp_path / "run"
    broken_off(of, at, 2)
    other = replace(of, seed=3, rounds=Rounds(count=6))
    with pytest.raises(Refused) as caught:
        resumed(at, other)
    assert "rounds.count was 5 and is 6; seed was 0 and is 3" in str(caught.value)
    assert read_status(at).state == "killed"
    assert resumed(at, of).model_sha256 == simulate(of).model_sha256


def test_other_code_and_other_data_are_refused(tmp_path):
    make_jobs(tmp_path)
    of = replace(JOBS["mean"], folder=tmp_path / "toy")
    task, at = tmp_path / "toy" / "task.py", tmp_path / "run"
    broken_off(of, at, 2)
    code = task.read_text()
    task.write_text(code + "\n# a remark\n")
    with pytest.raises(Refused, match="the code of the task 'task:Toy' is not what the run"):
        resumed(at)
    task.write_text(code)
    said = json.loads((at / "run.json").read_text())
    assert len(said["data"]) == 6
    said["data"]["client-0003"] = "0" * 64
    (at / "run.json").write_text(json.dumps(said))
    with pytest.raises(Refused, match="the data of client-0003 are not what the run"):
        resumed(at)


def test_another_numpy_is_said(tmp_path):
    at = tmp_path / "run"
    broken_off(JOBS["mean"], at, 2)
    said = json.loads((at / "environment.json").read_text())
    said["packages"]["numpy"] = "1.0"
    (at / "environment.json").write_text(json.dumps(said))
    with Recorder.resume(at) as recorder:
        recorder.finish(simulate(recorder.job(), keeper=recorder))
    [note] = recorder.notes
    assert f"numpy was 1.0 and is {np.__version__}" in note


def test_what_cannot_go_on_says_why(tmp_path):
    at = tmp_path / "run"
    recorded(JOBS["mean"], at)
    with pytest.raises(Refused, match="is over: all 5 rounds were run"):
        resumed(at)
    void = replace(JOBS["void rounds"], rounds=Rounds(count=5, quorum=6, attempts=2))
    with pytest.raises(RoundVoid), Recorder(tmp_path / "void") as recorder:
        simulate(void, keeper=recorder)
    with pytest.raises(Refused, match=r"would fail again: round \d was void 2 times"):
        resumed(tmp_path / "void")
    with pytest.raises(HansaError, match="it is no run's folder"):
        resumed(tmp_path)


def test_an_engine_with_other_bits_is_refused(tmp_path):
    at = tmp_path / "run"
    broken_off(JOBS["mean"], at, 2)
    assert Recorder.resume(at).engine == "inline"
    assert Recorder.resume(at, engine="workers").engine == "workers"
    with pytest.raises(Refused, match="began with the engine inline, and vector gives other bits"):
        Recorder.resume(at, engine="vector")
    for engine, said in (("inline", 0), ("vector", 1)):
        beside = tmp_path / engine
        broken_off(JOBS["mean"], beside, 2)
        with Recorder.resume(beside) as recorder:
            result = simulate(recorder.job(), keeper=recorder)
            recorder.finish(replace(result, engine=engine))
        assert sum("trained in stacks" in note for note in recorder.notes) == said


def test_two_processes_do_not_write_one_run(tmp_path):
    at = tmp_path / "run"
    broken_off(JOBS["mean"], at, 2)
    with Recorder.resume(at) as recorder:
        simulate(recorder.job(), keeper=recorder)
        assert read_status(at).state == "running"
        with pytest.raises(Refused, match="is going on already"):
            resumed(at)
        done = subprocess.run(
            command("simulate", "--resume", str(at)),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "is going on already" in " ".join(done.stderr.split())
    assert resumed(at).model_sha256 == simulate(JOBS["mean"]).model_sha256


def test_a_real_process_is_killed_at_random_moments(tmp_path):
    make_jobs(tmp_path)
    file = tmp_path / "toy" / "job.toml"
    file.write_text(
        file.read_text().replace("count = 3", "count = 1000").replace('"fedavg"', '"fedadam"')
    )
    at, moments = tmp_path / "run", random.Random(20261124)
    words = ["simulate", str(file), "--output", str(at)]
    states: list[str] = []
    rounds: list[int] = []
    for _ in range(3):
        target = (rounds[-1] if rounds else 0) + moments.randrange(5, 60)
        process = subprocess.Popen(
            command(*words), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(at, target)
            time.sleep(moments.random() * 0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        status = read_status(at)
        states.append(status.state)
        rounds.append(status.round)
        words = ["simulate", "--resume", str(at)]
    assert states[:2] == ["killed"] * 2  # the third may be over, where this process was held up
    assert rounds == sorted(rounds)
    done = subprocess.run(
        command(*words, "--json"),
        env=environment(), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    whole = subprocess.run(
        command("simulate", str(file), "--no-output", "--json"),
        env=environment(), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    expected = json.loads(whole.stdout)
    for key in ("model_sha256", "metrics", "final", "rounds", "plan_digest", "ended_because"):
        assert said[key] == expected[key]
    assert said == json.loads((at / "result.json").read_text())


def _wait_for(at: Path, rounds: int) -> None:
    """Until a run has done so many rounds; bounded."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if (at / "status.json").exists() and read_status(at).round >= rounds:
            return
        time.sleep(0.005)
    raise AssertionError(f"{rounds} rounds were not done within a minute")
