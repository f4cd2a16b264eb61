"""The round loop: order of events, and that every part that is handed in is called."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hansa.core.contribute import Fold, Purpose, contribute
from hansa.core.events import NonPrivate
from hansa.core.job import Aggregation, Cohort, Privacy, Rounds
from hansa.core.keys import NoiseSource, ReplayKey
from hansa.core.parts import Algorithm, Partial
from hansa.core.round import Charge, Opening, TrainState, run_round
from hansa.core.train import initial_state
from hansa.core.vector import sha256
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import BudgetExceeded, HansaError
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.privacy.ledger import MemoryLedger
from tests.support.odd import Always42, PlusOne, Silent, Times, Unreachable
from tests.support.toy import (
    POPULATION,
    TOY,
    data,
    job,
    plan,
    round_task,
    run,
    start,
    with_parts,
    world,
)

PLAN = plan()
PRIVATE = plan(
    privacy=Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=2.0, delta=1e-5),
    aggregation=Aggregation(weighting="uniform"),
)
MEASURED = plan(
    privacy=Privacy(
        mechanism="gaussian",
        clip=1.0,
        noise_multiplier=2.0,
        delta=1e-5,
        metrics_clip=30.0,
        metrics_noise_multiplier=1.0,
    ),
    aggregation=Aggregation(weighting="uniform"),
)


def first(of=PLAN) -> TrainState:
    return initial_state(of, start())


def mean_of_deltas(of, clients=POPULATION) -> np.ndarray:
    """The oracle: the weighted mean in float64, from what the clients computed."""
    deltas, weights = [], []
    for client in clients:
        update = contribute(round_task(of), client, TOY, data(client))
        deltas.append(update.segment("delta").astype(np.float64))
        weights.append(float(update.segment("weight")[0]))
    mean: np.ndarray = np.sum(deltas, axis=0) / sum(weights)
    return mean


def test_a_round_moves_the_model_by_the_weighted_mean():
    state, record = run(run_round(PLAN, first(), world(PLAN)))
    expected = start() + mean_of_deltas(PLAN)
    assert state.params == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert (state.round, state.attempt) == (1, 0)
    assert state.model == record.model == sha256(state.params)
    assert not state.params.flags.writeable
    assert record.cohort == record.members == POPULATION
    assert record.dropouts == ()
    assert not record.void
    assert record.seconds > 0


def test_the_metrics_describe_the_model_that_the_round_started_from():
    _, record = run(run_round(PLAN, first(), world(PLAN)))
    outputs = [TOY.predict(start(), data(c).test) for c in POPULATION]
    losses = np.concatenate([o.losses for o in outputs])
    assert record.metrics["loss"] == pytest.approx(float(losses.mean()), rel=1e-6)
    assert set(record.metrics) == {"train_loss", "loss", "accuracy", "auroc"}


def test_a_private_mean_is_divided_by_a_constant():
    """Half of the clients answer: the step is half as long, whatever the noise."""

    def step(engine) -> np.ndarray:
        moved, _ = run(run_round(quiet, first(quiet), world(quiet, engine)))
        return np.asarray(moved.params - start())

    quiet = with_parts(
        replace(PRIVATE, quorum=1),
        mechanism=CentralGaussian(1e-9),
    )
    all_of_them = step(InlineEngine(TOY, data))

    def half(client):
        if client in POPULATION[3:]:
            raise RuntimeError("away")
        return data(client)

    some = step(InlineEngine(TOY, half))
    assert all_of_them == pytest.approx(mean_of_deltas(PRIVATE), rel=1e-5, abs=1e-6)
    expected = mean_of_deltas(PRIVATE, POPULATION[:3]) / 2
    assert some == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_stages_decode_in_reverse_before_the_mechanism():
    """(sum * 2) + 1: the last stage decodes first; then the one gate, then the optimizer."""
    seen = []

    class Gate(type(PLAN.parts.mechanism)):  # type: ignore[misc]
        def apply(self, total, spec, noise):
            seen.append((spec.segment, total.copy()))
            return total

    odd = with_parts(
        PLAN, stages=(*PLAN.parts.stages, PlusOne(), Times(factor=2.0)), mechanism=Gate()
    )
    run(run_round(odd, first(), world(odd)))
    fold = Fold.of(round_task(PLAN))
    partial = fold.zero()
    for client in POPULATION:
        partial = fold.add(partial, client, contribute(round_task(PLAN), client, TOY, data(client)))
    plain = fold.aggregator.finish(partial, fold.layout, fold.facts)
    assert [name for name, _ in seen] == ["delta", "weight", "metrics"]
    for name, total in seen:
        assert (total == fold.layout.slice(plain, name) * 2 + 1).all()


def test_the_server_optimizer_is_called_with_its_own_state():
    algorithm = Algorithm("odd", PLAN.parts.algorithm.work, Always42())
    odd = with_parts(PLAN, algorithm=algorithm)
    state, _ = run(run_round(odd, initial_state(odd, start()), world(odd)))
    state, _ = run(run_round(odd, state, world(odd)))
    assert (state.params == 42).all()
    assert state.server[0].tolist() == [2]


def test_what_is_not_released_is_discarded():
    class Shut(type(PLAN.parts.mechanism)):  # type: ignore[misc]
        def releases(self, spec):
            return spec.segment != "metrics"

    odd = with_parts(PLAN, mechanism=Shut())
    _, record = run(run_round(odd, first(), world(odd)))
    assert record.metrics == {}


def test_the_charge_comes_before_anybody_is_contacted():
    broke = world(PRIVATE, Unreachable(), ledger=MemoryLedger(0))
    with pytest.raises(BudgetExceeded):
        run(run_round(PRIVATE, first(PRIVATE), broke))


def test_the_charge_is_committed_before_anything_is_released():
    ledger = MemoryLedger(5)
    charge = Charge("toy", 0, 0, Purpose.TRAIN, PRIVATE.round_event)

    class Late(type(PRIVATE.parts.mechanism)):  # type: ignore[misc]
        def apply(self, total, spec, noise):
            assert ledger.committed(charge)
            return super().apply(total, spec, noise)

    mechanism = PRIVATE.parts.mechanism
    late = with_parts(
        PRIVATE,
        mechanism=Late(mechanism.noise_multiplier, 0.0, mechanism.relation),  # type: ignore[attr-defined]
    )
    run(run_round(late, first(late), world(late, ledger=ledger)))
    assert ledger.charges == (charge,)


def test_a_void_round_leaves_the_model_and_spends_the_charge():
    ledger, engine = MemoryLedger(5), Silent([])
    state, record = run(run_round(PRIVATE, first(PRIVATE), world(PRIVATE, engine, ledger=ledger)))
    assert record.void
    assert record.members == ()
    assert {d.client for d in record.dropouts} == set(POPULATION)
    assert record.model == state.model == sha256(start())
    assert (state.round, state.attempt) == (0, 1)
    assert record.metrics == {}
    assert ledger.spent == 1


@pytest.mark.parametrize(("answers", "void"), [(4, False), (3, True)])
def test_the_quorum_is_the_fewest_that_count(answers, void):
    def some(client):
        if client in POPULATION[answers:]:
            raise RuntimeError("away")
        return data(client)

    _, record = run(run_round(PLAN, first(), world(PLAN, InlineEngine(TOY, some))))
    assert PLAN.quorum == 4
    assert record.void is void
    assert len(record.members) == answers


def test_a_second_try_draws_another_cohort_and_is_another_charge():
    sampled = plan(cohort=Cohort(population=6, sampler="fixed", size=3), risk_tier="low")
    engine, ledger = Silent([]), MemoryLedger(0)
    state = first(sampled)
    for _ in range(4):
        state, _ = run(run_round(sampled, state, world(sampled, engine, ledger=ledger)))
    assert state.attempt == 4
    assert len(set(engine.asked)) > 1
    assert [c.attempt for c in ledger.charges] == [0, 1, 2, 3]


def test_a_reopened_round_goes_on_with_its_first_cohort():
    journal, engine = MemoryJournal(), Silent([])
    opened = Opening(Purpose.TRAIN, 0, 0, POPULATION[:2], sha256(start()))
    run(journal.open(opened))
    _, record = run(run_round(PLAN, first(), world(PLAN, engine, journal=journal)))
    assert engine.asked == [POPULATION[:2]]
    assert record.cohort == POPULATION[:2]


def test_the_journal_is_told_the_state_that_the_next_round_starts_from():
    journal = MemoryJournal()
    state, record = run(run_round(PLAN, first(), world(PLAN, journal=journal)))
    assert journal.state is state
    assert journal.records == [record]


def test_partials_are_merged_as_they_come():
    @dataclass(frozen=True)
    class Single:
        real: bool = False

        async def gather(self, task, cohort):
            fold = Fold.of(task)
            for client in reversed(cohort):
                update = contribute(task, client, TOY, data(client))
                yield fold.add(fold.zero(), client, update)

    one, _ = run(run_round(PLAN, first(), world(PLAN)))
    other, record = run(run_round(PLAN, first(), world(PLAN, Single())))
    assert one.model == other.model
    assert record.members == POPULATION, "members are recorded in order"


def test_an_engine_that_yields_nothing_makes_a_void_round():
    @dataclass(frozen=True)
    class Empty:
        real: bool = False

        async def gather(self, task, cohort):
            for _ in ():
                yield Partial(None, ())

    _, record = run(run_round(PLAN, first(), world(PLAN, Empty())))
    assert record.void


def test_a_real_federation_refuses_noise_that_can_be_replayed():
    real = replace(Silent([]), real=True)
    with pytest.raises(HansaError, match="can be replayed"):
        run(run_round(PRIVATE, first(PRIVATE), world(PRIVATE, real)))
    assert real.asked == []
    run(run_round(PRIVATE, first(PRIVATE), world(PRIVATE, real, noise=NoiseSource())))
    run(run_round(PLAN, first(), world(PLAN, real)))  # nothing to protect


def test_replayed_noise_differs_by_round_segment_and_try():
    drawn: dict[tuple[int, int, str], bytes] = {}

    class Gate(type(MEASURED.parts.mechanism)):  # type: ignore[misc]
        def apply(self, total, spec, noise):
            drawn[(number, attempt, spec.segment)] = noise.normal(5).tobytes()
            return total

    odd = with_parts(MEASURED, mechanism=Gate(2.0, 1.0))
    for number, attempt in ((0, 0), (1, 0), (0, 1)):
        state = replace(first(odd), round=number, attempt=attempt)
        run(run_round(odd, state, world(odd, ledger=MemoryLedger(99))))
    assert len(drawn) == 6
    assert len(set(drawn.values())) == 6


def test_fresh_noise_is_handed_on_as_it_is():
    seen = []

    class Gate(type(PRIVATE.parts.mechanism)):  # type: ignore[misc]
        def apply(self, total, spec, noise):
            seen.append(noise)
            return total

    source = NoiseSource()
    odd = with_parts(PRIVATE, mechanism=Gate(2.0))
    run(run_round(odd, first(odd), world(odd, noise=source)))
    assert seen == [source]


# ------------------------------------------------------------------ measuring


def test_a_measurement_leaves_the_model():
    state, record = run(run_round(PLAN, first(), world(PLAN), Purpose.EVALUATE))
    assert (state.round, state.model) == (0, sha256(start()))
    assert record.purpose is Purpose.EVALUATE
    assert record.metrics["train_loss"] is None
    assert record.metrics["accuracy"] is not None


def test_a_measurement_is_drawn_like_a_round():
    """Its charge says that it was sampled, so it must be."""
    sampled = plan(
        cohort=Cohort(population=6, sampler="fixed", size=2),
        risk_tier="low",
        rounds=Rounds(count=3, quorum=1),
    )
    cohorts = set()
    for seed in range(6):
        key = ReplayKey.of_seed(seed)
        _, record = run(
            run_round(sampled, first(sampled), world(sampled, key=key), Purpose.EVALUATE)
        )
        assert len(record.cohort) == 2
        cohorts.add(record.cohort)
    assert len(cohorts) > 1


def test_the_sampling_key_can_be_a_secret_of_its_own():
    sampled = plan(cohort=Cohort(population=6, sampler="fixed", size=3), risk_tier="low")
    cohorts = set()
    for seed in range(6):
        its = world(sampled, sampling=ReplayKey.of_seed(seed))
        cohorts.add(run(run_round(sampled, first(sampled), its))[1].cohort)
    assert len(cohorts) > 1


# ------------------------------------------------------------------ watching


@pytest.mark.parametrize(
    ("watch", "best", "better"),
    [("loss", 1e9, True), ("loss", 0.0, False), ("accuracy", 0.0, True), ("accuracy", 1.0, False)],
)
def test_the_watched_metric_improves_in_its_own_direction(watch, best, better):
    watching = plan(rounds=Rounds(count=3, patience=2, watch=watch))
    state = replace(first(watching), best=best, stale=1)
    after, record = run(run_round(watching, state, world(watching)))
    assert after.stale == (0 if better else 2)
    assert after.best == (record.metrics[watch] if better else best)


def test_a_round_without_measurement_watches_nothing():
    watching = plan(rounds=Rounds(count=3, patience=2), evaluate_every=2)
    state = replace(first(watching), round=1, best=0.5, stale=1)
    after, record = run(run_round(watching, state, world(watching)))
    assert record.metrics["loss"] is None
    assert (after.best, after.stale) == (0.5, 1)


def test_the_charge_names_the_event_of_a_round():
    ledger = MemoryLedger(0)
    run(run_round(PLAN, first(), world(PLAN, ledger=ledger)))
    assert ledger.charges == (Charge(job().name, 0, 0, Purpose.TRAIN, PLAN.round_event),)
    assert PLAN.round_event == NonPrivate() or not PLAN.private


def test_a_mean_of_no_weight_is_no_step():
    """All clients are without examples: 0 / 0 must not make the model NaN."""
    from tests.support.toy import nobody

    state, record = run(run_round(PLAN, first(), world(PLAN, InlineEngine(TOY, nobody))))
    assert not record.void
    assert state.model == sha256(start())
    assert record.metrics == {"train_loss": None, "loss": None, "accuracy": None, "auroc": None}
