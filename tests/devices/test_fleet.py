"""What becomes of work: times by hand, chances in their binomial intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hansa.core.keys import ReplayKey
from hansa.devices import (
    Devices,
    Failures,
    LogNormal,
    Outcome,
    Recorded,
    RecordedSpeeds,
    Speed,
    Work,
)
from hansa.devices.fleet import LEFT, OFFLINE, VANISHED

KEY = ReplayKey.of_seed(9)
WORK = Work(down_bytes=1000, examples=60.0, up_bytes=500)
EXACT = RecordedSpeeds({"a": Speed(compute=20.0, download=500.0, upload=100.0)})
"""2 s to fetch, 3 s to train, 5 s to send."""
MANY = 4000


def outcomes(failures: Failures, work: Work = WORK) -> list[Outcome]:
    devices = Devices(speeds=EXACT, failures=failures)
    return [devices.outcome("a", 0.0, work, KEY, f"train/{i}/0") for i in range(MANY)]


def test_work_takes_fetching_training_and_sending():
    outcome = Devices(speeds=EXACT).outcome("a", 7.0, WORK, KEY, "n")
    assert (outcome.starts, outcome.ends, outcome.failure) == (7.0, 17.0, "")


def test_work_waits_for_its_device_and_is_lost_with_it():
    def at(moment: float):
        devices = Devices(Recorded({"a": ((20.0, 35.0),)}), EXACT)
        outcome = devices.outcome("a", moment, WORK, KEY, "n")
        return outcome.starts, outcome.ends, outcome.failure

    assert at(0.0) == (20.0, 30.0, "")
    assert at(25.0) == (25.0, 35.0, "")
    assert at(25.1) == (25.1, 35.0, LEFT)
    assert at(35.0) == (math.inf, math.inf, OFFLINE)


def share(found: list[bool]) -> float:
    return sum(map(bool, found)) / len(found)


def near(value: float, chance: float) -> bool:
    return abs(value - chance) < 5 * math.sqrt(chance * (1 - chance) / MANY)


def test_devices_vanish_as_often_as_they_should_and_in_the_middle():
    found = outcomes(Failures(probability=0.2))
    gone = [o for o in found if o.failure == VANISHED]
    assert near(len(gone) / MANY, 0.2)
    early = share([o.ends < 5.0 for o in gone])
    assert abs(early - 0.5) < 5 * math.sqrt(0.25 / len(gone))
    assert all(0 <= o.ends < 10 for o in gone)


def test_long_work_is_lost_more_often():
    hazard = Failures(per_hour=60.0)  # once a minute of work
    assert near(share([bool(o.failure) for o in outcomes(hazard)]), 1 - math.exp(-10 / 60))
    long = Work(down_bytes=1000, examples=660.0, up_bytes=500)
    assert near(share([bool(o.failure) for o in outcomes(hazard, long)]), 1 - math.exp(-40 / 60))


def test_stragglers_are_so_many_and_so_slow():
    found = outcomes(Failures(stragglers=0.1, slowdown=4.0))
    assert {o.ends for o in found} == {10.0, 40.0}
    assert near(share([o.ends == 40.0 for o in found]), 0.1)


def test_speeds_are_log_normal_and_a_device_keeps_its_own():
    speeds = LogNormal(compute=50.0, compute_spread=0.8, network_spread=0.3)
    found = [speeds.of("x", KEY.derive("device", i)) for i in range(MANY)]
    logs = np.log([s.compute for s in found])
    assert logs.mean() == pytest.approx(math.log(50.0), abs=5 * 0.8 / math.sqrt(MANY))
    assert logs.std() == pytest.approx(0.8, rel=0.06)
    network = np.log([s.upload for s in found])
    assert network.mean() == pytest.approx(math.log(600_000.0), abs=5 * 0.3 / math.sqrt(MANY))
    assert network.std() == pytest.approx(0.3, rel=0.06)
    assert abs(np.corrcoef(logs, network)[0, 1]) < 5 / math.sqrt(MANY)
    assert all(s.download / s.upload == pytest.approx(2.5 / 0.6) for s in found)
    devices = Devices(speeds=speeds)
    twice = {devices.outcome("a", 0.0, WORK, KEY, name).ends for name in ("train/0/0", "train/1/0")}
    assert len(twice) == 1
    assert devices.outcome("b", 0.0, WORK, KEY, "train/0/0").ends not in twice


def test_who_was_not_measured_has_a_measured_speed():
    speeds = RecordedSpeeds({"a": Speed(1.0, 1.0, 1.0), "b": Speed(2.0, 2.0, 2.0)})
    found = [speeds.of("else", KEY.derive(i)).compute for i in range(200)]
    assert set(found) == {1.0, 2.0}
    assert 60 < found.count(1.0) < 140
    assert speeds.of("b", KEY).compute == 2.0
