"""Relocated orthogonal perturbation: where it points, and how far it goes."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.aggregators import robust
from hansa.attacks import rop
from hansa.attacks.catalogue import ATTACKS

RNG = np.random.default_rng(4)
D = 400
SIGNAL = RNG.standard_normal(D)
H = (SIGNAL + 0.5 * RNG.standard_normal((16, D))).astype(np.float32)
LAST = SIGNAL + 0.2 * RNG.standard_normal(D)


def reference() -> np.ndarray:
    found: np.ndarray = 0.9 * H.astype(np.float64).mean(axis=0) + 0.1 * LAST
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("angle", "expected"), [(0, 1.0), (60, 0.5), (90, 0.0), (180, -1.0)])
def test_the_perturbation_has_the_angle_and_the_length_that_it_should_have(angle, expected):
    bad = rop(H, 4, LAST, angle)
    assert bad.shape == (4, D)
    assert bad.dtype == np.float32
    off = bad[0].astype(np.float64) - reference()
    assert cosine(off, reference()) == pytest.approx(expected, abs=1e-3)
    gaps = np.linalg.norm(H.astype(np.float64) - reference(), axis=1)
    assert np.linalg.norm(off) == pytest.approx(np.median(gaps), rel=1e-4)
    longer = rop(H, 4, LAST, angle, 3.0)[0] - reference()
    assert np.linalg.norm(longer) == pytest.approx(3 * np.median(gaps), rel=1e-4)


def test_it_pushes_away_from_the_honest_mean_and_is_no_longer_than_honest_ones_are():
    bad = rop(H, 4, LAST)[0]
    mu = H.mean(axis=0)
    across = bad - reference()
    assert cosine(across, -np.sign(mu)) > 0.1
    gaps = [np.linalg.norm(x - mu) for x in H]
    assert np.linalg.norm(bad - mu) < 1.2 * np.median(gaps)


def test_clipping_round_the_last_result_lets_it_turn_more_than_a_sign_flip_of_that_length():
    """The attack's point: a radius bounds how far an update pulls, not where to."""

    def moved(bad: np.ndarray) -> float:
        rows = np.concatenate([H, np.tile(bad, (4, 1))]).astype(np.float32)
        radius = float(np.median(np.linalg.norm(rows - LAST, axis=1)))
        found = robust.centered_clipping(rows, radius, LAST.astype(np.float32))
        return 1 - cosine(found.astype(np.float64), H.mean(axis=0).astype(np.float64))

    assert moved(rop(H, 4, LAST, 90)[0]) > 2 * moved(rop(H, 4, LAST, 180)[0])


def test_without_honest_direction_or_history_it_is_still_finite():
    same = np.ones((3, 5), np.float32)
    for bad in (rop(same, 2, np.zeros(5)), rop(np.zeros((3, 5), np.float32), 2, np.zeros(5))):
        assert np.isfinite(bad).all()


def test_it_is_in_the_catalogue_with_what_it_needs():
    assert ATTACKS["rop"].knows == "honest"
