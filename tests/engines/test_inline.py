"""The inline engine: what it shows, and when."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.core.contribute import contribute
from hansa.core.parts import Split, Update
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.errors import ClientFailed
from tests.support.toy import (
    POPULATION,
    TOY,
    data,
    gathered,
    plan,
    round_task,
    run,
    start,
    world,
)

PLAN = plan()
BAD = POPULATION[3]


class Fragile(type(TOY)):  # type: ignore[misc]
    """A model that fails on one client's examples, which are all 3."""

    def loss_and_gradients(self, parameters, inputs, targets):
        if (inputs == 3).all():
            raise ArithmeticError("patient 4711 is odd")
        return super().loss_and_gradients(parameters, inputs, targets)


def odd(client: str) -> Split:
    split = data(client)
    if client == BAD:
        split.train.inputs[:] = 3
    return split


def missing(client: str) -> Split:
    if client == BAD:
        raise FileNotFoundError("/data/patients-4711.csv")
    return data(client)


@pytest.mark.parametrize(
    ("model", "source", "reason"),
    [(Fragile(), odd, "ArithmeticError"), (TOY, missing, "FileNotFoundError")],
)
def test_normally_a_failure_is_a_dropout_that_quotes_no_data(model, source, reason):
    partials, dropouts = gathered(InlineEngine(model, source), round_task(PLAN), POPULATION)
    assert [(d.client, d.reason) for d in dropouts] == [(BAD, reason)]
    assert len(partials) == 1
    assert BAD not in partials[0].members


@pytest.mark.parametrize(
    ("model", "source", "cause"),
    [(Fragile(), odd, ArithmeticError), (TOY, missing, FileNotFoundError)],
)
def test_in_debug_mode_a_failure_stops_and_can_be_repeated(model, source, cause):
    with pytest.raises(
        ClientFailed, match=f"client '{BAD}' raised {cause.__name__} in round 5"
    ) as e:
        gathered(InlineEngine(model, source, debug=True), round_task(PLAN, number=5), POPULATION)
    assert isinstance(e.value.__cause__, cause)
    assert "4711" in str(e.value)
    assert f"seed={PLAN.job.seed}, rounds=6, debug=True" in e.value.fix
    assert e.value.again is not None
    with pytest.raises(cause):
        e.value.again()


def test_what_is_repeated_is_exactly_what_failed():
    """The call that failed once gives the update of that client in that round."""
    calls = []

    class Once(type(TOY)):  # type: ignore[misc]
        def loss_and_gradients(self, parameters, inputs, targets):
            calls.append(1)
            if len(calls) == 1:
                raise MemoryError
            return super().loss_and_gradients(parameters, inputs, targets)

    task = round_task(PLAN)
    with pytest.raises(ClientFailed) as caught:
        gathered(InlineEngine(Once(), data, debug=True), task, POPULATION)
    assert caught.value.again is not None
    again = caught.value.again()
    assert isinstance(again, Update)
    expected = contribute(task, POPULATION[0], TOY, data(POPULATION[0]))
    assert (again.vector == expected.vector).all()


def test_a_rejected_update_is_a_dropout_in_debug_mode_too():
    def huge(client: str) -> Split:
        split = data(client)
        if client == BAD:
            split.test.inputs[:] = np.nan
        return split

    with np.errstate(all="ignore"):
        _, dropouts = gathered(InlineEngine(TOY, huge, debug=True), round_task(PLAN), POPULATION)
    assert [d.client for d in dropouts] == [BAD]
    assert "the metrics of an update is not finite" in dropouts[0].reason


def test_a_run_with_failures_is_the_run_without_those_clients():
    state = initial_state(PLAN, start())
    failing = run(train(PLAN, state, world(PLAN, InlineEngine(TOY, missing))))
    absent = tuple(c for c in POPULATION if c != BAD)
    without = run(train(PLAN, state, world(PLAN, population=absent)))
    assert failing.model == without.model


def test_it_is_no_real_federation():
    assert not InlineEngine(TOY, data).real
