"""FLTrust, FLAME and FoolsGold: against slow ones from the papers, SciPy, and their edge cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from hansa.aggregators import robust
from hansa.aggregators.robust.similarity import majority
from hansa.core.keys import ReplayKey
from hansa.errors import HansaError
from tests.support.robust_cases import KEY, cohort

CALM = settings(derandomize=True, deadline=None, max_examples=50)
REFERENCE = np.array([1, 2, 0, -1, 0.5, 3], np.float32)
RULES: dict[str, Callable[..., Any]] = {
    "fltrust": lambda x, **options: robust.fltrust(x, REFERENCE[: len(x[0])], **options),
    "flame": lambda x, **options: robust.flame(x, KEY, noise=0.01, **options),
    "foolsgold": robust.foolsgold,
}
rules = pytest.mark.parametrize("name", RULES)


@rules
@given(st.permutations(range(9)))
@CALM
def test_order_and_threads_change_no_bit(name, order):
    x = cohort(9)
    found = RULES[name](x, threads=1).tobytes()
    assert RULES[name](x[order], threads=2).tobytes() == found
    assert RULES[name](list(x)).tobytes() == found


@rules
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_fail_not_finite(name, value):
    x = cohort(9)
    x[3, 2] = value
    with pytest.raises(HansaError, match="not finite"):
        RULES[name](x)


@rules
def test_zero_vectors_are_no_error(name):
    x = cohort(9)
    x[2] = 0
    assert np.isfinite(RULES[name](x)).all()
    assert not RULES[name](np.zeros((5, 6), np.float32)).any()


def test_fltrust_is_the_papers():
    x = cohort(12)
    total, weights = np.zeros(6), 0.0
    reference = REFERENCE.astype(np.float64)
    for row in x.astype(np.float64):
        cosine = row @ reference / np.linalg.norm(row) / np.linalg.norm(reference)
        trust = max(0.0, cosine)
        total += trust * row * np.linalg.norm(reference) / np.linalg.norm(row)
        weights += trust
    np.testing.assert_allclose(robust.fltrust(x, REFERENCE), total / weights, rtol=1e-5)


def test_fltrust_bears_a_majority():
    honest = REFERENCE + cohort(3, seed=1) * 0.1
    bad = np.vstack([-1000 * REFERENCE] * 9 + [1e6 * np.eye(6, dtype=np.float32)[4]])
    found = robust.fltrust(np.vstack([honest, bad]).astype(np.float32), REFERENCE)
    assert np.linalg.norm(found) <= np.linalg.norm(REFERENCE) * (1 + 1e-6)
    assert found @ REFERENCE > 0.9 * np.linalg.norm(found) * np.linalg.norm(REFERENCE)


def test_fltrust_has_nothing_to_say_where_nobody_agrees():
    assert not robust.fltrust(-np.vstack([REFERENCE] * 5), REFERENCE).any()
    assert not robust.fltrust(cohort(5), np.zeros(6, np.float32)).any()
    with pytest.raises(HansaError, match="reference of 2 coordinates"):
        robust.fltrust(cohort(5), REFERENCE[:2])


@given(st.integers(2, 24), st.integers(0, 10**6))
@CALM
def test_the_majority_is_single_linkages(n, seed):
    points = np.random.default_rng(seed).standard_normal((n, 3))
    tree = linkage(points, "single")
    heights = tree[tree[:, 3] > n / 2, 2]
    labels = fcluster(tree, heights[0] * (1 + 1e-12), "distance")
    expected = np.flatnonzero(labels == np.bincount(labels).argmax())
    assert majority(squareform(pdist(points))) == expected.tolist()


def test_flame_leaves_out_who_points_elsewhere_and_cuts_who_is_long():
    honest = REFERENCE + cohort(7, seed=2) * 0.05
    honest[0] *= 40
    bad = -30 * REFERENCE + cohort(4, seed=3)
    found = robust.flame(np.vstack([honest, bad]).astype(np.float32), KEY)
    lengths = np.linalg.norm(np.vstack([honest, bad]), axis=1)
    bound = np.median(lengths)
    own = lengths[:7]
    candidates = honest * np.minimum(1, bound / own)[:, None]
    # The first majority has 6 of 11; which of the honest ones, their angles say.
    cosines = [found @ row / np.linalg.norm(found) / np.linalg.norm(row) for row in candidates]
    assert min(cosines) > 0.99
    assert np.linalg.norm(found) <= bound * (1 + 1e-6)


def test_flames_noise_is_a_share_of_the_median_length():
    x = np.random.default_rng(5).standard_normal((9, 40_000)).astype(np.float32)
    plain = robust.flame(x, KEY)
    noise = robust.flame(x, KEY, noise=0.02) - plain
    expected = 0.02 * np.median(np.linalg.norm(x, axis=1))
    assert noise.std() == pytest.approx(expected, rel=0.02)
    other = robust.flame(x, ReplayKey.of_seed(1), noise=0.02) - plain
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.03
    with pytest.raises(HansaError, match="noise of -1"):
        robust.flame(x, KEY, noise=-1)


def slow_foolsgold(x: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Algorithm 1 line by line."""
    n = len(x)
    unit = past / np.linalg.norm(past, axis=1)[:, None]
    cs = unit @ unit.T - 2 * np.eye(n)
    v = cs.max(axis=1)
    for i in range(n):
        for j in range(n):
            if i != j and 0 < v[i] < v[j] and cs[i, j] > 0:
                cs[i, j] *= v[i] / v[j]
    alpha = np.clip(1 - cs.max(axis=1), 0, 1)
    alpha /= alpha.max()
    with np.errstate(divide="ignore"):
        alpha = np.clip(np.log(alpha / (1 - alpha)) + 0.5, 0, 1)
    return np.asarray((alpha[:, None] * x).sum(axis=0) / alpha.sum())


@pytest.mark.parametrize("seed", range(6))
def test_foolsgold_is_the_papers(seed):
    x = cohort(9, 12, seed).astype(np.float32) + 0.3
    past = cohort(9, 12, seed + 100) + x
    expected = slow_foolsgold(x.astype(np.float64), past.astype(np.float64))
    np.testing.assert_allclose(robust.foolsgold(x, past), expected, rtol=1e-4, atol=1e-6)


def test_sybils_have_no_weight():
    x = np.vstack([np.eye(6)[:4], np.vstack([np.ones(6)] * 5)]).astype(np.float32)
    found = robust.foolsgold(x)
    assert found[5] == pytest.approx(0, abs=1e-6)
    assert found[:4] == pytest.approx([0.25] * 4, abs=1e-6)
    assert not robust.foolsgold(np.ones((6, 4), np.float32)).any()
    with pytest.raises(HansaError, match="2 histories of 9 clients"):
        robust.foolsgold(cohort(9), cohort(2))
