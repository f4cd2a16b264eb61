"""The contract of every engine: the same updates give the same bits, and nobody is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hansa.core.contribute import Fold, Purpose, contribute
from hansa.core.job import Aggregation, Quantization, Rounds
from hansa.core.parts import Model, Partial, Split
from hansa.core.plan import Plan
from hansa.core.round import Engine
from hansa.core.train import initial_state, train
from tests.support.sources import Empty, Infinite, Raising
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

Data = Callable[[str], Split]

PLANS: dict[str, dict[str, Any]] = {
    "mean": {},
    "median": {"aggregation": Aggregation(rule="median"), "rounds": Rounds(count=3, quorum=5)},
    "ring": {
        "aggregation": Aggregation(weighting="uniform", clip=1.0, max_weight=50),
        "quantization": Quantization(step=1e-5),
    },
}


class EngineLaws:
    """Subclass it as `Test...` and make engines for a model and its data.

    All sources of data can be sent to other processes.
    """

    def engine(self, model: Model, source: Data) -> Engine:
        raise NotImplementedError

    @pytest.fixture(params=sorted(PLANS))
    def plan(self, request) -> Plan:
        return plan(**PLANS[request.param])

    def total(self, plan: Plan, partials: list[Partial], purpose: Purpose) -> bytes:
        fold = Fold.of(round_task(plan, purpose))
        whole = fold.zero()
        for partial in partials:
            whole = fold.aggregator.merge(whole, partial)
        return fold.aggregator.finish(whole, fold.layout, fold.facts).tobytes()

    def by_hand(self, plan: Plan, cohort: tuple[str, ...], purpose: Purpose) -> bytes:
        task = round_task(plan, purpose)
        fold = Fold.of(task)
        partial = fold.zero()
        for client in sorted(cohort, reverse=True):
            partial = fold.add(partial, client, contribute(task, client, TOY, data(client)))
        return self.total(plan, [partial], purpose)

    @pytest.mark.parametrize("purpose", Purpose)
    def test_the_same_updates_give_the_same_bits(self, plan, purpose):
        engine, cohort = self.engine(TOY, data), POPULATION[1:]
        partials, dropouts = gathered(engine, round_task(plan, purpose), cohort)
        assert dropouts == []
        assert sorted(m for p in partials for m in p.members) == sorted(cohort)
        assert self.total(plan, partials, purpose) == self.by_hand(plan, cohort, purpose)

    def test_a_client_that_fails_is_a_dropout_and_the_rest_counts(self, plan):
        bad = POPULATION[2]
        engine = self.engine(TOY, Raising(bad))
        partials, dropouts = gathered(engine, round_task(plan), POPULATION)
        assert [d.client for d in dropouts] == [bad]
        assert "41.5" not in dropouts[0].reason
        rest = tuple(c for c in POPULATION if c != bad)
        assert sorted(m for p in partials for m in p.members) == sorted(rest)
        assert self.total(plan, partials, Purpose.TRAIN) == self.by_hand(plan, rest, Purpose.TRAIN)

    def test_an_update_that_is_rejected_is_a_dropout(self):
        engine = self.engine(TOY, Infinite(POPULATION[0]))
        with np.errstate(all="ignore"):
            partials, dropouts = gathered(engine, round_task(plan()), POPULATION)
        assert [d.client for d in dropouts] == [POPULATION[0]]
        assert len([m for p in partials for m in p.members]) == len(POPULATION) - 1

    def test_nobody_was_drawn(self, plan):
        partials, dropouts = gathered(self.engine(TOY, data), round_task(plan), ())
        assert dropouts == []
        assert [m for p in partials for m in p.members] == []

    def test_a_client_without_examples_counts_with_weight_zero(self, plan):
        engine = self.engine(TOY, Empty(POPULATION[0]))
        partials, dropouts = gathered(engine, round_task(plan), POPULATION)
        assert dropouts == []
        fold = Fold.of(round_task(plan))
        whole = fold.zero()
        for partial in partials:
            whole = fold.aggregator.merge(whole, partial)
        total = fold.aggregator.finish(whole, fold.layout, fold.facts)
        for stage in reversed(plan.parts.stages):
            total = stage.decode(total, fold.layout)
        rest = sum(
            1 if plan.job.aggregation.weighting == "uniform" else len(data(c).train)
            for c in POPULATION[1:]
        )
        assert fold.layout.slice(total, "weight")[0] == pytest.approx(rest)

    def test_a_whole_run_repeats_bit_by_bit(self, plan):
        models = {
            run(
                train(plan, initial_state(plan, start()), world(plan, self.engine(TOY, data)))
            ).model
            for _ in range(2)
        }
        assert len(models) == 1

    def test_it_says_whether_its_clients_are_other_parties(self):
        assert self.engine(TOY, data).real in (True, False)
