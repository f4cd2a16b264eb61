"""Liars: up to the bound they cannot move a rule far, whatever they send; beyond it they can."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hansa.aggregators import robust
from tests.support.robust_cases import ALL, CENTRES, KEY, RADIUS, cohort

MOST = np.float32(np.finfo(np.float32).max)
D = 8
LIES = {
    "largest": lambda f, honest: np.full((f, D), MOST),
    "smallest": lambda f, honest: np.full((f, D), -MOST),
    "both": lambda f, honest: np.resize([[MOST], [-MOST]], (f, 1)).repeat(D, axis=1),
    "checkered": lambda f, honest: np.where(np.indices((f, D)).sum(axis=0) % 2, MOST, -MOST),
    "one coordinate": lambda f, honest: honest[:1] + np.eye(f, D) * 1e30,
    "of all sizes": lambda f, honest: -(10.0 ** np.linspace(2, 38, f))[:, None] * np.ones(D),
    "far": lambda f, honest: np.full((f, D), 1e4) + np.arange(f)[:, None],
    "at the edge": lambda f, honest: np.tile(honest.max(axis=0), (f, 1)),
    "reversed": lambda f, honest: -3 * honest[:f],
    "mimic": lambda f, honest: np.tile(honest[0], (f, 1)),
    "denormal": lambda f, honest: np.full((f, D), 1e-45),
}
lies = pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())

BEARS = {
    "median": [(3, 1), (11, 5), (20, 9), (50, 24)],
    "trimmed_mean": [(3, 1), (11, 5), (20, 9), (50, 20)],
    "krum": [(5, 1), (11, 4), (20, 8), (50, 23)],
    "multi_krum": [(5, 1), (11, 4), (20, 8), (50, 23)],
    "bulyan": [(7, 1), (11, 2), (23, 5), (51, 12)],
    "geometric_median": [(3, 1), (11, 5), (20, 9), (50, 24)],
}
most = [(name, n, f) for name, sizes in BEARS.items() for n, f in sizes]


def lied_to(n: int, f: int, lie) -> tuple[np.ndarray, np.ndarray]:
    """All updates, liars somewhere in the middle, and the honest ones."""
    honest = cohort(n - f, D, seed=n)
    bad = np.asarray(lie(f, honest)).astype(np.float32)[:f]
    cut = (n - f) // 2
    return np.concatenate([honest[:cut], bad, honest[cut:]]), honest


def reach(name: str, n: int, f: int, honest: np.ndarray) -> float:
    """How far from the honest mean a result may be, by the rule's own proof, in Euclidean norm.

    r is the largest distance of an honest update from their mean.

    - By coordinate: within the honest range, which is at most 2 r in each direction.
    - Krum: the chosen one has an honest neighbour among n - f - 2, and its score is at most that
      of an honest one, (n - f - 2) (2 r)^2.
    - Bulyan: in each coordinate at least as many honest values as are averaged lie within the
      honest range around the median, so none that is averaged is further away.
    - Geometric median: 2 (n - f) / (n - 2 f) r (Pillutla et al., lemma 2).
    """
    r = float(np.linalg.norm(honest - honest.mean(axis=0), axis=1).max())
    by_coordinate = float(np.linalg.norm(honest.max(axis=0) - honest.min(axis=0)))
    by_krum = r * (1 + 2 * math.sqrt(n - f - 2))
    return {
        "median": by_coordinate,
        "trimmed_mean": by_coordinate,
        "krum": by_krum,
        "multi_krum": by_krum,
        "bulyan": 2 * by_coordinate,
        "geometric_median": 2 * (n - f) / (n - 2 * f) * r,
    }[name]


@lies
@pytest.mark.parametrize(("name", "n", "f"), most)
def test_as_many_liars_as_it_bears(name, n, f, lie):
    x, honest = lied_to(n, f, lie)
    found = CENTRES[name](x, f).astype(np.float64)
    assert np.linalg.norm(found - honest.mean(axis=0)) <= reach(name, n, f, honest)
    if name in ("median", "trimmed_mean"):
        assert (found >= honest.min(axis=0)).all()
        assert (found <= honest.max(axis=0)).all()


@pytest.mark.parametrize("lie", ["largest", "smallest", "checkered", "far"])
@pytest.mark.parametrize(("name", "n", "f"), [m for m in most if m[0] != "trimmed_mean"])
def test_liars_far_away_have_no_say_where_updates_are_chosen(name, n, f, lie):
    """The same as without them, or about: nothing of them is left."""
    x, honest = lied_to(n, f, LIES[lie])
    found = CENTRES[name](x, f)
    if name == "krum":
        assert any((found == row).all() for row in honest)
    if name == "multi_krum":
        assert found == pytest.approx(honest.astype(np.float64).mean(axis=0), rel=1e-5, abs=1e-6)


@lies
@pytest.mark.parametrize(("n", "f"), [(3, 1), (11, 5), (20, 9), (50, 24)])
def test_honest_updates_are_mixed_with_close_ones_only(n, f, lie):
    x, honest = lied_to(n, f, lie)
    r = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    cut = (n - f) // 2
    mixed = np.delete(robust.nearest_neighbor_mixing(x, f), slice(cut, cut + f), axis=0)
    assert np.linalg.norm(mixed - honest.mean(axis=0), axis=1).max() <= 3 * r


@lies
@pytest.mark.parametrize("f", [1, 4, 10])
def test_liars_spoil_one_bucket_each_at_most(f, lie):
    x, honest = lied_to(40, f, lie)
    found = robust.bucketing(x, 2, KEY)
    inside = (found >= honest.min(axis=0)).all(axis=1) & (found <= honest.max(axis=0)).all(axis=1)
    assert inside.sum() >= 20 - f
    assert np.isfinite(found).all()


@lies
def test_centred_clipping_moves_by_the_radius_at_most(lie):
    """Even where all but one are liars; f liars of n move it by f radius / n."""
    x, honest = lied_to(20, 19, lie)
    center = np.zeros(D, np.float32)
    far = robust.centered_clipping(x, RADIUS, center)
    assert np.linalg.norm(far) <= RADIUS * (1 + 1e-6)
    x, honest = lied_to(20, 4, lie)
    alone = robust.centered_clipping(honest, RADIUS, center).astype(np.float64)
    moved = robust.centered_clipping(x, RADIUS, center) - alone * 16 / 20
    assert np.linalg.norm(moved) <= RADIUS * 4 / 20 * (1 + 1e-6)


@pytest.mark.parametrize("lie", ["largest", "smallest", "far"])
@pytest.mark.parametrize(("n", "f"), [(20, 4), (50, 10), (10, 3)])
def test_dnc_leaves_out_liars_that_go_one_way(n, f, lie):
    x, honest = lied_to(n, f, LIES[lie])
    found = robust.dnc(x, f, KEY)
    r = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    assert np.linalg.norm(found - honest.mean(axis=0)) <= r


def test_dnc_promises_nothing_where_liars_hide_behind_a_larger_one():
    """Why its table says to clip before."""
    x, honest = lied_to(20, 4, LIES["of all sizes"])
    found = robust.dnc(x, 4, KEY, iterations=1)
    assert np.abs(found - honest.mean(axis=0)).max() > 100


BREAKS = [
    ("median", 10, 2, 5),
    ("median", 11, 2, 6),
    ("trimmed_mean", 11, 2, 3),
    ("trimmed_mean", 11, 5, 6),
    ("krum", 11, 4, 6),
    ("multi_krum", 11, 4, 5),
    ("bulyan", 11, 2, 6),
    ("geometric_median", 10, 2, 5),
    ("geometric_median", 11, 2, 6),
]
"""Rule, updates, what it was told to bear, how many lie: one more than any rule could bear."""


@pytest.mark.parametrize(("name", "n", "f", "liars"), BREAKS)
def test_the_bound_is_a_bound(name, n, f, liars):
    honest = cohort(n - liars, D)
    x = np.concatenate([np.full((liars, D), 1e6, np.float32), honest])
    assert np.linalg.norm(CENTRES[name](x, f)) > 1e4


def test_a_mean_breaks_with_one():
    """The yardstick: nothing is borne where f is 0."""
    x, _ = lied_to(20, 1, LIES["far"])
    for name in ("trimmed_mean", "multi_krum", "bulyan", "dnc"):
        assert np.linalg.norm(ALL[name](x, 0)) > 100
