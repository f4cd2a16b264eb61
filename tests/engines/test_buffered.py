"""Buffered rounds in a simulation, against Algorithm 1 of the FedBuff paper in plain Python."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from hansa.core.contribute import Purpose, RoundTask, contribute
from hansa.core.job import Aggregation, Cohort, Privacy, Quantization, Rounds
from hansa.core.parts import Course, Dropout, Partial
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord, TrainState, run_round
from hansa.core.train import initial_state, train
from hansa.core.vector import sha256
from hansa.engines.buffered import BufferedEngine, HalfNormal
from hansa.engines.inline import InlineEngine
from hansa.errors import RoundVoid
from hansa.simulation import simulate
from tests.support.sources import Raising
from tests.support.toy import POPULATION, TOY, data, job, plan, round_task, start, world

SECONDS = dict(zip(POPULATION, (1.0137, 1.3219, 2.1411, 4.0573, 1.7033, 25.01), strict=True))
"""About how long each client takes; the last one is very slow."""


def seconds(client: str, number: int) -> float:
    """How long work takes that begins in a round; other rounds differ, so that no sums tie."""
    return SECONDS[client] + 1e-3 * math.sqrt(2 + number) * POPULATION.index(client)


@dataclass(frozen=True)
class Table:
    """Each client always takes as long; some always fail."""

    failing: frozenset[str] = frozenset()

    def over(self, task, client, at):
        return at + seconds(client, task.round), "is broken" if client in self.failing else ""


def arrival(buffer=2, concurrency=4, **more: Any) -> Cohort:
    return Cohort(population=6, sampler="arrival", buffer=buffer, concurrency=concurrency, **more)


def engine(source=data, pace=None) -> BufferedEngine:
    return BufferedEngine(InlineEngine(TOY, source), pace or Table())


def rounds_of(of: Plan, its: BufferedEngine, count: int):
    """States before each round and its record."""

    async def go() -> tuple[list[tuple[TrainState, RoundRecord]], TrainState]:
        where, state, found = world(of, its), initial_state(of, start()), []
        for _ in range(count):
            after, record = await run_round(of, state, where)
            found.append((state, record))
            state = after
        return found, state

    return asyncio.run(go())


def by_the_paper(of: Plan, cohorts, exponent: float, failing=frozenset()):
    """Members with their ages, round by round, and the last parameters, all in float64.

    Sums in any order, and no grid: equal to what is exact within float64 rounding.
    """
    words, params = of.job.cohort, [start()]
    now, found = 0.0, []
    at_work: dict[str, tuple[float, int]] = {}
    for number, cohort in enumerate(cohorts):
        buffer: list[tuple[str, int]] = []
        done: set[str] = set()
        while len(buffer) < words.buffer:
            for client in cohort:
                idle = client not in at_work and client not in done
                if idle and len(at_work) < words.concurrency:
                    at_work[client] = (now + seconds(client, number), number)
            client = min(at_work, key=lambda c: at_work[c][0])
            now, began = at_work.pop(client)
            done.add(client)
            if client not in failing:
                buffer.append((client, number - began))
        total, weight = np.zeros(len(params[0])), 0.0
        for client, age in buffer:
            old = params[number - age]
            task = RoundTask(of, number - age, 0, Purpose.TRAIN, old, sha256(old), world(of).key)
            update = contribute(task, client, TOY, data(client))
            total += update.segment("delta").astype(np.float64) * (1 + age) ** -exponent
            weight += float(update.segment("weight")[0])
        params.append((params[-1] + total / weight).astype(np.float32))
        found.append(sorted(buffer))
    return found, params[-1]


@pytest.mark.parametrize("exponent", [0.5, 0.0, 2.0])
@pytest.mark.parametrize(("buffer", "concurrency"), [(2, 4), (1, 6), (3, 2), (4, 6)])
def test_it_does_what_the_paper_says(exponent, buffer, concurrency):
    cohort = arrival(buffer, concurrency, staleness_exponent=exponent)
    of = plan(cohort=cohort, risk_tier="low")
    found, last = rounds_of(of, engine(), 12)
    records = [record for _, record in found]
    expected, params = by_the_paper(of, [record.cohort for record in records], exponent)
    assert [r.members for r in records] == [tuple(c for c, _ in members) for members in expected]
    for record, members in zip(records, expected, strict=True):
        ages = Counter(age for _, age in members)
        assert record.ages == tuple(ages[age] for age in range(max(ages) + 1))
        assert not record.void
    if (buffer, concurrency) != (3, 2):
        assert any(len(record.ages) > 1 for record in records), "the test has no power"
    np.testing.assert_allclose(last.params, params, rtol=0, atol=2e-6)


def test_whoever_fails_is_replaced_and_told():
    of, bad = plan(cohort=arrival()), frozenset({POPULATION[1]})
    found, last = rounds_of(of, engine(pace=Table(bad)), 8)
    records = [record for _, record in found]
    expected, params = by_the_paper(of, [r.cohort for r in records], 0.5, bad)
    assert [r.members for r in records] == [tuple(c for c, _ in m) for m in expected]
    np.testing.assert_allclose(last.params, params, rtol=0, atol=2e-6)
    told = [dropout for record in records for dropout in record.dropouts]
    assert {(d.client, d.reason) for d in told} == {(POPULATION[1], "is broken")}


def test_who_raises_while_it_trains_is_a_dropout_and_the_buffer_is_full_all_the_same():
    of, bad = plan(cohort=arrival()), POPULATION[0]
    found, _ = rounds_of(of, engine(Raising(bad)), 10)
    assert all(len(record.members) == 2 for _, record in found)
    dropped = [d for _, record in found for d in record.dropouts]
    assert {d.client for d in dropped} == {bad}
    assert "41.5" not in str(dropped)
    quiet, last = rounds_of(of, engine(pace=Table(frozenset({bad}))), 10)
    noisy, other = rounds_of(of, engine(Raising(bad)), 10)
    assert [r.members for _, r in quiet] == [r.members for _, r in noisy]
    assert last.model == other.model


def test_nobody_counts_twice_in_a_round_and_no_more_work_than_may():
    of = plan(cohort=arrival(3, 4))
    found, last = rounds_of(of, engine(), 30)
    for state, record in [*found, (last, None)]:
        at_work = () if state.flights is None else state.flights.flights
        assert len({f.client for f in at_work}) == len(at_work) <= 4
        if record is not None:
            assert len(set(record.members)) == 3
            assert set(record.members) <= set(record.cohort)
            kept = () if state.flights is None else state.flights.models
            assert {number for number, _ in kept} == {f.round for f in at_work}


def test_a_slow_client_does_not_hold_up_the_others():
    """It takes 25 of their seconds; virtual time of 12 rounds is that of the others."""
    of = plan(cohort=arrival(2, 6), rounds=Rounds(count=12))
    found, last = rounds_of(of, engine(), 12)
    assert last.flights is not None
    assert last.flights.now < 12 * 2.2
    members = [m for _, record in found for m in record.members]
    assert len(set(members)) >= 5


def test_an_update_that_is_too_old_does_not_count():
    of = plan(cohort=arrival(1, 6, max_staleness=3), risk_tier="low")
    found, _ = rounds_of(of, engine(), 30)
    records = [record for _, record in found]
    assert max(len(record.ages) for record in records) == 4
    reasons = {d.reason for record in records for d in record.dropouts}
    assert reasons == {"its model is 4 rounds old, more than max_staleness allows"}
    assert all(POPULATION[5] not in record.members for record in records)
    for record in records:
        assert not {d.client for d in record.dropouts} & set(record.members)


def test_a_round_without_anybody_left_is_void():
    of = plan(cohort=arrival(), rounds=Rounds(count=2, attempts=2))
    its = engine(pace=Table(frozenset(POPULATION[1:])))
    where = world(of, its)
    with pytest.raises(RoundVoid, match="at most 1 of the 2"):
        asyncio.run(train(of, initial_state(of, start()), where))
    first = where.journal.records[0]  # type: ignore[attr-defined]
    assert first.void
    assert len(first.dropouts) == 5


def test_a_measurement_waits_for_a_buffer_of_clients():
    of = plan(cohort=arrival())
    items: list[Any] = []

    async def collect() -> None:
        async for item in engine().gather(round_task(of, Purpose.EVALUATE), POPULATION[:2]):
            items.append(item)

    asyncio.run(collect())
    assert [i.members for i in items if isinstance(i, Partial)] == [POPULATION[:2]]
    assert not any(isinstance(i, (Course, Dropout)) for i in items)


# ------------------------------------------------------------------ whole runs

FEW = Rounds(count=4)
PRIVATE: dict[str, Any] = {
    "aggregation": Aggregation(weighting="uniform"),
    "privacy": Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=0.3, delta=1e-3),
}
JOBS = {
    "mean": job(rounds=FEW, cohort=arrival()),
    "one by one": job(rounds=FEW, cohort=arrival(1, 6), risk_tier="low"),
    "noise": job(rounds=FEW, cohort=arrival(), **PRIVATE),
    "ring": job(
        rounds=FEW,
        cohort=arrival(staleness_exponent=0),
        aggregation=Aggregation(weighting="uniform", clip=1.0, max_weight=50),
        quantization=Quantization(step=1e-5),
    ),
}


@pytest.mark.parametrize("name", ["mean", "noise"])
def test_where_nobody_is_late_it_is_fedavg_to_the_bit(name):
    """All begin together and a round is all of them."""
    together = replace(JOBS[name], cohort=arrival(6, 6))
    waits = replace(JOBS[name], cohort=Cohort(population=6), rounds=replace(FEW, quorum=6))
    if name == "noise":  # one replaced by another costs twice the noise of one more or less
        doubled = replace(waits.privacy, noise_multiplier=0.6)
        waits = replace(waits, privacy=doubled)
    one, two = simulate(together), simulate(waits)
    assert one.model_sha256 == two.model_sha256
    assert all(r.ages == (6,) for r in one.records if r.purpose is Purpose.TRAIN)
    assert [r.members for r in one.records] == [r.members for r in two.records]


@pytest.mark.parametrize("name", JOBS)
def test_in_workers_it_gives_the_same_bits(name):
    one, two = simulate(JOBS[name]), simulate(JOBS[name], engine="workers")
    assert one.model_sha256 == two.model_sha256
    assert [replace(r, seconds=0.0) for r in one.records] == [
        replace(r, seconds=0.0) for r in two.records
    ]
    assert any(len(record.ages) > 1 for record in one.records)
    assert one.virtual_seconds is None


def test_another_seed_gives_another_order():
    of = JOBS["mean"]
    assert simulate(of).records[0].members != simulate(of, seed=3).records[0].members
    assert simulate(of).model_sha256 == simulate(of).model_sha256


def test_the_pace_without_devices_is_half_normal():
    """Mean sqrt(2 / pi) and variance 1 - 2 / pi, within five standard errors."""
    of, key = plan(cohort=arrival()), world(plan()).key
    pace = HalfNormal(key)
    drawn = [pace.over(round_task(of, number=n), c, 10.0) for n in range(700) for c in POPULATION]
    taken = np.array([ends - 10.0 for ends, _ in drawn])
    assert {failure for _, failure in drawn} == {""}
    assert (taken >= 0).all()
    spread = 1 - 2 / np.pi
    assert abs(taken.mean() - np.sqrt(2 / np.pi)) < 5 * np.sqrt(spread / len(taken))
    assert abs(taken.var() - spread) < 0.05
