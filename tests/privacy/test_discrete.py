"""The discrete Gaussian sampler, against its exact distribution."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from hansa.core.keys import NoiseSource, ReplayKey, Words
from hansa.errors import HansaError
from hansa.privacy.discrete import (
    _accept,
    _acceptance,
    _cells,
    _exactly,
    _table,
    discrete_gaussian,
)

KEY = ReplayKey.of_seed(5)
SIGMAS = [0.5, 1.0, 8.0, 1000.0]
SAMPLES = 200_000


def pmf(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Integers and their probabilities, by the definition."""
    reach = math.ceil(40 * sigma)
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x.astype(np.float64) ** 2) / (2 * sigma**2))
    return x, weight / weight.sum()


def chi_square(samples: np.ndarray, sigma: float) -> float:
    """p-value against the exact distribution, in bins of at least 1,000 expected samples."""
    x, probability = pmf(sigma)
    found = np.bincount(samples - x[0], minlength=len(x))
    bins, expected, counted = [], 0.0, 0
    for p, f in zip(probability * len(samples), found, strict=True):
        expected, counted = expected + p, counted + int(f)
        if expected >= 1000:
            bins.append((counted, expected))
            expected, counted = 0.0, 0
    bins[-1] = (bins[-1][0] + counted, bins[-1][1] + expected)
    counts, means = np.array(bins).T
    return float(stats.chisquare(counts, means * counts.sum() / means.sum()).pvalue)


@pytest.mark.parametrize("noise", [KEY, NoiseSource()], ids=["key", "fresh"])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_distribution_is_exact_and_a_wrong_sigma_is_seen(noise, sigma):
    samples = discrete_gaussian(SAMPLES, sigma, noise.words("chi"))
    assert samples.dtype == np.int64
    assert chi_square(samples, sigma) > 1e-6
    assert chi_square(samples, 1.03 * sigma) < 1e-6, "the test has no power"
    assert chi_square(samples, 0.97 * sigma) < 1e-6, "the test has no power"


@pytest.mark.parametrize("sigma", [*SIGMAS, 15.99, 16.0, 123_456.7, 2.0**33 + 0.3])
def test_mean_and_variance(sigma):
    samples = discrete_gaussian(SAMPLES, sigma, KEY.words("moments")).astype(np.float64)
    x, probability = pmf(sigma) if sigma <= 1000 else (np.array([1.0]), np.array([sigma**2]))
    variance = float(probability @ x.astype(np.float64) ** 2)
    fourth = 3 * variance**2 if sigma >= 1 else float(probability @ x.astype(np.float64) ** 4)
    assert abs(samples.mean()) < 5 * math.sqrt(variance / SAMPLES)
    assert abs(samples.var() - variance) < 5 * math.sqrt((fourth - variance**2) / SAMPLES)
    assert variance <= sigma**2 * (1 + 1e-12)


def test_zero_is_not_counted_twice():
    samples = discrete_gaussian(SAMPLES, 1.0, KEY.words("zero"))
    x, probability = pmf(1.0)
    expected = probability[x == 0][0]
    assert (samples == 0).mean() == pytest.approx(expected, abs=5 * math.sqrt(0.24 / SAMPLES))


@pytest.mark.parametrize("size", [0, 1, 32_767, 32_769, 100_000])
def test_there_are_as_many_as_asked_for(size):
    assert discrete_gaussian(size, 3.0, KEY.words("size")).shape == (size,)


def test_blocks_do_not_repeat_each_other():
    samples = discrete_gaussian(100_000, 2.0**35, KEY.words("blocks"))
    assert len(np.unique(samples)) > 99_990
    assert abs(np.corrcoef(samples[:32_768], samples[32_768:65_536])[0, 1]) < 5 / math.sqrt(32_768)


@pytest.mark.parametrize("noise", [KEY, NoiseSource()], ids=["key", "fresh"])
@pytest.mark.parametrize("sigma", [1.0, 8.0, 1000.0])
def test_no_bits_are_used_twice(sigma, noise):
    """Neighbours do not tell of each other: neither their values nor their sizes."""
    samples = discrete_gaussian(SAMPLES, sigma, noise.words("pairs")).astype(np.float64)
    for values in (samples, np.abs(samples)):
        for apart in (1, 2):
            found = np.corrcoef(values[:-apart], values[apart:])[0, 1]
            assert abs(found) < 6 / math.sqrt(SAMPLES)


def test_a_sigma_far_below_one_is_no_noise():
    assert not discrete_gaussian(10_000, 0.05, NoiseSource().words()).any()


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 2.0**41])
def test_what_is_no_sigma_is_refused(sigma):
    with pytest.raises(HansaError, match="cannot be drawn"):
        discrete_gaussian(3, sigma, KEY.words())


# ------------------------------------------------------------------ exactness


