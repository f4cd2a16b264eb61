"""Samplers: numbers beyond the laws that all of them keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hansa.core.events import (
    Composed,
    Gaussian,
    Laplace,
    NonPrivate,
    PoissonSampled,
    SampledWithoutReplacement,
    SelfComposed,
    TruncatedSubsampledGaussian,
)
from hansa.core.keys import ReplayKey
from hansa.core.parts import Relation
from hansa.errors import PlanError
from hansa.privacy import epsilon
from hansa.samplers import Everyone, FixedSize, Poisson

KEY = ReplayKey.of_seed(11)
NAMES = [f"c{i:04d}" for i in range(1000)]


def sizes(sampler, draws: int = 600) -> np.ndarray:
    names = NAMES[: sampler.population]
    return np.array([len(sampler.draw(names, KEY.derive(i))) for i in range(draws)])


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_poisson_cohorts_have_binomial_sizes(rate):
    """A rate that is 3 % off is seen, and so is a fixed size with the right mean."""
    found = sizes(Poisson(rate, 1000))

    def far(p: float, observed: np.ndarray) -> bool:
        error = abs(observed.sum() - len(observed) * 1000 * p)
        return bool(error > 5 * math.sqrt(len(observed) * 1000 * p * (1 - p)))

    assert not far(rate, found)
    assert far(rate * 1.05, found), "the test has no power"
    assert far(rate * 0.95, found), "the test has no power"
    variance = found.var() / (1000 * rate * (1 - rate))
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], len(found)) / len(found)
    assert low < variance < high


def test_poisson_draws_of_two_clients_are_independent():
    names = NAMES[:50]
    drawn = np.zeros((3000, 50))
    for i in range(3000):
        for name in Poisson(0.3, 50).draw(names, KEY.derive(i)):
            drawn[i, int(name[1:])] = 1
    correlations = np.asarray(np.corrcoef(drawn.T))[np.triu_indices(50, 1)]
    assert np.abs(correlations).max() < 6 / math.sqrt(3000)


def test_a_rate_of_one_draws_everyone():
    assert Poisson(1.0, 1000).draw(NAMES, KEY) == tuple(NAMES)


def test_a_draw_above_the_limit_is_cut_to_a_random_subset():
    sampler = Poisson(0.5, 1000, limit=10)  # far below what `check` allows, to see it cut
    found = [sampler.draw(NAMES, KEY.derive(i)) for i in range(500)]
    assert {len(cohort) for cohort in found} == {10}
    counts = np.bincount([int(n[1:]) for c in found for n in c], minlength=1000)
    assert stats.chisquare(counts).pvalue > 1e-6
    assert counts[:500].sum() > 0.4 * counts.sum(), "not the first ones"


@pytest.mark.parametrize(("population", "rate"), [(10_000, 0.01), (1000, 0.1), (500, 0.5)])
def test_the_least_limit_is_five_deviations_above_the_mean(population, rate):
    least = math.ceil(population * rate + 5 * math.sqrt(population * rate))
    Poisson(rate, population, least).check()
    with pytest.raises(PlanError, match="too often") as caught:
        Poisson(rate, population, least - 1).check()
    assert f"at least {least}" in caught.value.fix


def test_a_limit_of_everyone_is_no_limit():
    sampler = Poisson(0.9, 20, limit=20)
    sampler.check()
    assert sampler.cap == 20
    assert sampler.amplify(Gaussian(1.0)) == PoissonSampled(0.9, Gaussian(1.0))


def test_the_least_limit_costs_next_to_nothing():
    """10,000 clients, q = 0.01, z = 1, T = 1000: 1.8282 without a limit, 3.684 with 130."""
    event = Poisson(0.01, 10_000, 150).amplify(Gaussian(1.0))
    assert epsilon(SelfComposed(event, 1000), 1e-5) == pytest.approx(1.8305, abs=1e-3)


@pytest.mark.parametrize(
    ("sampler", "event", "amplified"),
    [
        (Everyone(9), Gaussian(1.0), Gaussian(1.0)),
        (Poisson(0.1, 90), Gaussian(1.0), PoissonSampled(0.1, Gaussian(1.0))),
        (Poisson(0.1, 90), Laplace(1.0), PoissonSampled(0.1, Laplace(1.0))),
        (
            Poisson(0.1, 90, 30),
            Gaussian(1.0),
            TruncatedSubsampledGaussian(90, 0.1, 30, 1.0),
        ),
        (
            Poisson(0.1, 90, 30),
            Composed((Gaussian(1.0), Gaussian(1.0))),
            TruncatedSubsampledGaussian(90, 0.1, 30, 2**-0.5),
        ),
        (FixedSize(9, 90), Gaussian(1.0), SampledWithoutReplacement(90, 9, Gaussian(1.0))),
        (FixedSize(9, 90, 1.3), NonPrivate(), NonPrivate()),
    ],
)
def test_amplification_names_what_was_done(sampler, event, amplified):
    found = sampler.amplify(event)
    if isinstance(found, TruncatedSubsampledGaussian):
        assert found.noise_multiplier == pytest.approx(amplified.noise_multiplier)
        found = TruncatedSubsampledGaussian(90, 0.1, 30, amplified.noise_multiplier)
    assert found == amplified


def test_a_cut_draw_of_anything_but_gaussians_is_refused():
    with pytest.raises(PlanError, match="no amplification is known for Laplace"):
        Poisson(0.1, 90, 30).amplify(Laplace(1.0))


@pytest.mark.parametrize(
    ("sampler", "expected", "cap", "relation"),
    [
        (Everyone(9), 9, 9, Relation.ADD_OR_REMOVE_ONE),
        (Poisson(0.1, 90), 9, 90, Relation.ADD_OR_REMOVE_ONE),
        (Poisson(0.1, 90, 30), 9, 30, Relation.ADD_OR_REMOVE_ONE),
        (FixedSize(9, 90), 9, 9, Relation.REPLACE_ONE),
        (FixedSize(9, 90, 1.3), 9, 12, Relation.REPLACE_ONE),
        (FixedSize(80, 90, 1.3), 80, 90, Relation.REPLACE_ONE),
    ],
)
def test_numbers(sampler, expected, cap, relation):
    sampler.check()
    assert sampler.expected == pytest.approx(expected)
    assert sampler.cap == cap
    assert sampler.relation is relation


def test_a_fixed_size_is_fixed():
    assert set(sizes(FixedSize(37, 1000))) == {37}
    assert set(sizes(FixedSize(37, 1000, 1.5))) == {56}


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (Everyone(1234), "none, all 1,234 clients take part"),
        (Poisson(0.1, 1000), "each of 1,000 clients takes part independently with probability 0.1"),
        (Poisson(0.1, 1000, 200), "at most 200"),
        (FixedSize(10, 1000), "without replacement, 10 of 1,000 clients"),
        (FixedSize(10, 1000, 1.5), "15 are asked and the slowest left out"),
    ],
)
def test_sampling_in_words(sampler, words):
    assert words in str(sampler)
