"""Training over rounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Privacy, Rounds
from hansa.core.round import RoundRecord
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import BudgetExceeded, RoundVoid
from tests.support.odd import Silent
from tests.support.toy import TOY, data, plan, run, start, world

PLAN = plan()


def test_all_rounds_then_one_measurement():
    heard: list[RoundRecord] = []
    state = run(train(PLAN, initial_state(PLAN, start()), world(PLAN), heard.append))
    assert [(r.purpose, r.round) for r in heard] == [
        (Purpose.TRAIN, 0),
        (Purpose.TRAIN, 1),
        (Purpose.TRAIN, 2),
        (Purpose.EVALUATE, 3),
    ]
    assert state.round == 3
    losses = [r.metrics["loss"] or 0.0 for r in heard]
    assert losses == sorted(losses, reverse=True), "it learns"


def test_it_goes_on_from_what_the_journal_remembers():
    whole = run(train(PLAN, initial_state(PLAN, start()), world(PLAN)))
    journal = MemoryJournal()
    short = replace(PLAN, job=replace(PLAN.job, rounds=Rounds(count=1)))
    run(train(short, initial_state(PLAN, start()), world(PLAN, journal=journal)))
    assert journal.state is not None
    again = run(train(PLAN, journal.state, world(PLAN)))
    assert again.model == whole.model


def test_a_void_round_is_tried_again_so_many_times():
    engine = Silent([])
    with pytest.raises(RoundVoid, match="round 0 was void 3 times") as caught:
        run(train(PLAN, initial_state(PLAN, start()), world(PLAN, engine)))
    assert len(engine.asked) == 3
    assert "quorum" in caught.value.fix


def test_a_later_try_can_succeed():
    calls = []

    def flaky(client):
        calls.append(client)
        if len(calls) <= 6:
            raise RuntimeError("not yet")
        return data(client)

    heard: list[RoundRecord] = []
    state = run(
        train(
            PLAN, initial_state(PLAN, start()), world(PLAN, InlineEngine(TOY, flaky)), heard.append
        )
    )
    assert [r.void for r in heard] == [True, False, False, False, False]
    assert state.round == 3


def test_the_budget_ends_training_when_void_rounds_used_it_up():
    private = plan(
        privacy=Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=2.0, delta=1e-5),
        aggregation=Aggregation(weighting="uniform"),
        rounds=Rounds(count=2, attempts=9),
    )
    engine = Silent([])
    with pytest.raises(BudgetExceeded):
        run(train(private, initial_state(private, start()), world(private, engine)))
    assert private.charges == len(engine.asked) == 2


@pytest.mark.parametrize(("patience", "rounds"), [(0, 12), (2, 4)])
def test_patience_ends_training_early(patience, rounds):
    """A server that does not move: the loss is best at once and never improves again."""
    from hansa.algorithms import fedavg

    still = plan(
        rounds=Rounds(count=12, patience=patience),
        algorithm=fedavg(client_lr=0.1, server_lr=1e-30),
    )
    heard: list[RoundRecord] = []
    run(train(still, initial_state(still, start()), world(still), heard.append))
    trained = [r for r in heard if r.purpose is Purpose.TRAIN]
    assert len(trained) == (rounds if patience == 0 else patience + 1)


def test_without_metrics_there_is_no_measurement():
    private = plan(
        privacy=Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=2.0, delta=1e-5),
        aggregation=Aggregation(weighting="uniform"),
    )
    heard: list[RoundRecord] = []
    run(train(private, initial_state(private, start()), world(private), heard.append))
    assert [r.purpose for r in heard] == [Purpose.TRAIN] * 3


def test_the_first_state_names_its_model():
    state = initial_state(PLAN, start())
    assert (state.round, state.attempt, state.best, state.stale) == (0, 0, None, 0)
    assert len(state.model) == 64
