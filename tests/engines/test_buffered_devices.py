"""Buffered rounds on devices: virtual time, deadlines, and what slow clients cost."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from bench.asynchronous import DEVICES
from bench.asynchronous import main as bench
from bench.asynchronous import run as reached
from hansa.core.contribute import Purpose
from hansa.core.job import Cohort, Rounds
from hansa.core.keys import ReplayKey
from hansa.devices import Daily, Devices, Failures, Recorded, RecordedSpeeds, Speed
from hansa.engines.buffered import OnDevices
from hansa.engines.timed import Predictor
from hansa.simulation import simulate
from tests.support.toy import POPULATION, TOY, data, job, plan, round_task

FAST = 1e15
SECONDS = dict(zip(POPULATION, (1.0, 1.3, 2.1, 4.0, 1.7, 500.0), strict=True))
ARRIVAL = Cohort(population=6, sampler="arrival", buffer=3, concurrency=6)
ROUNDS = Rounds(count=8, deadline=60.0)


def devices(**more) -> Devices:
    """Two passes over the examples, and a third of a pass over the six that are held out."""
    work = {c: 2 * len(data(c).train) + 6 / 3 for c in POPULATION}
    speeds = {c: Speed(work[c] / t, FAST, FAST) for c, t in SECONDS.items()}
    return Devices(speeds=RecordedSpeeds(speeds), **more)


def pace(of: Devices) -> OnDevices:
    return OnDevices(Predictor(TOY, data, ReplayKey.of_seed(0), of))


def test_how_long_clients_take_and_what_stops_them():
    task = round_task(plan(rounds=ROUNDS, cohort=ARRIVAL))
    over = pace(devices()).over
    ends, failure = over(task, POPULATION[2], 10.0)
    assert ends == pytest.approx(12.1)
    assert not failure
    assert over(task, POPULATION[5], 10.0) == (70.0, "sent no update within 60 s")
    gone = pace(devices(failures=Failures(probability=1.0))).over
    assert gone(task, POPULATION[2], 10.0) == (70.0, "vanished in the middle of its work")
    never = pace(devices(availability=Recorded({POPULATION[2]: ((0.0, 1.0),)}))).over
    assert never(task, POPULATION[2], 10.0) == (70.0, "was offline")


def test_rounds_take_as_long_as_the_updates_that_they_count():
    result = simulate(job(rounds=ROUNDS, cohort=ARRIVAL), devices=devices())
    trained = [r for r in result.records if r.purpose is Purpose.TRAIN]
    assert trained[0].virtual_seconds == pytest.approx(1.7)
    assert all(r.virtual_seconds is not None for r in trained)
    assert all(POPULATION[5] not in record.members for record in trained)
    waits = simulate(job(rounds=ROUNDS), devices=devices())
    assert waits.records[0].virtual_seconds == 60.0
    assert sum(r.virtual_seconds or 0 for r in trained) < 8 * 4.1


def test_whoever_is_too_slow_is_told_once_its_time_is_over():
    long = replace(ROUNDS, count=60)
    result = simulate(job(rounds=long, cohort=ARRIVAL), devices=devices())
    told = [d for record in result.records for d in record.dropouts]
    assert {(d.client, d.reason) for d in told} == {
        (POPULATION[5], "sent no update within 60 s"),
    }
    seconds = 0.0
    for record in result.records:
        seconds += record.virtual_seconds or 0.0
        if record.dropouts:
            break
    assert 60 <= seconds < 60 + 4.1


def test_on_devices_too_all_engines_give_the_same_bits():
    of, where = job(rounds=ROUNDS, cohort=ARRIVAL), devices(failures=Failures(0.2, stragglers=0.3))
    one, two = simulate(of, devices=where), simulate(of, devices=where, engine="workers")
    assert [replace(r, seconds=0.0) for r in one.records] == [
        replace(r, seconds=0.0) for r in two.records
    ]
    assert one.virtual_seconds is not None
    assert math.isfinite(one.virtual_seconds)


def test_the_last_measurement_waits_where_the_clock_stands():
    """Everybody is online for an hour a day; measuring begins when training has ended."""
    of = job(rounds=replace(ROUNDS, count=2, deadline=90_000.0), cohort=ARRIVAL)
    result = simulate(of, devices=devices(availability=Daily(begins=6.0, hours=1.0)))
    assert result.records[-1].purpose is Purpose.EVALUATE
    assert result.virtual_seconds is not None
    assert result.virtual_seconds == pytest.approx(
        sum(r.virtual_seconds or 0.0 for r in result.records)
    )
    assert result.virtual_seconds > 6 * 3600
    assert (result.records[-1].virtual_seconds or math.inf) < 3600, "as if it began at midnight"


def test_it_is_sooner_than_over_selection_where_some_are_slow_and_not_where_all_are_alike():
    """The benchmark with one seed: on such devices more than a tenth, else no gain is promised."""
    slow, alike = DEVICES["stragglers"], DEVICES["alike"]
    hours = {name: reached(name, slow, 0, 400)["hours"] for name in ("over_selects", "arrival")}
    assert hours["arrival"] < 0.9 * hours["over_selects"]
    assert reached("arrival", alike, 0, 400)["updates"] > 500


def test_the_benchmark_says_what_it_measured(capsys):
    bench(["--quick", "--json"])
    said = json.loads(capsys.readouterr().out)
    rows = said["stragglers"]
    assert set(rows) == {"waits", "over_selects", "arrival"}
    assert rows["arrival"]["age"] > 0 == rows["waits"]["age"]
    ratio = rows["over_selects"]["hours"] / rows["arrival"]["hours"]
    assert rows["arrival"]["sooner_than_over_selects"] == pytest.approx(ratio)
