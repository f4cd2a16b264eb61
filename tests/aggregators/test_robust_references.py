"""Robust rules against slow ones, written from the papers row by row, and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, stats

from hansa.aggregators import robust
from hansa.core.keys import ReplayKey
from hansa.errors import HansaError
from tests.support.robust_cases import KEY, cohort

CALM = settings(derandomize=True, deadline=None, max_examples=100)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
tables = st.integers(1, 20).flatmap(lambda n: arrays(np.float32, (n, 3), elements=floats))
cases = pytest.mark.parametrize(
    ("n", "f", "seed"), [(11, 2, 0), (12, 2, 1), (15, 3, 2), (23, 5, 3), (7, 1, 4), (5, 0, 5)]
)


def distance(a, b) -> float:
    """Squared Euclidean distance."""
    return float(np.sum((a.astype(np.float64) - b.astype(np.float64)) ** 2))


def krum_order(rows, f) -> list[int]:
    """Positions by Krum's score: squared distances to the n - f - 2 closest others.

    With one closest other, two that are closest to each other have the same score.
    """
    scores = []
    for i, row in enumerate(rows):
        others = sorted(distance(row, other) for j, other in enumerate(rows) if j != i)
        scores.append(sum(others[: max(1, len(rows) - f - 2)]))
    return sorted(range(len(rows)), key=lambda i: (scores[i], tuple(rows[i])))


def mixed_scales(n: int, seed: int) -> np.ndarray:
    """Updates some of which lie much further away."""
    x = cohort(n, 9, seed)
    x[: n // 4] *= 10
    return x


@given(tables)
@CALM
def test_the_median_is_numpys(x):
    expected = np.median(x.astype(np.float64), axis=0).astype(np.float32)
    assert (robust.median(x) == expected).all()


@given(tables, st.integers(0, 9))
@CALM
def test_the_trimmed_mean_is_the_mean_of_what_is_left(x, f):
    if len(x) <= 2 * f:
        return
    kept = np.sort(x.astype(np.float64), axis=0)[f : len(x) - f]
    error = 1e-6 * np.abs(kept).max(axis=0) + 1e-45
    assert (np.abs(robust.trimmed_mean(x, f) - kept.mean(axis=0)) <= error).all()


def test_the_trimmed_mean_is_scipys():
    x = cohort(50, 300)
    expected = stats.trim_mean(x.astype(np.float64), 0.2, axis=0)
    assert robust.trimmed_mean(x, 10) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@cases
def test_krum_and_multi_krum_are_the_papers(n, f, seed):
    x = mixed_scales(n, seed)
    order = krum_order(x, f)
    assert (robust.krum(x, f) == x[order[0]]).all()
    expected = x[order[: n - f]].astype(np.float64).mean(axis=0)
    assert robust.multi_krum(x, f) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@cases
def test_bulyan_is_the_papers(n, f, seed):
    x = mixed_scales(n, seed)
    left, chosen = list(range(n)), []
    for _ in range(n - 2 * f):
        best = left[krum_order(x[left], f)[0]]
        chosen.append(best)
        left.remove(best)
    expected = []
    for values in x[chosen].astype(np.float64).T:
        middle = np.median(values)
        closest = sorted(values, key=lambda value: abs(value - middle))[: n - 4 * f]
        expected.append(np.mean(closest))
    assert robust.bulyan(x, f) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_no_point_has_a_smaller_sum_of_distances_than_the_geometric_median(seed):
    x = mixed_scales(9 + seed, seed).astype(np.float64)

    def total(point) -> float:
        return float(np.linalg.norm(x - point, axis=1).sum())

    best = optimize.minimize(total, np.median(x, axis=0), method="BFGS", tol=1e-10).fun
    found = robust.geometric_median(x.astype(np.float32))
    assert total(found) <= best * (1 + 1e-7)


def test_the_geometric_median_of_a_triangle_sees_each_side_at_120_degrees():
    """Fermat's point."""
    x = np.array([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]], np.float32)
    assert robust.geometric_median(x) == pytest.approx([0.5, np.sqrt(3) / 6], abs=1e-5)


