"""What one client contributes, and how updates are checked and added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hansa.core.contribute import Fold, Purpose, RoundTask, contribute
from hansa.core.keys import ReplayKey
from hansa.core.metrics import measure
from hansa.core.parts import Context, Examples, Role, Split, Update
from hansa.core.vector import Vector
from hansa.errors import UpdateRejected
from tests.support.odd import Odd
from tests.support.toy import FACTS, TOY, data, nobody, plan, round_task, with_parts

PLAN = plan()
TRAIN, EVALUATE = round_task(PLAN), round_task(PLAN, Purpose.EVALUATE)


def test_an_update_holds_delta_weight_and_metric_sums():
    split = data("kiel")
    update = contribute(TRAIN, "kiel", TOY, split)
    n = len(split.train)
    assert update.layout == PLAN.layout
    assert update.vector.dtype == np.float32
    assert update.segment("weight").tolist() == [n]
    sums = update.segment("metrics")
    assert sums[1] == n
    expected = measure(TOY.metrics, TOY.predict(TRAIN.params, split.test))
    assert sums[2:] == pytest.approx(expected, rel=1e-6)
    delta = update.segment("delta") / n
    before = TOY.gradient(TRAIN.params, split.train)[0]
    after = TOY.gradient(TRAIN.params + delta, split.train)[0]
    assert after < before, "the delta, per example, goes downhill"
    assert sums[0] / sums[1] == pytest.approx(before, rel=0.5)


def test_a_measurement_has_no_delta():
    split = data("kiel")
    update = contribute(EVALUATE, "kiel", TOY, split)
    assert [s.name for s in update.layout.segments] == ["weight", "metrics"]
    assert update.segment("weight").tolist() == [len(split.test)]
    assert update.segment("metrics")[:2].tolist() == [0, 0]
    assert update.segment("metrics")[2:].any()


def test_the_received_parameters_are_not_written_to():
    TRAIN.params.flags.writeable = False
    contribute(TRAIN, "kiel", TOY, data("kiel"))


def test_everything_random_is_keyed_by_job_round_purpose_and_client():
    split = data("kiel")

    def vector(task: RoundTask, client: str = "kiel") -> bytes:
        return contribute(task, client, TOY, split).segment("delta").tobytes()

    assert vector(TRAIN) == vector(TRAIN)
    others = [
        vector(replace(TRAIN, round=1)),
        vector(replace(TRAIN, key=ReplayKey.of_seed(99))),
        vector(TRAIN, "riga"),
    ]
    assert len({vector(TRAIN), *others}) == 4
    assert vector(replace(TRAIN, attempt=3)) == vector(TRAIN), "a second try is the same work"


@pytest.mark.parametrize(
    ("every", "number", "purpose", "measured"),
    [
        (1, 0, Purpose.TRAIN, True),
        (1, 5, Purpose.TRAIN, True),
        (3, 3, Purpose.TRAIN, True),
        (3, 4, Purpose.TRAIN, False),
        (0, 0, Purpose.TRAIN, False),
        (0, 4, Purpose.EVALUATE, True),
    ],
)
def test_held_out_examples_are_measured_when_due(every, number, purpose, measured):
    task = round_task(plan(evaluate_every=every), purpose, number)
    assert task.measured is measured
    update = contribute(task, "kiel", TOY, data("kiel"))
    assert update.segment("metrics")[2:].any() == measured


@pytest.mark.parametrize("purpose", Purpose)
def test_a_client_without_examples_contributes_zeros(purpose):
    update = contribute(round_task(PLAN, purpose), "kiel", TOY, nobody("kiel"))
    assert not update.vector.any()


def test_a_client_without_held_out_examples_trains_all_the_same():
    split = data("kiel")
    update = contribute(TRAIN, "kiel", TOY, Split(split.train, nobody("kiel").test))
    assert update.segment("delta").any()
    assert not update.segment("metrics")[2:].any()


def test_the_stages_of_the_plan_are_called_in_order():
    seen: list[str] = []

    class Spy(Odd):
        def encode(self, update, ctx):
            seen.append(f"{self.role.name} {ctx.client} {ctx.round}")
            return update

    spied = with_parts(PLAN, stages=(Spy(Role.SHAPE), Spy(Role.NOISE)))
    contribute(round_task(spied, number=4), "kiel", TOY, data("kiel"))
    assert seen == ["SHAPE kiel 4", "NOISE kiel 4"]


def test_a_fold_asks_every_stage_before_it_adds():
    class Picky(Odd):
        def admit(self, update, facts):
            raise UpdateRejected("never good enough", fix="give up")

    update = contribute(TRAIN, "kiel", TOY, data("kiel"))
    fold = Fold.of(round_task(with_parts(PLAN, stages=(*PLAN.parts.stages, Picky()))))
    with pytest.raises(UpdateRejected, match="never good enough"):
        fold.add(fold.zero(), "kiel", update)


@pytest.mark.parametrize("wrong", [EVALUATE.layout, FACTS.layout(with_metrics=False)])
def test_a_fold_refuses_an_update_of_another_shape(wrong):
    fold = Fold.of(TRAIN)
    with pytest.raises(UpdateRejected, match="'kiel' has shape"):
        fold.add(fold.zero(), "kiel", Update(np.zeros(wrong.size, np.float32), wrong))


def test_work_is_told_how_many_examples_it_trains_on():
    """Rates and noise of DP-SGD follow from it: the same number, wherever it is asked for."""
    seen: list[int] = []

    class Sees:
        def batches(self, examples: int, ctx: Context) -> Iterator[NDArray[Any]]:
            seen.extend((examples, ctx.examples))
            return iter(())

        def init(self, shared: Vector, ctx: Context) -> None:
            seen.append(ctx.examples)

        def step(self, state: None, batch: Examples, ctx: Context) -> None:
            raise AssertionError("there are no batches")

        def finish(self, shared: Vector, state: None) -> tuple[Vector, float]:
            return np.zeros_like(shared), 0.0

    base = plan()
    algorithm = replace(base.parts.algorithm, work=Sees())
    contribute(
        round_task(with_parts(base, algorithm=algorithm)), "client-0001", TOY, data("client-0001")
    )
    assert seen == [len(data("client-0001").train)] * 3
