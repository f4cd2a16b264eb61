"""Robust rules and standing in buffered rounds of a simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hansa.aggregators import robust
from hansa.attacks.catalogue import attack_named
from hansa.attacks.engine import AttackedEngine
from hansa.core.contribute import Purpose, RoundTask, contribute
from hansa.core.job import Aggregation, Cohort, Defend, Rounds
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord, TrainState, run_round
from hansa.core.train import initial_state
from hansa.core.vector import sha256
from hansa.defend import Standing, Standings, State
from hansa.defend.judge import Judged
from hansa.defend.text import judged_of, judged_words
from hansa.engines.buffered import BufferedEngine
from hansa.engines.inline import InlineEngine
from hansa.simulation import simulate
from tests.support.toy import TOY, data, job, plan, run, start, world

NAMES = tuple(f"c{i:02d}" for i in range(14))
BAD = frozenset(NAMES[:2])


@dataclass(frozen=True)
class Speeds:
    """The first clients are quick, the last ones take many rounds; no two are done at one time."""

    def over(self, task, client, at):
        place = NAMES.index(client)
        return at + 1.5 ** (place / 2) + 1e-3 * math.sqrt(2 + task.round) * place, ""


def arrival(buffer=6, concurrency=14, **more: Any) -> Cohort:
    words = {"buffer": buffer, "concurrency": concurrency, **more}
    return Cohort(population=14, sampler="arrival", **words)


def robustly(rule: Any, standing: bool = False, **more: Any) -> Plan:
    words: dict[str, Any] = {
        "cohort": arrival(),
        "rounds": Rounds(count=20),
        "aggregation": Aggregation(rule=rule, bad=0.2, clip=1.0, weighting="uniform"),
        "defend": Defend(standing=standing),
    }
    return plan(**{**words, **more})


def rounds_of(
    of: Plan, count: int, inner: Any = None, state: TrainState | None = None
) -> list[tuple[TrainState, RoundRecord]]:
    """States before each round and its record; the state after the last, with that one's record."""

    async def go() -> list[tuple[TrainState, RoundRecord]]:
        its = BufferedEngine(inner or InlineEngine(TOY, data), Speeds())
        where, found = world(of, its, population=NAMES), []
        before = state or initial_state(of, start())
        for _ in range(count):
            after, record = await run_round(of, before, where)
            found.append((before, record))
            before = after
        return [*found, (before, found[-1][1])]

    done: list[tuple[TrainState, RoundRecord]] = run(go())
    return done


BY_HAND: dict[str, Callable[[Any], Any]] = {
    "median": lambda rows: np.median(rows, axis=0),
    "geometric_median": lambda rows: robust.geometric_median(rows.astype(np.float32)),
    "krum": lambda rows: robust.krum(rows.astype(np.float32), 1),
}


@pytest.mark.parametrize("exponent", [0.5, 0.0, 2.0])
@pytest.mark.parametrize("rule", BY_HAND)
def test_the_rule_is_of_deltas_times_their_weights(rule, exponent):
    """Computed once more in float64, from what each client sends and the model it began with."""
    of = robustly(rule, cohort=arrival(staleness_exponent=exponent))
    found = rounds_of(of, 12)
    begun: dict[str, int] = {}
    params, oldest = [state.params for state, _ in found], 0
    for number, (state, record) in enumerate(found[:-1]):
        flights = () if state.flights is None else state.flights.flights
        begun = {flight.client: flight.round for flight in flights}
        rows = []
        for client in record.members:
            began = begun.get(client, number)
            oldest = max(oldest, number - began)
            old = params[began]
            task = RoundTask(of, began, 0, Purpose.TRAIN, old, sha256(old), world(of).key)
            update = contribute(task, client, TOY, data(client))
            delta = update.segment("delta").astype(np.float64) / update.segment("weight")[0]
            rows.append(delta * (1 + number - began) ** -exponent)
        expected = params[number] + BY_HAND[rule](np.array(rows))
        np.testing.assert_allclose(params[number + 1], expected, rtol=0, atol=2e-5)
    assert oldest >= 3, "the test has no power"


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "multi_krum", "geometric_median"])
@pytest.mark.parametrize("standing", [False, True])
def test_where_nobody_is_late_it_is_the_round_that_waits_to_the_bit(rule, standing):
    words: dict[str, Any] = {
        "rounds": Rounds(count=4, quorum=6),
        "aggregation": Aggregation(rule=rule, bad=0.2, trim=0.2, clip=1.0, weighting="uniform"),
        "defend": Defend(standing=standing),
    }
    together = Cohort(population=6, sampler="arrival", buffer=6, concurrency=6)
    one = simulate(job(**words, cohort=together))
    two = simulate(job(**words, cohort=Cohort(population=6)))
    assert one.model_sha256 == two.model_sha256
    assert [r.members for r in one.records] == [r.members for r in two.records]
    assert one.state.standing == two.state.standing