@pytest.mark.parametrize("sigma", [0.5, 3.0, 1000.0])
def test_the_table_is_right_to_240_bits(sigma):
    """Recomputed with rational bounds: exp(-x) by its own series in exact arithmetic."""
    table = _table(sigma)
    weights, k = [], 0
    while True:
        exponent = (table.width * k) ** 2 / table.twice_variance
        if exponent > 150:
            break
        weights.append(_exp_exactly(exponent))
        k += 1
    if table.width == 1:
        assert table.first <= 1 - len(weights), "all integers have their cell"
        rest = -table.first - len(weights) + 1
        weights = [*[Fraction(0)] * rest, *weights[:0:-1], *weights, *[Fraction(0)] * rest]
    total, below = sum(weights), Fraction(0)
    for k, weight in enumerate(weights[:-1]):
        below += weight
        assert abs(below / total - Fraction(table.cells[k], 2**256)) < Fraction(1, 2**200)


def _exp_exactly(exponent: Fraction) -> Fraction:
    """exp(-exponent) to about 2**-280: halve eight times, a Taylor series, square eight times."""
    small, term, total, n = -exponent / 256, Fraction(1), Fraction(0), 0
    while abs(term) > Fraction(1, 2**320):
        total += term
        n += 1
        term = Fraction(round(term * small / n * 2**340), 2**340)
    for _ in range(8):
        total = Fraction(round(total * total * 2**340), 2**340)
    return total


@pytest.mark.parametrize("sigma", [16.0, 1000.0, 2.0**39 + 12345.6])
def test_probabilities_in_float64_are_as_close_as_the_margin_needs(sigma):
    table = _table(sigma)
    rng = np.random.default_rng(0)
    offset = rng.integers(0, table.width, 300)
    cell = rng.integers(0, len(table.words), 300)
    for found, u, k in zip(_acceptance(offset, cell, table), offset, cell, strict=True):
        exact = Fraction(_exactly(int(u), int(k), table), 2**256)
        assert abs(Fraction(float(found)) - exact) < Fraction(1, 2**48)


def always(bit: int) -> Words:
    """Words of zeros, or of ones."""
    return lambda size: np.full(size, 2**64 - 1 if bit else 0, np.uint64)


@pytest.mark.parametrize("sigma", [1.0, 1000.0])
def test_a_word_on_the_boundary_of_a_cell_is_decided_by_more_bits(sigma):
    table, tried = _table(sigma), 0
    one = np.uint32(1)
    for k in range(1, len(table.words) - 1):
        before, word, after = (int(w) for w in table.words[k - 1 : k + 2])
        if not before + 1 < word < after - 1:
            continue  # in the tails several boundaries share their first 32 bits
        tried += 1
        at = table.words[k : k + 1].copy()
        assert _cells(at, table, always(0)).tolist() == [k - 1]
        assert _cells(at, table, always(1)).tolist() == [k]
        assert _cells(at - one, table, always(1)).tolist() == [k - 1]
        assert _cells(at + one, table, always(0)).tolist() == [k]
    assert tried > 10


def test_where_boundaries_share_their_bits_more_bits_find_the_cell():
    """Far out in a tail: the 32 known bits are all zeros, or all ones."""
    table = _table(2.0)
    assert table.cells[0] < 2**200
    lowest = _cells(np.zeros(1, np.uint32), table, always(0))[0]
    highest = _cells(np.full(1, 2**32 - 1, np.uint32), table, always(1))[0]
    assert lowest == 0
    assert highest == len(table.cells)
    assert table.first + highest == -table.first


def test_a_word_at_the_probability_itself_is_decided_by_more_bits():
    """The comparison cannot tell within 2**-32; the exact one must."""
    table = _table(1000.0)
    rng = np.random.default_rng(0)
    for u, k in zip(rng.integers(1, 125, 50), rng.integers(0, 40, 50), strict=True):
        exact = _exactly(int(u), int(k), table)
        word = exact >> 224

        def decided(of: int, bit: int, u: int = u, k: int = k) -> bool:
            sources = iter([np.array([of], np.uint64)])
            return bool(
                _accept(
                    np.array([u]), np.array([k]), table, lambda n: next(sources, always(bit)(n))
                )[0]
            )

        assert decided(word, 0)
        assert not decided(word, 1)
        assert decided(word - 1, 1)
        assert not decided(word + 1, 0)


# ------------------------------------------------------------------ freshness


def test_a_forked_process_draws_other_noise():
    code = """
import os, sys
from hansa.core.keys import NoiseSource
from hansa.privacy.discrete import discrete_gaussian
words = NoiseSource().words("noise")
discrete_gaussian(10, 1e6, words)
child = os.fork()
print(discrete_gaussian(4, 1e9, words).tolist(), flush=True)
if child:
    os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    one, other = done.stdout.splitlines()
    assert one != other


def test_fresh_noise_is_fresh_and_a_key_repeats():
    fresh = [discrete_gaussian(1000, 1e6, NoiseSource().words("a")) for _ in range(2)]
    assert (fresh[0] != fresh[1]).mean() > 0.99
    keyed = [discrete_gaussian(1000, 1e6, KEY.words("a")) for _ in range(2)]
    assert (keyed[0] == keyed[1]).all()
