"""Runs on devices are written down, and go on with the same devices at the same virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hansa.core.job import Aggregation, Cohort, Defend, Rounds
from hansa.devices import Origin
from hansa.errors import JobError, Refused
from hansa.runs import Recorder
from hansa.runs.source import devices_of
from hansa.simulation import simulate
from tests.support.cli import make_jobs, run
from tests.support.runs import broken_off, recorded, resumed
from tests.support.toy import job

JOBS = {
    "waits": job(
        cohort=Cohort(population=60, sampler="fixed", size=4, over_selection=6.0),
        rounds=Rounds(count=6, deadline=7200.0, quorum=2, attempts=9),
    ),
    "arrivals": job(
        cohort=Cohort(population=60, sampler="arrival", buffer=3, concurrency=20),
        rounds=Rounds(count=6, deadline=20000.0, attempts=9),
    ),
    "arrivals and a robust rule": job(
        cohort=Cohort(population=60, sampler="arrival", buffer=6, concurrency=30),
        rounds=Rounds(count=6, deadline=20000.0, attempts=9),
        aggregation=Aggregation(rule="median"),
        defend=Defend(standing=True),
    ),
}
NIGHTS = """
[availability]
kind = "recorded"
trace = "online.csv"
period = 86400
[speed]
compute = 0.01
[failures]
probability = 0.1
stragglers = 0.1
"""


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """Sixty devices that are online at different hours of the day."""
    spans = [(f"client-{i:04d}", i * 1200, i * 1200 + 15000) for i in range(1, 61)]
    rows = [f"{client},{start},{min(end, 86400)}" for client, start, end in spans if start < 86400]
    (tmp_path / "online.csv").write_text("\n".join(["client,start,end", *rows]) + "\n")
    file = tmp_path / "devices.toml"
    file.write_text(NIGHTS)
    return file


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("after", [1, 4])
def test_broken_off_it_goes_on_at_the_same_time(name, after, tmp_path, devices):
    whole = recorded(JOBS[name], tmp_path / "whole", devices=devices)
    assert whole.model_sha256 == simulate(JOBS[name], devices=devices).model_sha256
    broken_off(JOBS[name], tmp_path / "part", after, devices=devices)
    rest = resumed(tmp_path / "part")
    assert rest.model_sha256 == whole.model_sha256
    assert rest.virtual_seconds == whole.virtual_seconds
    assert rest.state.standing == whole.state.standing
    assert [r.virtual_seconds for r in rest.records] == [r.virtual_seconds for r in whole.records]
    said = json.loads((tmp_path / "part" / "result.json").read_text())
    assert said["virtual_seconds"] == whole.virtual_seconds


def test_other_devices_are_refused(tmp_path, devices):
    broken_off(JOBS["waits"], tmp_path / "part", 2, devices=devices)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in ("devices.toml", "online.csv"):
        (elsewhere / file).write_bytes((tmp_path / file).read_bytes())
    recorder = Recorder.resume(tmp_path / "part")
    assert recorder.devices() == devices
    assert recorder.devices(elsewhere / "devices.toml") == elsewhere / "devices.toml"
    trace = (tmp_path / "online.csv").read_text()
    devices.with_name("online.csv").write_text(trace.replace("client-0002", "client-0099"))
    with pytest.raises(Refused, match="are not those that the run"):
        recorder.devices()
    devices.unlink()
    with pytest.raises(JobError, match="cannot be read"):
        recorder.devices()


def test_a_run_without_devices_goes_on_without(tmp_path, devices):
    broken_off(job(), tmp_path / "part", 1)
    recorder = Recorder.resume(tmp_path / "part")
    assert recorder.devices() is None
    with pytest.raises(Refused, match="began without devices"):
        recorder.devices(devices)


def test_a_digest_covers_the_file_and_its_traces(devices):
    first = Origin.of(devices)
    assert first == Origin.of(str(devices))
    devices.write_text(NIGHTS + "# a remark\n")
    assert Origin.of(devices).sha256 != first.sha256


def test_the_command_writes_devices_down(tmp_path, devices):
    make_jobs(tmp_path)
    devices.write_text("[speed]\ncompute = 1.0\n")
    words = ("simulate", "toy", "--devices", "devices.toml", "--output", "out", "--json")
    said = json.loads(run(*words, cwd=tmp_path).out)
    assert said["virtual_seconds"] == sum(said["rounds_virtual_seconds"])
    assert devices_of(tmp_path / "out") == Origin.of(devices)
    assert json.loads(run("simulate", "--resume", "out", "--json", cwd=tmp_path).out) == said
