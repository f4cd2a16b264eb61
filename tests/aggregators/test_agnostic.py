"""The worst mixture beside a linear programme; a round beside one written down; what it is for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, linprog

from hansa.aggregators.agnostic import Agnostic, worst_mixture
from hansa.core.contribute import context_of, train_locally
from hansa.core.job import (
    Aggregation,
    Cohort,
    Defend,
    Privacy,
    Quantization,
    Rounds,
    SecureAggregation,
)
from hansa.errors import HansaError, PlanRefused
from hansa.simulation import simulate
from hansa.stages.loss_weight import LossWeight
from hansa.stages.weight import Weight
from tests.stages.test_fair_weight import spread
from tests.support import toy

ONE = Rounds(count=1)


@pytest.mark.parametrize("tail", [0.05, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_the_worst_mixture_is_the_optimum_of_a_linear_programme(tail, n):
    losses = np.random.default_rng(n).exponential(size=n)
    found = worst_mixture(losses, tail)
    most = min(1 / (tail * n), 1.0)
    best = linprog(-losses, A_eq=np.ones((1, n)), b_eq=[1.0], bounds=[(0, most)] * n)
    assert best.success
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    assert (found <= most * (1 + 1e-12)).all()
    assert found @ losses == pytest.approx(-best.fun)


def nearest(point: np.ndarray, most: float) -> np.ndarray:
    """The nearest point whose shares are from 0 to `most` and add up to 1: min(max(x - t, 0), most)
    for the one t that makes them."""

    def shares(t: float) -> np.ndarray:
        return np.asarray(np.clip(point - t, 0.0, most))

    low, high = point.min() - 1.0, point.max()
    return shares(brentq(lambda t: shares(t).sum() - 1.0, low, high, xtol=1e-15))


@pytest.mark.parametrize("tail", [0.1, 0.3, 0.5, 1.0])
def test_it_is_where_the_papers_ascent_goes_with_a_step_that_is_large_enough(tail):
    """From any mixture; with a small step the mixture moves no further than the losses differ."""
    rng, n = np.random.default_rng(5), 10
    losses, start = rng.exponential(size=n), nearest(rng.dirichlet(np.ones(n)), 1 / (tail * n))
    found = worst_mixture(losses, tail)
    np.testing.assert_allclose(nearest(start + 1e4 * losses, 1 / (tail * n)), found, atol=1e-9)
    small = nearest(start + 1e-3 * losses, 1 / (tail * n))
    assert np.linalg.norm(small - start) <= 1e-3 * np.linalg.norm(losses - losses.mean()) + 1e-9
    if tail < 1:
        assert np.linalg.norm(small - found) > 0.1


def test_of_equal_losses_the_first_count():
    np.testing.assert_allclose(worst_mixture(np.array([1.0, 2.0, 1.0, 1.0]), 0.5), [0.5, 0.5, 0, 0])


def by_hand(plan: Any, tail: float) -> np.ndarray:
    """One round: the mean delta of the worst mixture, by a linear programme."""
    task, deltas, losses = toy.round_task(plan), [], []
    for client in toy.POPULATION:
        split = toy.data(client)
        deltas.append(train_locally(task, context_of(task, client, toy.TOY, split), split)[0])
        losses.append(toy.TOY.predict(task.params, split.train).losses.mean(dtype=np.float64))
    n, rows = len(losses), np.stack(deltas).astype(np.float64)
    bounds = [(0, min(1 / (tail * n), 1.0))] * n
    best = linprog(-np.array(losses), A_eq=np.ones((1, n)), b_eq=[1.0], bounds=bounds)
    found: np.ndarray = task.params + best.x @ rows
    return found


@pytest.mark.parametrize("tail", [0.01, 0.4, 1.0])
def test_a_round_follows_the_worst_mixture(tail):
    words = Aggregation(rule="agnostic", tail=tail)
    found = simulate(toy.job(rounds=ONE, aggregation=words)).state.params
    plan = toy.plan(rounds=ONE, aggregation=words)
    np.testing.assert_allclose(found, by_hand(plan, tail), rtol=2e-6, atol=1e-7)


def test_with_everybody_in_the_tail_it_is_the_mean_with_each_client_once():
    agnostic = simulate(toy.job(aggregation=Aggregation(rule="agnostic", tail=1.0)))
    mean = simulate(toy.job(aggregation=Aggregation(weighting="uniform")))
    np.testing.assert_allclose(agnostic.state.params, mean.state.params, rtol=1e-5, atol=1e-6)


def test_the_worst_site_is_served_better_where_sites_differ():
    plain = np.array([spread(Aggregation(), seed) for seed in range(5)])
    fair = np.array([spread(Aggregation(rule="agnostic", tail=0.25), s) for s in range(5)])
    assert (fair[:, 1] > plain[:, 1]).all()
    assert fair[:, 0].mean() < 0.8 * plain[:, 0].mean()


def test_every_engine_gives_the_same_bits():
    words = Aggregation(rule="agnostic", tail=0.4, clip=2.0, max_weight=5.0)
    first = simulate(toy.job(aggregation=words))
    for engine in ("workers", "vector"):
        assert simulate(toy.job(aggregation=words), engine=engine).model_sha256 == (
            first.model_sha256
        )


def test_likeness_is_of_deltas_alone():
    plan = toy.plan(aggregation=Aggregation(rule="agnostic"))
    rule, facts = plan.parts.aggregator, toy.facts_after([Weight("examples"), Agnostic(0.5)])
    assert isinstance(rule, Agnostic)
    partial = rule.zero(toy.LAYOUT, facts)
    for name, delta in (("b", [2.0, 0, 0, 0, 0]), ("a", [0, 6.0, 0, 0, 0])):
        partial = rule.add(partial, name, toy.update(delta, 2.0), facts)
    found = rule.likeness(partial)
    assert found.clients == ("a", "b")
    np.testing.assert_allclose(found.products, [[9.0, 0.0], [0.0, 1.0]])


def test_a_client_says_its_loss_and_no_more_than_it_may():
    def sent(most: float, loss: Any, n: float = 4.0) -> Any:
        context = replace(toy.context(), loss=None if loss is None else lambda: loss)
        update = toy.update([1.0, -2.0, 0, 0, 0], n)
        encoded = LossWeight(Weight("uniform"), most).encode(update, context)
        return encoded.segment("delta").tolist()[:2], float(encoded.segment("weight")[0])

    assert sent(math.inf, 3.0) == ([3.0, -6.0], 3.0)
    assert sent(2.0, 3.0) == ([2.0, -4.0], 2.0)
    assert sent(2.0, 3.0, 0.0) == ([0.0, 0.0], 0.0)
    assert sent(2.0, 0.0)[1] > 0
    for loss, because in ((math.nan, "diverged"), (math.inf, "diverged"), (None, "not measured")):
        with pytest.raises(HansaError, match=because):
            sent(2.0, loss)


@pytest.mark.parametrize(
    ("words", "because", "fix"),
    [
        (
            {
                "aggregation": Aggregation(rule="agnostic", clip=1.0, max_weight=5.0),
                "quantization": Quantization(step=1e-3),
                "secure_aggregation": SecureAggregation(enabled=True),
            },
            "needs every client's loss",
            "aggregation.fairness",
        ),
        (
            {
                "aggregation": Aggregation(rule="agnostic"),
                "privacy": Privacy(
                    mechanism="gaussian", clip=1.0, noise_multiplier=1.0, delta=1e-5
                ),
            },
            "which no noise hides",
            'rule = "mean"',
        ),
        (
            {"aggregation": Aggregation(rule="agnostic"), "defend": Defend(standing=True)},
            "whom the rule",
            "leave [defend] out",
        ),
        ({"aggregation": Aggregation(rule="agnostic", tail=0.0)}, "no mixture", "above 0"),
        ({"aggregation": Aggregation(rule="agnostic", tail=1.5)}, "no mixture", "at most 1"),
        (
            {"aggregation": Aggregation(rule="agnostic", mixing="nearest")},
            "leaves updates out",
            "leave it out",
        ),
        (
            {"aggregation": Aggregation(rule="agnostic", fairness=1.0)},
            "takes each client once",
            "leave fairness out",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words, because, fix):
    with pytest.raises(PlanRefused) as refused:
        toy.plan(**{"rounds": Rounds(count=2, quorum=5), "cohort": Cohort(population=6), **words})
    found = [error for error in refused.value.errors if because in error.because]
    assert found, refused.value
    assert fix in found[0].fix