ASYNC = job(
    rounds=Rounds(count=6),
    cohort=Cohort(population=14, sampler="arrival", buffer=6, concurrency=14),
    aggregation=Aggregation(rule="geometric_median", clip=1.0, weighting="uniform"),
    defend=Defend(standing=True),
)


@pytest.mark.parametrize("rule", ["geometric_median", "bulyan"])
def test_in_workers_it_gives_the_same_bits(rule):
    of = replace(ASYNC, aggregation=replace(ASYNC.aggregation, rule=rule, bad=0.17))
    of = replace(of, cohort=replace(of.cohort, buffer=9))
    one, two = simulate(of), simulate(of, engine="workers")
    assert one.model_sha256 == two.model_sha256
    assert one.state.standing == two.state.standing
    assert any(len(record.ages) > 1 for record in one.records)


def test_scores_tell_how_old_updates_are_and_hold_it_against_nobody():
    found = rounds_of(robustly("geometric_median", standing=True), 12)
    ages = 0
    for (state, record), (after, _) in pairwise(found):
        flights = () if state.flights is None else state.flights.flights
        expected = {f.client: state.round - f.round for f in flights if f.client in record.members}
        told = {c: s.staleness.value for c, s in after.standing.scores.items()}
        assert told == {client: expected.get(client, 0) for client in record.members}
        assert all(s.staleness.z == 0 for s in after.standing.scores.values())
        ages += sum(value > 0 for value in told.values())
    assert ages > 10, "the test has no power"


def attacked(of: Plan, count: int, state: TrainState | None = None):
    inner = AttackedEngine(
        InlineEngine(TOY, data), attack_named("sign_flip_5"), BAD, omniscient=False
    )
    return rounds_of(of, count, inner, state)


def test_who_is_quarantined_is_not_asked_any_more():
    of = robustly("geometric_median", standing=True)
    found = attacked(of, 20)
    last = found[-1][0]
    assert last.standing.standings.quarantined == BAD
    since = {c.client: c.round for c in last.standing.changes if c.after is State.QUARANTINED}
    for _, record in found[:-1]:
        gone = {client for client, number in since.items() if number < record.round}
        assert not gone & {*record.cohort, *record.members, *(d.client for d in record.dropouts)}
    assert not BAD & {flight.client for flight in last.flights.flights}


def test_what_was_begun_before_a_quarantine_does_not_count_and_no_record_names_it():
    """As after a release that makes a round of the others possible again."""
    of = robustly("geometric_median", standing=True)
    state = rounds_of(of, 4)[-1][0]
    assert state.flights is not None
    gone = {flight.client for flight in state.flights.flights[:3]}
    assert len(gone) == 3
    most = state.standing.standings.most
    held = Judged(Standings(most, dict.fromkeys(gone, Standing(State.QUARANTINED))))
    found = rounds_of(of, 6, state=replace(state, standing=held))
    for (_, told), (after, _) in pairwise(found):
        assert not gone & {*told.cohort, *told.members, *(d.client for d in told.dropouts)}
        at_work = () if after.flights is None else after.flights.flights
        assert not gone & {flight.client for flight in at_work}
        assert len(told.members) == 6


@pytest.mark.parametrize("after", [1, 5, 8])
def test_a_state_that_was_written_down_goes_on_with_the_same_standing(after):
    of = robustly("geometric_median", standing=True)
    whole = attacked(of, 12)[-1][0]
    part = attacked(of, after)[-1][0]
    standing = judged_of(judged_words(part.standing))
    rest = attacked(of, 12 - after, replace(part, standing=standing))[-1][0]
    assert rest.model == whole.model
    assert rest.standing == whole.standing
    assert rest.flights.flights == whole.flights.flights
