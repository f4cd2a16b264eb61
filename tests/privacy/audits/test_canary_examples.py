"""Canary examples: the attack by itself on a hand-made DP-SGD, and through a job's own plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant

from hansa.core.job import Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Site
from hansa.errors import HansaError
from hansa.privacy.audits.example_runs import canary_examples
from hansa.privacy.audits.examples import canary_rows, canary_scores, pulls
from hansa.privacy.audits.one_run import Bound, bound
from hansa.work.sgd import FullGradient
from tests.privacy.audits import wide_jobs as jobs
from tests.privacy.audits.hand_made_dpsgd import HandMade

KEY = ReplayKey.of_seed(5)
DELTA = 1e-5
STEPS = 10


def rows() -> Examples:
    return jobs.planned(jobs.plain())[1].data(Site("client-0001", {})).train


def attacked(train: HandMade, count: int = 1000) -> Bound:
    found = canary_scores(train, rows(), count, KEY)
    return bound(found.scores, found.coins, DELTA)


def claim(rate: float, noise: float) -> float:
    """Of DP-SGD, by dp-accounting."""
    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    return float(
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, STEPS)).get_epsilon(DELTA)
    )


# ------------------------------------------------------------------ by itself


@pytest.mark.parametrize(("rate", "noise"), [(0.5, 4.0), (1.0, 6.0)])
def test_dp_sgd_shows_no_more_than_it_claims(rate, noise):
    """The bound of one run is a small part of the claim: about a third here."""
    claimed = claim(rate, noise)
    assert 0.08 * claimed < attacked(HandMade(rate, noise, STEPS), 2000).epsilon < claimed


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_without_noise_dp_sgd_shows_more_than_5(rate):
    assert attacked(HandMade(rate, 0.0, STEPS), 5000).epsilon > 5


@pytest.mark.parametrize(
    ("fault", "rate", "noise"), [("noise", 0.5, 6.0), ("clip", 0.5, 6.0), ("sampling", 0.1, 3.0)]
)
def test_what_breaks_the_claim_is_found(fault, rate, noise):
    """A quarter of the noise; gradients as long as they are; every example in every step."""
    broken = HandMade(rate, noise, STEPS, broken=fault)
    assert attacked(broken, 2000).epsilon > claim(rate, noise)


def test_coins_are_fair_and_independent_and_canaries_are_new_in_each_run():
    seen: list[tuple[Examples, np.ndarray]] = []

    def train(canaries, inside):
        seen.append((canaries, inside))
        return np.where(inside, 1.0, -1.0)

    found = canary_scores(train, rows(), 4000, KEY, at_once=8)
    assert [len(inside) for _, inside in seen] == [8] * 500
    np.testing.assert_array_equal(found.scores > 0, found.coins)
    coins = np.stack([inside for _, inside in seen]).astype(float)
    assert abs(coins.mean() - 0.5) < 4 * 0.5 / np.sqrt(coins.size)
    counts = coins.sum(axis=1)  # of independent coins: binomial
    assert counts.var() == pytest.approx(8 / 4, rel=4 * np.sqrt(2 / 500))
    bits = {canaries.inputs.tobytes() for canaries, _ in seen}
    assert len(bits) == 500
    again = canary_scores(train, rows(), 40, KEY, at_once=8)
    np.testing.assert_array_equal(again.coins, found.coins[:40])


def test_the_last_run_has_the_rest():
    sizes = []

    def train(canaries, inside):
        sizes.append(len(canaries))
        return np.zeros(len(inside))

    assert len(canary_scores(train, rows(), 70, KEY).coins) == 70
    assert sizes == [32, 32, 6]


@pytest.mark.parametrize("bad", [lambda n: np.zeros(n + 1), lambda n: np.full(n, np.nan)])
def test_scores_that_are_none_are_refused(bad):
    with pytest.raises(HansaError, match="gave scores"):
        canary_scores(lambda canaries, inside: bad(len(inside)), rows(), 10, KEY)


def test_a_train_cannot_change_the_coins():
    def train(canaries, inside):
        inside[:] = True
        return np.ones(len(inside))

    found = canary_scores(train, rows(), 320, KEY)
    assert 100 < found.coins.sum() < 220


def test_pulls_tell_directions_apart_that_are_nearly_one():
    rng = np.random.default_rng(0)
    common = rng.standard_normal(200)
    directions = common + 0.5 * rng.standard_normal((6, 200))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert (directions @ directions.T).min() > 0.7
    lengths = np.array([1.0, 0.0, 2.0, 0.0, -1.0, 0.5])
    np.testing.assert_allclose(pulls(directions, -(lengths @ directions)), lengths, atol=0.03)


# ------------------------------------------------------------------ through a plan


@dataclass(frozen=True, slots=True)
class NoisyGradient(FullGradient):
    """The sum of examples' gradients, each cut to norm 1, with noise: the Gaussian mechanism."""

    noise: float = 0.0

    def batches(self, examples, ctx):
        for place in range(examples):
            yield np.array([place])

    def step(self, state, batch, ctx):
        slope = ctx.model.gradient(state.shared, batch)[1]
        state.gradient += slope / max(1.0, float(np.linalg.norm(slope)))
        state.examples += 1
        return state

    def finish(self, shared, state):
        rng = np.random.default_rng()
        return -state.gradient - self.noise * rng.standard_normal(len(shared)), 0.0


def shown(noise: float, count: int = 1000) -> float:
    plan, task = jobs.planned(jobs.plain(rounds=Rounds(count=1)))
    algorithm = replace(plan.parts.algorithm, work=NoisyGradient(noise=noise))
    plan = replace(plan, parts=replace(plan.parts, algorithm=algorithm))
    found = canary_examples(plan, task, count, KEY)
    return bound(found.scores, found.coins, DELTA).epsilon


def test_without_noise_every_canary_is_found_and_with_noise_not():
    assert shown(0.0) > 5
    assert shown(5.0) < 1.3  # epsilon of this Gaussian mechanism at delta 1e-5 is 0.73


@pytest.mark.parametrize("kind", ["foreign", "mislabelled"])
def test_canaries_are_rows_that_nobody_has(kind):
    _, task = jobs.planned(jobs.plain())
    rows = task.data(Site("client-0001", {})).train
    made = canary_rows(rows, 50, kind, KEY)
    assert len(made) == 50
    assert made.inputs.dtype == rows.inputs.dtype
    assert set(made.targets) <= set(rows.targets)
    known = {(x.tobytes(), int(y)) for x, y in zip(rows.inputs, rows.targets, strict=True)}
    assert not any(
        (x.tobytes(), int(y)) in known for x, y in zip(made.inputs, made.targets, strict=True)
    )


def test_ordinary_client_work_shows_its_examples_too():
    plan, task = jobs.planned(jobs.job(rounds=Rounds(count=1)))
    found = canary_examples(plan, task, 300, KEY, kind="mislabelled")
    assert bound(found.scores, found.coins, DELTA).epsilon > 1