def test_the_geometric_median_can_be_one_of_the_updates():
    """The middle of a cross with a wide angle: smoothing keeps the steps finite there."""
    x = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    assert robust.geometric_median(x) == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("iterations", [1, 3])
def test_centred_clipping_is_the_papers(iterations):
    x = mixed_scales(12, 1)
    center = cohort(1, 9, 5)[0]
    place = center.astype(np.float64)
    for _ in range(iterations):
        moves = []
        for row in x.astype(np.float64):
            gap = np.linalg.norm(row - place)
            moves.append((row - place) * min(1.0, 4.0 / gap))
        place = place + np.mean(moves, axis=0)
    found = robust.centered_clipping(x, 4.0, center, iterations=iterations)
    assert found == pytest.approx(place, rel=1e-6, abs=1e-6)


def test_one_step_of_centred_clipping_with_a_wide_radius_is_the_mean():
    x = cohort(12, 9)
    found = robust.centered_clipping(x, 1e6, cohort(1, 9, 2)[0])
    assert found == pytest.approx(x.astype(np.float64).mean(axis=0), rel=1e-5, abs=1e-6)


@cases
def test_dnc_is_the_papers(n, f, seed):
    """All coordinates are looked at, so each iteration leaves out the same ones."""
    x = mixed_scales(n, seed).astype(np.float64)
    centred = x - x.mean(axis=0)
    direction = np.linalg.svd(centred)[2][0]
    kept = np.argsort((centred @ direction) ** 2)[: n - f]
    found = robust.dnc(x.astype(np.float32), f, KEY)
    assert found == pytest.approx(x[kept].mean(axis=0), rel=1e-6, abs=1e-6)


def test_dnc_looks_at_other_coordinates_each_time():
    """Two liars, each seen in one coordinate of 40: some iteration looks there and leaves it out.

    With the same coordinates in each iteration, most keys would miss at least one of them.
    """
    x = cohort(30, 40)
    x[0, 3], x[1, 30] = 1e4, 1e4
    found = [
        np.abs(robust.dnc(x, 2, ReplayKey.of_seed(s), iterations=12, sample=20)).max()
        for s in range(20)
    ]
    assert np.max(found) < 10


@cases
def test_mixing_is_the_papers(n, f, seed):
    x = mixed_scales(n, seed)
    expected = []
    for row in x:
        near = sorted(range(n), key=lambda j: distance(row, x[j]))[: n - f]
        expected.append(x[near].astype(np.float64).mean(axis=0))
    found = robust.nearest_neighbor_mixing(x, f)
    assert found == pytest.approx(np.array(expected), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("n", "size"), [(12, 2), (13, 2), (10, 3), (5, 1), (4, 9)])
def test_buckets_are_a_partition(n, size):
    """Unit vectors as updates: a bucket's mean shows who is in it."""
    found = robust.bucketing(np.eye(n, dtype=np.float32), size, KEY)
    members = [set(np.flatnonzero(row)) for row in found]
    assert [len(one) for one in members] == [size] * (n // size) + [n % size] * (n % size > 0) or (
        size > n and members == [set(range(n))]
    )
    assert set().union(*members) == set(range(n))
    for row, one in zip(found, members, strict=True):
        assert row[sorted(one)] == pytest.approx([1 / len(one)] * len(one))


def test_buckets_are_drawn_from_the_key():
    """Who shares a bucket with the first: all others alike over 600 keys, by a chi-squared test."""
    met = np.zeros(7)
    for seed in range(600):
        found = robust.bucketing(np.eye(8, dtype=np.float32), 2, ReplayKey.of_seed(seed))
        met += next(row for row in found if row[0])[1:] > 0
    assert met.sum() == 600
    assert stats.chisquare(met).pvalue > 1e-3


@pytest.mark.parametrize("rule", [robust.median, robust.geometric_median])
def test_one_update_alone(rule):
    assert (rule(cohort(1)) == cohort(1)[0]).all()
    with pytest.raises(HansaError):
        rule([])
