"""Second opinions against dp-accounting, and against mechanisms whose epsilon is known."""

from __future__ import annotations

import dp_accounting
import numpy as np
import pytest

from hansa.privacy.audits import opinions
from hansa.privacy.audits.one_run import Coins, Floats

RNG = np.random.default_rng(3)


def scores(mu: float, count: int = 20_000) -> tuple[Floats, Coins]:
    coins = RNG.integers(0, 2, count).astype(bool)
    return mu * (coins - 0.5) + RNG.standard_normal(count), coins


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
def test_epsilon_of_mu_is_that_of_dp_accounting(mu, delta):
    assert opinions.epsilon_of_mu(mu, delta) == pytest.approx(
        dp_accounting.get_epsilon_gaussian(1 / mu, delta), rel=1e-5
    )


def test_epsilon_of_mu_at_its_ends():
    assert opinions.epsilon_of_mu(0.0, 1e-5) == 0.0
    assert opinions.epsilon_of_mu(1e-7, 1e-5) == 0.0
    assert opinions.epsilon_of_mu(101.0, 1e-5) == np.inf


def test_gaussian_dp_is_close_below_the_truth_and_sees_half_the_noise():
    truth = opinions.epsilon_of_mu(1.0, 1e-5)
    assert 0.6 * truth < opinions.gaussian_dp(*scores(1.0), 1e-5) < truth
    assert opinions.gaussian_dp(*scores(2.0), 1e-5) > truth


def test_two_gaussians_estimate_the_truth():
    assert opinions.two_gaussians(*scores(1.0), 1e-5) == pytest.approx(
        opinions.epsilon_of_mu(1.0, 1e-5), rel=0.1
    )
    assert opinions.two_gaussians(*scores(-1.0), 1e-5) == 0.0


def test_clopper_pearson_of_randomised_response():
    """Rates e^epsilon apart: with 100,000 answers the bound is just below epsilon."""
    epsilon, count = 1.0, 100_000
    coins = RNG.integers(0, 2, count).astype(bool)
    told = np.where(RNG.random(count) < np.e / (1 + np.e), coins, ~coins)
    found = opinions.clopper_pearson(np.where(told, 1.0, -1.0), coins, 0.0)
    assert 0.95 * epsilon < found < epsilon


def test_nothing_seen_is_nothing_shown():
    coins = np.array([True, False] * 50)
    for opinion in (opinions.clopper_pearson, opinions.gaussian_dp):
        assert opinion(-np.ones(100), coins, 1e-5) == 0.0
        assert opinion(np.ones(100), coins, 1e-5) == 0.0
