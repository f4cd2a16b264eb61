"""DP-SGD inside a client: steps, noise, rates and what one update costs, against other means."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from opacus.accountants import PRVAccountant
from scipy import stats

from hansa.core.events import Gaussian, PoissonSampled, SelfComposed, repeat
from hansa.core.keys import NoiseSource, ReplayKey
from hansa.core.metrics import Metric, Outputs
from hansa.core.parts import Context, Examples
from hansa.core.vector import Schema, Tensor, Vector
from hansa.errors import HansaError
from hansa.privacy import epsilon
from hansa.work.dpsgd import RELATION, DpSgd, Pace, Promise
from hansa.work.sgd import LocalSGD

SIZE = 4


class Pull:
    """The gradient of example x at any parameters is x itself, whatever is beside it."""

    metrics: tuple[Metric, ...] = ()

    def __init__(self, size: int = SIZE) -> None:
        self.schema = Schema((Tensor("w", (size,)),))

    def initial(self, seed: int) -> Vector:
        return np.zeros(self.schema.size, np.float32)

    def gradient(self, params: Vector, batch: Examples) -> tuple[float, Vector]:
        return 1.0, batch.inputs.mean(axis=0).astype(np.float32)

    def predict(self, params: Vector, examples: Examples) -> Outputs:
        none = np.zeros(0)
        return Outputs(none, none, none)


def work(**changed: Any) -> DpSgd:
    usual: dict[str, Any] = {
        "sgd": LocalSGD(client_lr=1.0, local_steps=1, batch_size=8),
        "clip": 1.0,
        "noise_multiplier": 1e-5,
        "examples": 20,
        "delta": 1e-4,
    }
    return DpSgd(**{**usual, **changed})


def rows(n: int, size: int = SIZE, scale: float = 3.0, seed: int = 1) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples((scale * rng.normal(size=(n, size))).astype(np.float32), np.zeros(n, np.int64))


def context(n: int, seed: int = 0, **changed: Any) -> Context:
    key = ReplayKey.of_seed(seed).derive("client")
    return replace(Context("kiel", 0, key, Pull(), examples=n), **changed)


def delta(of: DpSgd, data: Examples, ctx: Context) -> Vector:
    state = of.init(np.zeros(data.inputs.shape[1], np.float32), ctx)
    for index in of.batches(len(data), ctx):
        state = of.step(state, data.take(index), ctx)
    return of.finish(np.zeros(data.inputs.shape[1], np.float32), state)[0]


def clipped(gradients: np.ndarray, clip: float) -> np.ndarray:
    norms = np.linalg.norm(gradients.astype(np.float64), axis=1, keepdims=True)
    found: np.ndarray = gradients * np.minimum(1.0, clip / norms)
    return found


# ------------------------------------------------------------------ steps


def test_a_step_is_the_clipped_sum_over_the_expected_batch():
    """With next to no noise: minus the clipped sum of who was drawn, by q n and not by how many."""
    data, ctx = rows(40), context(40)
    (drawn,) = list(work().batches(40, ctx))
    assert 0 < len(drawn) < 40
    assert len(drawn) != 8
    wanted = -clipped(data.inputs[drawn], 1.0).sum(axis=0) / 8
    assert delta(work(), data, ctx) == pytest.approx(wanted, abs=1e-4)


def test_momentum_and_decay_come_after_the_noise():
    """They work on what is private already: the same as plain SGD along the same directions."""
    sgd = LocalSGD(
        client_lr=0.1, local_steps=3, batch_size=8, momentum=0.9, weight_decay=0.1, proximal=0.2
    )
    of, data, ctx = work(sgd=sgd), rows(40), context(40)
    w, velocity = np.zeros(SIZE), np.zeros(SIZE)
    for drawn in of.batches(40, ctx):
        g = clipped(data.inputs[drawn], 1.0).sum(axis=0) / 8 + 0.1 * w + 0.2 * w
        velocity = 0.9 * velocity + g
        w = w - 0.1 * velocity
    assert delta(of, data, ctx) == pytest.approx(w, abs=1e-4)


def test_without_anybody_in_a_batch_the_step_is_noise():
    of, ctx = work(noise_multiplier=2.0), context(20)
    state = of.init(np.zeros(SIZE, np.float32), ctx)
    state = of.step(state, rows(20).take(np.zeros(0, np.int64)), ctx)
    assert np.abs(of.finish(np.zeros(SIZE, np.float32), state)[0]).min() > 0


@pytest.mark.parametrize("fresh", [False, True])
def test_the_noise_has_the_promised_scale(fresh):
    """Two steps along nothing: N(0, (z C)^2) each, over the expected batch, times the rate."""
    size, z, clip = 100_000, 1.3, 0.7
    sgd = LocalSGD(client_lr=0.5, local_steps=2, batch_size=10)
    of = work(sgd=sgd, noise_multiplier=z, clip=clip)
    data = rows(25, size, scale=0.0)
    ctx = context(25, model=Pull(size), noise=NoiseSource() if fresh else None)
    moved = delta(of, data, ctx)
    sigma = 0.5 * math.sqrt(2) * z * clip / 10
    assert stats.kstest(moved / sigma, "norm").pvalue > 1e-4
    assert stats.kstest(moved / sigma / 1.05, "norm").pvalue < 1e-4, "the test has no power"


def test_a_site_never_repeats_itself_and_a_simulation_does():
    data = rows(40)
    for noise, same in ((NoiseSource(), False), (None, True)):
        of, ctx = work(noise_multiplier=1.0), context(40, noise=noise)
        one, two = delta(of, data, ctx), delta(of, data, ctx)
        assert (one == two).all() == same
        draws = [[tuple(i) for i in of.batches(40, ctx)] for _ in range(2)]
        assert (draws[0] == draws[1]) == same


def test_the_noise_of_two_steps_is_not_the_same():
    """A key that gave every step the same noise would double it, and halve what it hides."""
    data = rows(25, 2_000, scale=0.0)
    sgd = LocalSGD(client_lr=1.0, local_steps=2, batch_size=10)
    of, ctx = work(sgd=sgd, noise_multiplier=1.0), context(25, model=Pull(2_000))
    state = of.init(np.zeros(2_000, np.float32), ctx)
    seen = []
    for index in of.batches(25, ctx):
        before = state.descent.params.copy()
        state = of.step(state, data.take(index), ctx)
        seen.append(state.descent.params - before)
    assert abs(np.corrcoef(seen[0], seen[1])[0, 1]) < 0.1


# ------------------------------------------------------------------ what an example can do


def test_one_example_moves_a_step_by_its_clipped_gradient_and_no_more():
    """Zeroed out, everything else stays: the same draws, the same noise, the same others."""
    data, ctx = rows(40, scale=50.0), context(40)
    (drawn,) = list(work().batches(40, ctx))
    whole = delta(work(noise_multiplier=1.0), data, ctx)
    for one in (drawn[0], next(i for i in range(40) if i not in drawn)):
        other = Examples(data.inputs.copy(), data.targets)
        other.inputs[one] = 0.0
        moved = (whole - delta(work(noise_multiplier=1.0), other, ctx)) * 8
        wanted = -clipped(data.inputs[[one]], 1.0)[0] if one in drawn else np.zeros(SIZE)
        assert moved == pytest.approx(wanted, abs=1e-5)
        assert np.linalg.norm(moved) <= 1 + 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_counts_as_zero(bad):
    data, ctx = rows(40), context(40)
    (drawn,) = list(work().batches(40, ctx))
    data.inputs[drawn[0]] = bad
    without = Examples(data.inputs.copy(), data.targets)
    without.inputs[drawn[0]] = 0.0
    assert (delta(work(), data, ctx) == delta(work(), without, ctx)).all()


def test_parameters_that_are_not_finite_are_an_error():
    ctx, bad = context(40), np.full(SIZE, np.nan, np.float32)
    with pytest.raises(HansaError, match="not finite: training diverged"):
        work().step(work().init(bad, ctx), rows(8), ctx)


# ------------------------------------------------------------------ rates, steps, noise


def test_who_has_more_examples_is_drawn_less_often():
    fixed, epochs = work(), work(sgd=LocalSGD(client_lr=1.0, local_epochs=2, batch_size=8))
    assert fixed.pace(20).rate == 8 / 20
    assert fixed.pace(1234).rate == 8 / 1200
    assert fixed.pace(1234).steps == 1
    assert epochs.pace(20).steps == 2 * 3
    assert epochs.pace(1234).steps == 2 * 150
    everything = work(sgd=LocalSGD(client_lr=1.0, local_epochs=2))
    assert (everything.pace(33).rate, everything.pace(33).steps) == (1.0, 2)
    assert everything.pace(33).event == SelfComposed(Gaussian(1e-5), 2)


def test_how_many_are_drawn_is_what_is_counted():
    of = work(sgd=LocalSGD(client_lr=1.0, local_steps=2_000, batch_size=8))
    drawn = sum(len(batch) for batch in of.batches(1234, context(1234)))
    rate, n = of.pace(1234).rate, 1234 * 2_000
    assert stats.binomtest(drawn, n, rate).pvalue > 1e-4
    assert stats.binomtest(drawn, n, rate * 1.1).pvalue < 1e-4, "the test has no power"


@pytest.mark.parametrize("examples", [19, 0])
def test_too_few_examples_are_refused_without_a_number(examples):
    with pytest.raises(HansaError, match="fewer than the 20 training examples") as caught:
        work().pace(examples)
    assert "19" not in str(caught.value)


def test_a_delta_that_promises_nothing_to_so_many_is_refused():
    assert work(delta=1e-3).pace(999).steps == 1
    with pytest.raises(HansaError, match=r"delta of 0\.001 is not below one") as caught:
        work(delta=1e-3).pace(1000)
    assert "1000" not in str(caught.value)


@pytest.mark.parametrize(
    "sgd",
    [
        LocalSGD(client_lr=1.0, local_steps=5, batch_size=8),
        LocalSGD(client_lr=1.0, local_epochs=2, batch_size=8),
    ],
)
@pytest.mark.parametrize("examples", [21, 64, 250, 1999, 9_999])
def test_every_client_keeps_the_promise_with_noise_of_its_own(sgd, examples):
    """Counted by Opacus, whose accountants are not ours: at most epsilon, and not far below it."""
    promise = Promise(epsilon=4.0, delta=1e-5, updates=10)
    pace = work(sgd=sgd, noise_multiplier=1.0, delta=1e-5, promise=promise).pace(examples)
    assert exactly(pace, 10, 1e-5) == pytest.approx(4.0, rel=0.01)
    assert epsilon(repeat(pace.event, 10), 1e-5, "pld", RELATION) <= 4.0


def exactly(pace: Pace, updates: int, delta: float) -> float:
    """Epsilon by numerical composition of privacy random variables (Gopi et al., NeurIPS 2021)."""
    accountant = PRVAccountant()
    accountant.history = [(pace.noise, pace.rate, pace.steps * updates)]
    return float(accountant.get_epsilon(delta))


def test_the_published_run_costs_what_is_published():
    """Opacus' own test: q = 0.04, z = 1.5, 2,250 steps, delta 1e-5 give 7.32911117 by RDP."""
    sgd = LocalSGD(client_lr=1.0, local_steps=45, batch_size=40)
    of = work(sgd=sgd, noise_multiplier=1.5, examples=1000)
    assert of.reveals == SelfComposed(PoissonSampled(0.04, Gaussian(1.5)), 45)
    whole = repeat(of.reveals, 50)
    assert epsilon(whole, 1e-5, "rdp", RELATION) == pytest.approx(7.32911117, abs=1e-3)
    assert epsilon(whole, 1e-5, "pld", RELATION) == pytest.approx(6.7773957, abs=1e-2)


def test_the_smallest_client_uses_the_noise_of_the_plan():
    promise = Promise(epsilon=4.0, delta=1e-5, updates=10)
    of = work(noise_multiplier=3.21, promise=promise)
    assert of.pace(20).noise == 3.21
    assert of.pace(20).event == of.reveals
    assert of.pace(200).noise < 3.21
    assert work(noise_multiplier=3.21).pace(200).noise == 3.21
    everything = work(noise_multiplier=3.21, promise=promise, sgd=LocalSGD(client_lr=1.0))
    assert everything.pace(200).noise == 3.21, "who is always drawn needs the same noise"
