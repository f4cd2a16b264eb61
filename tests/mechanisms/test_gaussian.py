"""The central Gaussian mechanism: sensitivities, the grid, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from hansa.core.events import Gaussian, NonPrivate, NoOp
from hansa.core.keys import NoiseSource, ReplayKey, Words
from hansa.core.parts import Relation
from hansa.core.spec import Divisor
from hansa.errors import PlanError
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.mechanisms.none import NoNoise
from tests.laws.mechanisms import spec

KEY = ReplayKey.of_seed(0)
ONE = CentralGaussian(1.5, 0.7)


class Still:
    """No noise at all: shows what the grid does to the sum."""

    replayable = True

    def normal(self, size: int) -> np.ndarray:
        return np.zeros(size)

    def words(self, *path: str | int) -> Words:
        return lambda size: np.zeros(size, np.uint64)


@pytest.mark.parametrize(
    ("segment", "size", "event", "released"),
    [
        ("delta", 5, Gaussian(1.5), True),
        ("metrics", 5, Gaussian(0.7), True),
        ("metrics", 0, NoOp(), False),
        ("weight", 1, NoOp(), False),
    ],
)
def test_the_table(segment, size, event, released):
    facts = spec(segment, size=size)
    assert ONE.infer(facts) == event
    assert ONE.releases(facts) is released


@pytest.mark.parametrize(
    ("mechanism", "facts", "because"),
    [
        (ONE, spec(l2=math.inf), "the delta arbitrarily far"),
        (ONE, spec("metrics", l2=math.inf), "the metrics arbitrarily far"),
        (ONE, spec(l2=0.0), "arbitrarily far"),
        (ONE, spec(divisor=Divisor.REALISED), "realised count"),
        (CentralGaussian(0.0), spec(), "protects nobody"),
        (CentralGaussian(-1.0), spec(), "protects nobody"),
        (CentralGaussian(math.nan), spec(), "protects nobody"),
        (CentralGaussian(math.inf), spec(), "protects nobody"),
        (CentralGaussian(1.0, 0.0), spec("metrics"), "protects nobody"),
    ],
)
def test_what_cannot_be_released_is_refused(mechanism, facts, because):
    with pytest.raises(PlanError, match=because) as caught:
        mechanism.infer(facts)
    assert caught.value.fix


def test_metric_sums_may_be_divided_by_each_other():
    """Their divisor is a noisy sum itself: post-processing."""
    assert ONE.infer(spec("metrics", divisor=Divisor.REALISED)) == Gaussian(0.7)


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("l2", [1e-6, 0.5, 3.0, 1e6])
@pytest.mark.parametrize("cohort", [1, 1000])
def test_the_scale_covers_the_sensitivity_and_the_grid(relation, l2, cohort):
    mechanism = CentralGaussian(1.5, relation=relation)
    facts = spec(l2=l2, peak=l2, cohort=cohort)
    sigma, grid = mechanism.scale(facts)
    neighbours = 2 if relation is Relation.REPLACE_ONE else 1
    sensitivity = Fraction(neighbours) * Fraction(l2) + 2 * Fraction(grid) * math.isqrt(facts.size)
    assert Fraction(sigma) >= Fraction(1.5) * sensitivity * (1 - Fraction(1, 10**12))
    assert sigma == pytest.approx(1.5 * neighbours * l2, rel=1e-5), "which costs next to nothing"
    assert math.log2(grid).is_integer()
    assert grid <= sigma * 2**-20


@pytest.mark.parametrize("noise", [KEY, NoiseSource()], ids=["key", "fresh"])
@pytest.mark.parametrize("quantum", [2.0**-57, 1e-3])
def test_what_is_released_lies_on_the_grid(noise, quantum):
    """In exact arithmetic: no low bits of the sum or of the noise can leak."""
    facts = spec(quantum=quantum, size=3000)
    _, grid = ONE.scale(facts)
    rng = np.random.default_rng(0)
    total = rng.integers(-(2**40), 2**40, 3000) * quantum * 2.0**-34
    for value in ONE.apply(total, facts, noise)[:300]:
        assert (Fraction(float(value)) / Fraction(grid)).denominator == 1


def test_the_sum_itself_moves_by_at_most_half_a_step():
    facts = spec(size=1000)
    _, grid = ONE.scale(facts)
    total = np.random.default_rng(1).standard_normal(1000)
    moved = ONE.apply(total.copy(), facts, Still())
    assert np.abs(moved - total).max() <= grid / 2


def test_two_sums_within_a_step_can_not_be_told_apart_by_low_bits():
    """The attack that the grid is there for: with the same noise the outputs are the same."""
    facts = spec(size=1000)
    _, grid = ONE.scale(facts)
    base = np.round(np.random.default_rng(1).standard_normal(1000) / grid) * grid
    one = ONE.apply(base + 0.1 * grid, facts, KEY)
    other = ONE.apply(base - 0.2 * grid, facts, KEY)
    assert (one == other).all()


@pytest.mark.parametrize("noise", [KEY, NoiseSource()], ids=["key", "fresh"])
def test_the_noise_is_normal(noise):
    facts = spec(size=100_000)
    drawn = ONE.apply(np.zeros(100_000), facts, noise) / (1.5 * 3.0)
    assert stats.kstest(drawn, "norm").pvalue > 1e-6
    assert stats.kstest(drawn * 0.95, "norm").pvalue < 1e-6, "the test has no power"


def test_blocks_do_not_repeat_the_noise():
    facts = spec(size=200_000)
    drawn = ONE.apply(np.zeros(200_000), facts, KEY)
    assert len(np.unique(drawn)) > 199_000


def test_a_replaced_client_moves_the_sum_twice_as_far():
    add = CentralGaussian(1.0).scale(spec())[0]
    replaced = CentralGaussian(1.0, relation=Relation.REPLACE_ONE).scale(spec())[0]
    assert replaced == pytest.approx(2 * add, rel=1e-6)


def test_the_sum_is_worked_on_in_place():
    total = np.zeros(1000)
    assert ONE.apply(total, spec(size=1000), KEY) is total


def test_a_cohort_of_millions_stays_exact():
    facts = spec(cohort=2**31, size=100)
    _, grid = ONE.scale(facts)
    reach = facts.cohort * facts.l2 + 64 * 1.5 * 3.0
    assert reach / grid < 2**53
    assert ONE.infer(replace(facts, quorum=2)) == Gaussian(1.5)


def test_no_noise_promises_nothing():
    assert NoNoise().infer(spec()) == NonPrivate()
    assert NoNoise().releases(spec("weight"))
    assert "without noise" in str(NoNoise())
