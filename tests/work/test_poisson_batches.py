"""Batches that each example joins by itself, with exactly the stated probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from hansa.core.keys import Noise, NoiseSource, ReplayKey, SecretNoise, Words
from hansa.errors import HansaError
from hansa.work.poisson import poisson_batches

EXAMPLES, STEPS, RATE = 40, 20_000, 0.3
KEY = ReplayKey.of_seed(7)
SURE = 1e-9
"""Probability below which a hypothesis is rejected; what is accepted is far above."""


def joined(rate: float, noise: Noise = KEY, steps: int = STEPS) -> NDArray[np.bool_]:
    """(steps, examples) whether each example is in each batch."""
    table = np.zeros((steps, EXAMPLES), np.bool_)
    for step, index in enumerate(poisson_batches(EXAMPLES, rate, steps, noise)):
        table[step, index] = True
    return table


def of_sizes(table: NDArray[np.bool_], rate: float) -> float:
    """Chi-square test of the batches' sizes against Binomial(n, rate); rare sizes are pooled."""
    expected = stats.binom.pmf(np.arange(EXAMPLES + 1), EXAMPLES, rate) * len(table)
    found = np.bincount(table.sum(axis=1), minlength=EXAMPLES + 1)
    often = expected >= 5
    pooled = [np.append(x[often], x[~often].sum()) for x in (found, expected)]
    return float(stats.chisquare(*pooled).pvalue)


def of_each(table: NDArray[np.bool_], rate: float) -> float:
    """Chi-square test of how often each single example is drawn."""
    found, mean = table.sum(axis=0), len(table) * rate
    statistic = ((found - mean) ** 2 / (mean * (1 - rate))).sum()
    return float(stats.chi2.sf(statistic, EXAMPLES))


def of_pairs(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Chi-square test of the independence of two draws, pair by pair."""
    pairs = np.bincount((2 * one + other).ravel(), minlength=4).reshape(2, 2)
    return float(stats.chi2_contingency(pairs).pvalue)


@pytest.mark.parametrize("noise", [KEY, SecretNoise(b"k" * 32)], ids=["key", "secret"])
def test_each_example_is_drawn_by_itself(noise: Noise):
    table = joined(RATE, noise)
    assert of_sizes(table, RATE) > 1e-3
    assert of_each(table, RATE) > 1e-3
    assert of_pairs(table[:-1], table[1:]) > 1e-3  # from step to step
    assert of_pairs(table[:, :-1], table[:, 1:]) > 1e-3  # from example to example


def test_a_rate_that_is_off_by_a_twentieth_is_rejected():
    for wrong in (RATE * 1.05, RATE * 0.95):
        table = joined(wrong)
        assert of_sizes(table, RATE) < SURE
        assert of_each(table, RATE) < SURE


def test_batches_of_one_size_and_batches_that_repeat_are_rejected():
    rng = np.random.default_rng(1)
    fixed = np.tile(np.arange(EXAMPLES) < EXAMPLES * RATE, (STEPS, 1))
    fixed = rng.permuted(fixed, axis=1)  # what shuffling would do
    assert of_each(fixed, RATE) > 1e-3
    assert of_sizes(fixed, RATE) < SURE
    repeats = np.repeat(joined(RATE)[: STEPS // 2], 2, axis=0)
    assert of_pairs(repeats[:-1], repeats[1:]) < SURE
    halves = np.repeat(joined(RATE)[:, : EXAMPLES // 2], 2, axis=1)
    assert of_pairs(halves[:, :-1], halves[:, 1:]) < SURE


@dataclass(frozen=True)
class Chosen:
    """Noise whose every word is the same."""

    word: int
    replayable: bool = True

    def normal(self, size: int) -> NDArray[np.float64]:
        raise AssertionError("nobody asks")

    def words(self, *path: str | int) -> Words:
        return lambda size: np.full(size, self.word, np.uint64)


@pytest.mark.parametrize(
    "rate", [0.5, 0.1, 1 / 3, 1e-9, 2.0**-64, 2.0**-65, math.nextafter(1, 0), 1.0]
)
def test_the_probability_is_exact(rate: float):
    """Of the 2**64 words exactly floor(rate * 2**64) draw an example: all those below it."""
    below = math.floor(Fraction(rate) * 2**64)
    for word in (0, below - 1, below, 2**64 - 1):
        if 0 <= word < 2**64:
            [batch] = poisson_batches(3, rate, 1, Chosen(word))
            assert len(batch) == (3 if word < below else 0)


def test_a_rate_of_one_takes_all():
    for batch in poisson_batches(EXAMPLES, 1.0, 5, NoiseSource()):
        np.testing.assert_array_equal(batch, np.arange(EXAMPLES))


def test_positions_are_in_order_and_fit_many_examples():
    many = 200_000  # more than one block of words
    batches = list(poisson_batches(many, 0.01, 3, KEY))
    assert len(batches) == 3
    for batch in batches:
        assert batch.dtype == np.intp
        assert (np.diff(batch) > 0).all()
        assert batch[0] >= 0
        assert batch[-1] < many
        thirds = np.histogram(batch, bins=4, range=(0, many))[0]
        assert stats.chisquare(thirds).pvalue > 1e-3
        assert abs(len(batch) - many * 0.01) < 5 * math.sqrt(many * 0.01)


def test_there_may_be_nobody():
    assert [len(batch) for batch in poisson_batches(0, 0.5, 3, KEY)] == [0, 0, 0]
    assert [len(batch) for batch in poisson_batches(0, 1.0, 2, KEY)] == [0, 0]
    assert list(poisson_batches(5, 0.5, 0, KEY)) == []
    empty = [batch for batch in poisson_batches(3, 0.01, 50, KEY) if not len(batch)]
    assert empty
    assert empty[0].dtype == np.intp


@pytest.mark.parametrize("make", [lambda: ReplayKey.of_seed(3), lambda: SecretNoise(b"s" * 32)])
def test_the_same_key_gives_the_same_batches(make: Callable[[], Noise]):
    one, other = joined(RATE, make(), 50), joined(RATE, make(), 50)
    np.testing.assert_array_equal(one, other)
    assert (one != joined(RATE, KEY, 50)).any()


def test_a_sites_own_noise_never_repeats():
    noise = NoiseSource()
    assert (joined(RATE, noise, 50) != joined(RATE, noise, 50)).any()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0000001, math.nan, math.inf])
def test_other_rates_are_refused_at_once(rate: float):
    with pytest.raises(HansaError, match="cannot be drawn with probability"):
        poisson_batches(5, rate, 1, KEY)
