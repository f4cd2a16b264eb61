"""Rounds on a virtual clock: who is in time, when a round ends, and the same bits all the while."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace

import pytest

from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Cohort, Privacy, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Course, Dropout, Partial
from hansa.core.round import RoundRecord, run_round
from hansa.core.train import initial_state, train
from hansa.devices import Daily, Devices, Failures, LogNormal, Recorded, RecordedSpeeds, Speed
from hansa.engines.inline import InlineEngine
from hansa.engines.timed import Predictor, TimedEngine
from hansa.errors import RoundVoid
from hansa.simulation import simulate
from tests.support.sources import Empty, Raising
from tests.support.toy import POPULATION, TOY, data, gathered, job, plan, round_task, world

FAST = 1e15
KEY = ReplayKey.of_seed(0)
SECONDS = dict(zip(POPULATION, (5.0, 1.0, 9.0, 3.0, 7.0, 2.0), strict=True))
"""How long each client takes in these tests."""


def by_hand(client: str, source=data) -> float:
    """Two passes over the examples, and a third of a pass over the six that are held out."""
    return 2 * len(source(client).train) + 6 / 3


def devices(seconds=SECONDS, **more) -> Devices:
    speeds = {c: Speed(by_hand(c) / t, FAST, FAST) for c, t in seconds.items()}
    return Devices(speeds=RecordedSpeeds(speeds), **more)


@dataclass
class Watched:
    """An engine that remembers whom it was asked to train."""

    inner: InlineEngine
    asked: list[tuple[str, ...]] = field(default_factory=list)
    real: bool = False

    async def gather(self, task, cohort):
        self.asked.append(tuple(cohort))
        async for item in self.inner.gather(task, cohort):
            yield item


def timed(of: Devices, source=data) -> tuple[TimedEngine, Watched]:
    watched = Watched(InlineEngine(TOY, source))
    return TimedEngine(watched, Predictor(TOY, source, KEY, of)), watched


def course(engine: TimedEngine, of, cohort=POPULATION, purpose=Purpose.TRAIN):
    """All that a round yields: members, reasons by client, seconds."""

    async def collect() -> tuple[list[str], dict[str, str], float]:
        members: list[str] = []
        reasons: dict[str, str] = {}
        seconds = math.nan
        async for item in engine.gather(round_task(of, purpose), cohort):
            if isinstance(item, Partial):
                members += item.members
            elif isinstance(item, Dropout):
                assert item.client not in reasons
                reasons[item.client] = item.reason
            else:
                assert isinstance(item, Course)
                assert item.seconds is not None
                seconds = item.seconds
        assert sorted([*members, *reasons]) == sorted(cohort)
        return sorted(members), reasons, seconds

    return asyncio.run(collect())


def fixed(size: int, over: float, **rounds):
    return plan(
        cohort=Cohort(population=6, sampler="fixed", size=size, over_selection=over),
        rounds=Rounds(count=3, quorum=2, **rounds),
    )


def test_a_round_lasts_until_the_last_update():
    engine, watched = timed(devices())
    members, reasons, seconds = course(engine, plan())
    assert (members, reasons) == (sorted(POPULATION), {})
    assert seconds == pytest.approx(9.0)
    assert watched.asked == [POPULATION]


def test_the_sum_is_that_of_the_engine_inside():
    engine, _ = timed(devices())
    one, _ = gathered(engine, round_task(plan()), POPULATION)
    two, _ = gathered(InlineEngine(TOY, data), round_task(plan()), POPULATION)
    assert one[0].value.tobytes() == two[0].value.tobytes()


def test_over_selection_counts_the_fastest_and_trains_nobody_else():
    """Three of six are enough: 1, 2 and 3 seconds."""
    engine, watched = timed(devices())
    members, reasons, seconds = course(engine, fixed(3, 2.0))
    fastest = ("client-0002", "client-0004", "client-0006")
    assert tuple(members) == fastest
    assert watched.asked == [fastest]
    assert seconds == pytest.approx(3.0)
    assert set(reasons.values()) == {"was not needed: enough others were faster"}


def test_who_fails_while_it_trains_is_replaced_by_the_next():
    """The 2-second client raises, so that the one with 5 seconds counts."""
    engine, watched = timed(devices(), Raising("client-0006"))
    members, reasons, seconds = course(engine, fixed(3, 2.0))
    assert tuple(members) == ("client-0001", "client-0002", "client-0004")
    assert watched.asked[1] == ("client-0001",)
    assert seconds == pytest.approx(5.0)
    assert "not needed" not in reasons["client-0006"]


def test_the_deadline_ends_a_round_for_who_is_slower():
    engine, _ = timed(devices())
    members, reasons, seconds = course(engine, plan(rounds=Rounds(count=3, deadline=6.0)))
    assert "client-0003" not in members
    assert "client-0005" not in members
    assert len(members) == 4
    assert set(reasons.values()) == {"sent no update within 6 s"}
    assert seconds == 6.0


def test_silence_is_waited_for_until_the_deadline_or_the_goal():
    gone = devices(failures=Failures(probability=1.0))
    members, reasons, seconds = course(timed(gone)[0], plan(rounds=Rounds(count=1, deadline=50.0)))
    assert (members, seconds) == ([], 50.0)
    assert set(reasons.values()) == {"vanished in the middle of its work"}
    spans = dict.fromkeys(POPULATION, ((0.0, 1e9),)) | {
        "client-0002": ((40.0, 1e9),),  # comes, and has a second to do
        "client-0003": ((0.0, 8.9),),  # leaves before its work is done
        "client-0005": ((60.0, 1e9),),
    }
    waiting = devices(availability=Recorded(spans))
    members, reasons, seconds = course(
        timed(waiting)[0], plan(rounds=Rounds(count=1, deadline=50.0))
    )
    assert "client-0002" in members
    assert reasons == {
        "client-0003": "went offline in the middle of its work",
        "client-0005": "was offline",
    }
    assert seconds == 50.0
    members, reasons, seconds = course(timed(waiting)[0], fixed(2, 3.0, deadline=50.0))
    assert (tuple(members), seconds) == (("client-0004", "client-0006"), pytest.approx(3.0))
    assert reasons["client-0005"] == "was offline"
    assert reasons["client-0003"] == "was not needed: enough others were faster"


def test_clients_without_examples_and_with_broken_data_take_no_time_to_compute():
    for source in (Empty("client-0003"), Raising("client-0003")):
        _, _, seconds = course(timed(devices(), source)[0], plan())
        assert 7.0 - 1e-9 <= seconds < 7.1


def test_a_measurement_is_shorter_and_nobody_drawn_takes_no_time():
    engine, _ = timed(devices())
    _, _, seconds = course(engine, plan(), purpose=Purpose.EVALUATE)
    share = max(SECONDS[c] * 2 / by_hand(c) for c in POPULATION)
    assert seconds == pytest.approx(share)
    assert course(engine, plan(), ()) == ([], {}, 0.0)


def test_the_network_counts_in():
    """Twenty bytes of parameters down; five numbers, a weight and the metric sums up."""
    of = plan()
    slow = Devices(speeds=RecordedSpeeds({"a": Speed(FAST, 2.0, 4.0)}))
    _, _, seconds = course(timed(slow)[0], of)
    assert seconds == pytest.approx(20 / 2 + 4 * of.layout.size / 4)


def model_of(engine, of, on_round=None) -> str:
    state = asyncio.run(train(of, initial_state(of, TOY.initial(0)), world(of, engine), on_round))
    return state.model


def test_the_clock_goes_on_from_round_to_round():
    """It is in the state, so that an engine that is made anew goes on at the same time."""
    of = plan(rounds=Rounds(count=3, deadline=20.0, quorum=5))
    online = {client: ((0.0, 9.5 if client == POPULATION[2] else 999.0),) for client in POPULATION}
    state, times = initial_state(of, TOY.initial(0)), []
    for left_out in ([], [POPULATION[2]]):
        engine, _ = timed(devices(availability=Recorded(online, 0.0)))
        state, record = asyncio.run(run_round(of, state, world(of, engine)))
        assert [dropout.client for dropout in record.dropouts] == left_out
        assert state.flights is not None
        times.append(state.flights.now)
    assert times == [pytest.approx(9.0), pytest.approx(29.0)]


def test_a_void_round_costs_its_deadline_and_devices_are_luckier_the_next_time():
    of = plan(rounds=Rounds(count=2, deadline=20.0, quorum=4, attempts=8))
    engine, _ = timed(devices(failures=Failures(probability=0.4)))
    assert model_of(engine, of) == model_of(
        timed(devices(failures=Failures(probability=0.4)))[0], of
    )
    hopeless = plan(rounds=Rounds(count=2, deadline=20.0, attempts=3))
    engine, _ = timed(devices(failures=Failures(probability=1.0)))
    records: list[RoundRecord] = []
    with pytest.raises(RoundVoid, match="void 3 times"):
        model_of(engine, hopeless, records.append)
    assert [record.virtual_seconds for record in records] == [20.0] * 3


# ------------------------------------------------------------------ whole simulations

NIGHTS = Devices(
    Daily(22.0, 8.0, (-6.0, 0.0, 6.0, 12.0), 1.0),
    LogNormal(compute=0.01),
    Failures(0.1, 0.1, 0.1, 5.0),
)
JOB = job(
    cohort=Cohort(population=60, sampler="fixed", size=4, over_selection=6.0),
    rounds=Rounds(count=6, deadline=7200.0, quorum=2),
)


def test_a_simulation_says_what_it_would_take_and_repeats():
    one, two = simulate(JOB, devices=NIGHTS), simulate(JOB, devices=NIGHTS)
    assert one.model_sha256 == two.model_sha256
    times = [r.virtual_seconds for r in one.records]
    assert times == [r.virtual_seconds for r in two.records]
    assert one.virtual_seconds == sum(t for t in times if t)
    assert all(600 < t <= 7200 for t in times[:-1] if t)
    assert one.records[-1].purpose is Purpose.EVALUATE
    assert one.virtual_seconds > 3600 > 100 * sum(r.seconds for r in one.records)
    assert simulate(replace(JOB, seed=3), devices=NIGHTS).virtual_seconds != one.virtual_seconds


def test_other_engines_give_the_same():
    inline, workers = (simulate(JOB, devices=NIGHTS, engine=e) for e in ("inline", "workers"))
    assert workers.model_sha256 == inline.model_sha256
    assert [(r.members, r.dropouts, r.virtual_seconds) for r in workers.records] == [
        (r.members, r.dropouts, r.virtual_seconds) for r in inline.records
    ]


def test_devices_that_are_always_there_change_nothing_but_the_clock():
    jobs = {
        "plain": job(),
        "private": job(
            aggregation=Aggregation(weighting="uniform"),
            privacy=Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=0.4, delta=1e-3),
        ),
    }
    for of in jobs.values():
        without, on = simulate(of), simulate(of, devices=Devices())
        assert (without.virtual_seconds, without.records[0].virtual_seconds) == (None, None)
        assert on.virtual_seconds is not None
        assert on.model_sha256 == without.model_sha256
        assert on.plan.digest == without.plan.digest


def test_a_plan_does_not_follow_from_devices():
    assert simulate(JOB, devices=NIGHTS).plan.digest == simulate(JOB).plan.digest
