"""Noise has the law that it claims: tests that accept the right scale and see one 5 % off.

The discrete Gaussian has its own page of tests, `test_discrete`; here it is asked the same as the
continuous one, at the same scales.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from hansa.core.keys import Noise, NoiseSource, ReplayKey, SecretNoise
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.privacy.discrete import discrete_gaussian
from tests.laws.mechanisms import spec

SCALES = [0.5, 1.0, 8.0, 1000.0]
SAMPLES = 50_000
SOURCES = [NoiseSource(), SecretNoise.fresh(), ReplayKey.of_seed(7)]
IDS = ["fresh", "secret", "key"]
ACCEPTED, REFUSED = 1e-9, 1e-9
"""p-values: a right law fails once in a thousand million runs, a wrong one passes as rarely."""


def normal(noise: Noise, scale: float) -> np.ndarray:
    return scale * noise.normal(SAMPLES)


def released(noise: Noise, scale: float) -> np.ndarray:
    """What the central mechanism adds to a sum of zeros."""
    facts = spec(size=SAMPLES, l2=1.0)
    return CentralGaussian(scale).apply(np.zeros(SAMPLES), facts, noise)


@pytest.mark.parametrize("draw", [normal, released])
@pytest.mark.parametrize("noise", SOURCES, ids=IDS)
@pytest.mark.parametrize("scale", SCALES)
def test_continuous_noise_is_normal_of_its_scale_and_no_other(draw, noise, scale):
    """Kolmogorov and Smirnov for the shape; the variance, which has more power, for the scale."""
    samples = draw(noise, scale)
    assert stats.kstest(samples, stats.norm(0, scale).cdf).pvalue > ACCEPTED
    assert variance_test(samples, scale) > ACCEPTED
    for wrong in (0.95, 1.05):
        assert variance_test(samples, wrong * scale) < REFUSED, "the test has no power"
    assert abs(samples.mean()) < 6 * scale / math.sqrt(SAMPLES)


def variance_test(samples: np.ndarray, scale: float) -> float:
    """p-value of the sum of squares, which is chi-square distributed; both tails."""
    law = stats.chi2(len(samples))
    square = float((samples / scale) @ (samples / scale))
    return 2 * min(float(law.cdf(square)), float(law.sf(square)))


def test_the_shape_is_seen_too():
    """Laplace noise of the same variance, and uniform noise, are no normal noise."""
    rng = np.random.default_rng(0)
    for other in (rng.laplace(0, 2**-0.5, SAMPLES), rng.uniform(-(3**0.5), 3**0.5, SAMPLES)):
        assert other.std() == pytest.approx(1, abs=0.02)
        assert stats.kstest(other, stats.norm.cdf).pvalue < REFUSED


@pytest.mark.parametrize("noise", SOURCES, ids=IDS)
@pytest.mark.parametrize("scale", SCALES)
def test_discrete_noise_has_the_variance_of_its_law_and_of_no_other(noise, scale):
    samples = discrete_gaussian(SAMPLES, scale, noise.words("test")).astype(np.float64)
    for tried, right in ((scale, True), (0.95 * scale, False), (1.05 * scale, False)):
        variance, fourth = moments(tried)
        away = samples @ samples / SAMPLES - variance
        far = abs(away) / math.sqrt((fourth - variance**2) / SAMPLES)
        assert bool(far < 6) is right, (tried, far)
    assert abs(samples.mean()) < 6 * scale / math.sqrt(SAMPLES)


def moments(sigma: float) -> tuple[float, float]:
    """Second and fourth moment of the discrete Gaussian, by its definition."""
    x = np.arange(-math.ceil(20 * sigma), math.ceil(20 * sigma) + 1, dtype=np.float64)
    weight = np.exp(-(x**2) / (2 * sigma**2))
    weight /= weight.sum()
    return float(weight @ x**2), float(weight @ x**4)


# ------------------------------------------------------------------ never the same twice

CHILD = """
import os, sys
from hansa.core.keys import NoiseSource
source = NoiseSource()
words = source.words("noise")
source.normal(3), words(3)
child = os.fork()
sys.stdout.write(repr((source.normal(4).tolist(), words(4).tolist())) + "\\n")
sys.stdout.flush()
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_repeats_neither_normals_nor_words():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    one, other = (eval(line) for line in done.stdout.splitlines())
    for mine, theirs in zip(one, other, strict=True):
        assert not set(mine) & set(theirs)


def test_fresh_noise_never_repeats_and_blocks_of_it_are_independent():
    source = NoiseSource()
    once, again = source.normal(200_000), source.normal(200_000)
    assert not np.intersect1d(once, again).size
    assert abs(np.corrcoef(once, again)[0, 1]) < 6 / math.sqrt(len(once))
    assert abs(np.corrcoef(once[:-1], once[1:])[0, 1]) < 6 / math.sqrt(len(once))
