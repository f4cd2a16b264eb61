"""q-FedAvg beside its algorithm as the paper has it, written down again; and what it is for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.algorithms import fedavg, fedsgd
from hansa.core.contribute import context_of, train_locally
from hansa.core.job import Aggregation, Cohort, Privacy, Quantization, Rounds, SecureAggregation
from hansa.core.parts import Examples, Site, Split
from hansa.errors import HansaError, PlanRefused
from hansa.redteam.division import read_own
from hansa.redteam.measures import worth
from hansa.simulation import simulate
from hansa.stages.fair_weight import FairWeight
from hansa.stages.weight import Weight
from tests.support import toy
from tests.support.toyjob.task import TRUE, Toy

RATE = 0.5
ONE = Rounds(count=1)


def q_fedavg(plan: Any, q: float, weights: Any) -> np.ndarray:
    """One round of algorithm 2 of Li et al., in float64, from what each client's training gives."""
    task = toy.round_task(plan)
    w, lipschitz = task.params.astype(np.float64), 1 / RATE
    top, bottom = np.zeros_like(w), 0.0
    for client in toy.POPULATION:
        split = toy.data(client)
        delta, _ = train_locally(task, context_of(task, client, toy.TOY, split), split)
        loss = float(toy.TOY.predict(task.params, split.train).losses.mean(dtype=np.float64))
        step = lipschitz * (w - (w + delta.astype(np.float64)))
        p = weights(split)
        top += p * loss**q * step
        bottom += p * (q * loss ** (q - 1) * float(step @ step) + lipschitz * loss**q)
    return w - top / bottom


@pytest.mark.parametrize("q", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_a_round_is_algorithm_2_and_with_q_0_it_is_federated_averaging(q, weighting):
    words = Aggregation(weighting=weighting, fairness=q)
    job = toy.job(rounds=ONE, cohort=Cohort(population=6), aggregation=words)
    found = simulate(job).state.params
    weights = (lambda _: 1.0) if weighting == "uniform" else (lambda split: len(split.train))
    plan = toy.plan(rounds=ONE, aggregation=words)
    np.testing.assert_allclose(found, q_fedavg(plan, q, weights), rtol=2e-6, atol=1e-7)


def test_a_power_near_0_gives_what_the_plain_weight_gives():
    raw = toy.update([1.0, -2.0, 0.5, 0.0, 3.0], 7.0, [1.0] * 4)
    base = Weight("examples", cap=5.0)
    fair = FairWeight(base, 1e-12, 2.0)
    plain = base.encode(toy.copy(raw), toy.context())
    near = fair.encode(toy.copy(raw), toy.context())
    np.testing.assert_allclose(near.vector, plain.vector, rtol=1e-6)


def encoded(stage: FairWeight, loss: Any, delta: Any = (3.0, 4.0, 0, 0, 0), n: float = 2.0) -> Any:
    context = replace(toy.context(), loss=None if loss is None else lambda: loss)
    sent = stage.encode(toy.update(delta, n), context)
    return sent.segment("delta").tolist(), float(sent.segment("weight")[0])


def test_the_table():
    stage = FairWeight(Weight("examples"), 2.0, 0.1)
    # F = 2, |delta| = 5: F^q = 4, q L F^(q-1) |delta|^2 = 2 * 0.1 * 2 * 25 = 10, h = 14, n = 2.
    delta, weight = encoded(stage, 2.0)
    assert delta == pytest.approx([24.0, 32.0, 0, 0, 0])
    assert weight == pytest.approx(28.0)
    capped, most = encoded(replace(stage, most=7.0), 2.0)
    assert most == 7.0
    assert capped == pytest.approx([6.0, 8.0, 0, 0, 0])  # the same mean delta, with less weight
    assert encoded(stage, 2.0, (0,) * 5, 0.0) == ([0.0] * 5, 0.0)
    steep = FairWeight(Weight("uniform"), 20.0, 0.1)
    assert encoded(steep, 0.0) == ([0.0] * 5, 0.0)  # 1e-10 to the power of 20
    assert encoded(FairWeight(Weight("uniform"), 0.5, 0.1), 0.0)[1] > 0  # F^(q - 1), finite


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e300])
def test_a_loss_that_is_not_finite_is_no_weight(loss):
    with pytest.raises(HansaError, match="training diverged"):
        encoded(FairWeight(Weight("uniform"), 2.0, 1.0), loss)
    with pytest.raises(HansaError, match="not measured"):
        encoded(FairWeight(Weight("uniform"), 2.0, 1.0), None)


