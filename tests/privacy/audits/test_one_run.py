"""The one-run bound against published unit values, and its rules against counting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from hansa.errors import HansaError
from hansa.privacy.audits import one_run
from hansa.privacy.audits.one_run import Rule, Threshold, bound, epsilon_lower_bound, p_value

VALUES = [
    ((1000, 1000, 600, 1e-5), 0.2972),
    ((1000, 1000, 550, 1e-5), 0.0940),
    ((1000, 100, 100, 1e-5), 3.4654),
    ((1000, 100, 90, 1e-5), 1.6261),
    ((1000, 200, 160, 1e-5), 1.0850),
    ((100, 100, 100, 0.0), 3.4930),
    ((1000, 1000, 1000, 0.0), 5.8091),
    ((5000, 5000, 5000, 1e-5), 7.2839),
]


@pytest.mark.parametrize(("case", "expected"), VALUES)
def test_unit_values_at_95_percent(case, expected):
    assert epsilon_lower_bound(*case) == pytest.approx(expected, abs=1e-4)


def test_without_delta_it_is_the_tail_of_a_binomial():
    assert p_value(50, 40, 30, 1.0, 0.0) == pytest.approx(
        float(binom.sf(29, 40, np.e / (1 + np.e)))
    )


def test_delta_is_paid_for_as_the_theorem_says():
    """The maximum over i, one by one."""
    m, r, v, epsilon, delta = 300, 60, 50, 1.2, 1e-4
    q = np.exp(epsilon) / (1 + np.exp(epsilon))
    beta = binom.sf(v - 1, r, q)
    alpha = max((binom.sf(v - i - 1, r, q) - beta) / i for i in range(1, v + 1))
    assert p_value(m, r, v, epsilon, delta) == pytest.approx(beta + 2 * m * delta * alpha)


def test_coins_alone_show_nothing():
    assert epsilon_lower_bound(1000, 1000, 500, 1e-5) == 0.0
    assert epsilon_lower_bound(1000, 0, 0, 1e-5) == 0.0


@pytest.mark.parametrize(
    "case", [(10, 11, 5, 0.0), (10, 5, 6, 0.0), (10, 5, -1, 0.0), (10, 5, 5, 1.0)]
)
def test_what_cannot_be_is_refused(case):
    with pytest.raises(HansaError, match="cannot be"):
        epsilon_lower_bound(*case)


def test_a_rule_guesses_the_ends_and_abstains_between():
    scores = np.array([5.0, -3.0, 0.1, 4.0, -2.0, 0.2, 0.3, -9.0])
    coins = np.array([1, 0, 0, 0, 1, 1, 0, 0], bool)
    assert Rule(0.25, 0.25).guess(scores, coins) == (4, 3)  # in: 5 and 4; out: -9 and -3
    assert Rule(0.25, 0.0).guess(scores, coins) == (2, 1)
    assert Threshold().guess(scores, coins) == (8, 4)


def test_several_rules_share_the_confidence():
    rng = np.random.default_rng(1)
    coins = rng.integers(0, 2, 500).astype(bool)
    scores = 3.0 * coins + rng.standard_normal(500)
    found = bound(scores, coins, 1e-5)
    guesses, correct = found.guesses, found.correct
    each = 1 - 0.05 / len(one_run.RULES)
    assert found.epsilon == pytest.approx(
        epsilon_lower_bound(500, guesses, correct, 1e-5, each), abs=1e-5
    )
    assert found.epsilon < epsilon_lower_bound(500, guesses, correct, 1e-5)


def test_randomised_response_is_not_found_wanting():
    """The bound is valid: for a mechanism of exactly epsilon it errs in at most 5 % of the runs."""
    rng, epsilon, wrong = np.random.default_rng(0), 1.0, 0
    truth = np.exp(epsilon) / (1 + np.exp(epsilon))
    for _ in range(200):
        coins = rng.integers(0, 2, 400).astype(bool)
        told = np.where(rng.random(400) < truth, coins, ~coins)
        scores = np.where(told, 1.0, -1.0) + 1e-6 * rng.standard_normal(400)
        wrong += bound(scores, coins, 0.0).epsilon > epsilon
    assert wrong <= 16  # 200 runs at 5 %: 10, and two standard deviations