def test_a_round_that_measures_weighs_as_before():
    layout = toy.LAYOUT.without("delta")
    for base, n, weight in ((Weight("uniform"), 9, 1.0), (Weight("examples", cap=5), 9, 5.0)):
        stage, context = FairWeight(base, 1.0, 1.0, 5.0), replace(toy.context(), loss=None)
        sent = stage.encode(toy.update([], n, layout=layout), context)
        assert sent.segment("weight").tolist() == [weight]


class Odd(Toy):
    """Two clients of eight say the opposite of the others in a part of what there is to say."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def data(self, site: Site) -> Split:
        rng = np.random.default_rng([self.seed, *site.name.encode()])
        truth = TRUE * np.array([1, -0.5, 1, 1]) if site.name[-1] in "12" else TRUE
        inputs = rng.standard_normal((160, 4)).astype(np.float32)
        targets = (inputs @ truth + 0.3 * rng.standard_normal(160) > 0).astype(np.int64)
        return Split(Examples(inputs[:60], targets[:60]), Examples(inputs[60:], targets[60:]))


def spread(words: Aggregation, seed: int) -> tuple[float, float]:
    """Standard deviation and minimum of the accuracies of eight sites."""
    job = toy.job(
        rounds=Rounds(count=30),
        cohort=Cohort(population=8),
        algorithm=fedavg(client_lr=0.3, local_epochs=1, batch_size=20),
        aggregation=words,
        seed=seed,
        evaluate_every=0,
    )
    task = Odd(seed)
    params = simulate(job, task=task).state.params
    division = read_own(task, tuple(f"client-{i:04d}" for i in range(1, 9)))
    shares = [c.right / c.of for c in worth(task, params, division).sites.values()]
    return float(np.std(shares)), min(shares)


def test_the_accuracies_of_sites_come_together_where_they_differ():
    plain = np.array([spread(Aggregation(), seed) for seed in range(5)])
    fair = np.array([spread(Aggregation(fairness=4.0), seed) for seed in range(5)])
    assert (fair[:, 0] < plain[:, 0]).all()
    assert fair[:, 0].mean() < 0.8 * plain[:, 0].mean()
    assert (fair[:, 1] > plain[:, 1]).all()


WORDS = Aggregation(fairness=2.0, clip=2.0, max_weight=40.0)


def test_every_engine_gives_the_same_bits():
    job = toy.job(aggregation=WORDS)
    first = simulate(job)
    assert simulate(job, engine="workers").model_sha256 == first.model_sha256
    assert simulate(job, engine="vector").model_sha256 == first.model_sha256  # no stacks of NumPy
    assert simulate(replace(job, aggregation=Aggregation())).model_sha256 != first.model_sha256


def test_masks_hide_it_and_the_sum_is_the_same():
    masked = toy.job(
        aggregation=WORDS,
        quantization=Quantization(step=1e-4),
        secure_aggregation=SecureAggregation(enabled=True),
    )
    under = simulate(masked)
    assert under.model_sha256 == simulate(masked, masked=False).model_sha256
    plain = simulate(toy.job(aggregation=WORDS))
    np.testing.assert_allclose(under.state.params, plain.state.params, atol=2e-3)
    said = " ".join(under.plan.claims)
    assert "only the sum of the weights can be read" in said
    assert "its weight tells the coordinator how large its loss is" in " ".join(plain.plan.claims)


@pytest.mark.parametrize(
    ("words", "because", "fix"),
    [
        (
            {"aggregation": Aggregation(rule="median", fairness=1.0)},
            "takes each client once",
            'rule = "mean"',
        ),
        (
            {
                "aggregation": Aggregation(weighting="uniform", fairness=1.0),
                "privacy": Privacy(
                    mechanism="gaussian", clip=1.0, noise_multiplier=1.0, delta=1e-5
                ),
            },
            "which no noise hides",
            "leave fairness out",
        ),
        (
            {"aggregation": Aggregation(fairness=1.0), "algorithm": fedsgd()},
            "takes none",
            '"fedavg"',
        ),
        (
            {
                "aggregation": Aggregation(fairness=1.0, clip=1.0),
            },
            "can undo the clip",
            "aggregation.max_weight",
        ),
        (
            {"aggregation": Aggregation(fairness=math.inf)},
            "cannot be fair",
            "above 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words, because, fix):
    with pytest.raises(PlanRefused) as refused:
        toy.plan(**{"rounds": Rounds(count=2, quorum=5), **words})
    found = [error for error in refused.value.errors if because in error.because]
    assert found, refused.value
    assert fix in found[0].fix
