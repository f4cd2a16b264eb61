"""Attacks on updates against formulas written down again, and against their own definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from hansa import attacks
from hansa.aggregators import robust
from hansa.attacks.updates import away
from hansa.errors import HansaError

M, F, D = 16, 4, 60
RNG = np.random.default_rng(3)
H = (RNG.standard_normal((M, D)) * RNG.uniform(0.1, 3, D) + RNG.standard_normal(D)).astype("f4")
MU = np.array([sum(float(v) for v in column) / M for column in H.T])
SD = np.array(
    [np.sqrt(sum((float(v) - m) ** 2 for v in c) / M) for c, m in zip(H.T, MU, strict=True)]
)


def gaps(row: np.ndarray) -> np.ndarray:
    return np.array([np.sum((row.astype(float) - h) ** 2) for h in H])


PAIRS = np.array([gaps(h) for h in H])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (attacks.sign_flip(H, F), -MU),
        (attacks.sign_flip(H, F, 5.0), -5 * MU),
        (attacks.ipm(H, F, 0.1), -0.1 * MU),
        (attacks.ipm(H, F, 3.0), -3 * MU),
        (attacks.alie(H, F, 1.5), MU + 1.5 * SD),
        (attacks.scaling(H, F), -(M + F) / F * 3 * MU),
        (attacks.mimic(H, F), H[0]),
        (attacks.mimic(H, F, 7), H[7]),
    ],
    ids=["flip", "flip5", "ipm0.1", "ipm3", "alie", "scaling", "mimic", "mimic7"],
)
def test_formulas(found, expected):
    assert found.shape == (F, D)
    assert found.dtype == np.float32
    for row in found:
        np.testing.assert_allclose(row, expected, rtol=2e-6, atol=1e-6)


def test_alie_z_is_the_papers():
    # n = 50, f = 24: 26 make a majority, two honest ones must lie beyond; 24 of 26.
    assert attacks.alie_z(50, 24) == pytest.approx(norm.ppf(24 / 26))
    assert attacks.alie_z(20, 4) == pytest.approx(norm.ppf(9 / 16))
    assert attacks.alie_z(50, 12) == pytest.approx(norm.ppf(24 / 38))
    assert attacks.alie_z(3, 1) == 0.0  # the only majority is everybody: nothing may be risked
    np.testing.assert_allclose(
        attacks.alie(H, F, None)[0], MU + norm.ppf(9 / 16) * SD, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("target", [np.zeros(D), np.linspace(-3, 3, D)])
def test_model_replacement_makes_the_mean_the_target(target):
    everybody = np.concatenate([H, attacks.model_replacement(H, F, target)])
    np.testing.assert_allclose(everybody.mean(axis=0, dtype=float), target, atol=1e-5)


@pytest.mark.parametrize("direction", ["unit", "sign", "std"])
def test_min_max_goes_as_far_as_it_may_and_no_further(direction):
    bad = attacks.min_max(H, F, direction)
    u = {"unit": -MU / np.linalg.norm(MU), "sign": -np.sign(MU), "std": -SD}[direction]
    np.testing.assert_allclose(away(H, direction), u, rtol=1e-5, atol=1e-7)
    gamma = (bad[0] - MU) @ u / (u @ u)
    np.testing.assert_allclose(bad[0], MU + gamma * u, atol=2e-5)
    assert gaps(MU + gamma * u).max() <= PAIRS.max() * (1 + 1e-5)
    assert gaps(MU + 1.001 * gamma * u).max() > PAIRS.max()
    assert gamma > 0.1


@pytest.mark.parametrize("direction", ["unit", "sign", "std"])
def test_min_sum_goes_as_far_as_it_may_and_no_further(direction):
    bad = attacks.min_sum(H, F, direction)
    u = {"unit": -MU / np.linalg.norm(MU), "sign": -np.sign(MU), "std": -SD}[direction]
    gamma = (bad[0] - MU) @ u / (u @ u)
    most = PAIRS.sum(axis=1).max()
    assert gaps(MU + gamma * u).sum() <= most * (1 + 1e-5)
    assert gaps(MU + 1.001 * gamma * u).sum() > most
    assert 0.1 < gamma < (attacks.min_max(H, F, direction)[0] - MU) @ u / (u @ u)


def test_min_max_of_equal_updates_is_theirs():
    same = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(attacks.min_max(same, 2), np.ones((2, 3)))
    np.testing.assert_array_equal(attacks.min_sum(same, 2), np.ones((2, 3)))


def test_mimic_takes_who_lies_furthest_along_the_most_variance():
    few = np.zeros((5, 3), np.float32)
    few[:, 0] = [0.1, -0.1, 0.0, 9.0, -0.2]
    np.testing.assert_array_equal(attacks.mimic(few, 2, None), few[[3, 3]])


def test_noise_has_the_length_that_was_asked_for():
    rows = attacks.gaussian(H, 40, np.random.default_rng(0), 10.0)
    lengths = np.linalg.norm(rows, axis=1)
    assert np.mean(lengths) == pytest.approx(10 * np.linalg.norm(MU), rel=0.05)
    assert abs(rows.mean()) < 4 * rows.std() / np.sqrt(rows.size)
    again = attacks.gaussian(H, 40, np.random.default_rng(0), 10.0)
    np.testing.assert_array_equal(rows, again)


def test_a_free_rider_sends_the_last_step_and_some_noise():
    step = H[0]
    rows = attacks.free_rider(step, 30, np.random.default_rng(0), noise=0.1)
    off = np.linalg.norm(rows - step, axis=1) / np.linalg.norm(step)
    assert np.mean(off) == pytest.approx(0.1, rel=0.1)
    assert not attacks.free_rider(np.zeros(D), 2, np.random.default_rng(0)).any()


def test_sybils_are_near_each_other_or_the_same():
    rows = attacks.sybils(H[0], 3, np.random.default_rng(0), apart=1e-3)
    assert len({row.tobytes() for row in rows}) == 3
    cosine = rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    assert cosine > 0.99999
    same = attacks.sybils(H[0], 3, np.random.default_rng(0), apart=0)
    assert len({row.tobytes() for row in same}) == 1


def test_a_replay_is_what_it_was():
    np.testing.assert_array_equal(attacks.replay(H[:F], F), H[:F])
    with pytest.raises(HansaError, match="16 old updates are replayed by 4"):
        attacks.replay(H, F)


def test_what_is_too_large_for_float32_stays_finite():
    huge = np.full((4, 3), 3e38, np.float32)
    assert np.isfinite(attacks.scaling(huge, 1)).all()
    assert np.abs(attacks.scaling(huge, 1)).max() == np.finfo(np.float32).max


def test_without_any_honest_update_there_is_no_attack():
    with pytest.raises(HansaError, match="no honest update"):
        attacks.sign_flip(np.zeros((0, 3), np.float32), 2)


# ------------------------------------------------------------------ adaptive ones


def damage(rule: Any, bad: np.ndarray) -> float:
    return float(np.linalg.norm(rule(np.concatenate([H, bad])).astype(float) - MU))


RULES = {
    "median": lambda x: robust.median(x, threads=1),
    "trimmed_mean": lambda x: robust.trimmed_mean(x, F, threads=1),
    "multi_krum": lambda x: robust.multi_krum(x, F, threads=1),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    ("search", "direction", "plain"),
    [
        (attacks.adaptive_alie, SD, attacks.alie(H, F, 1.5)),
        (attacks.adaptive_ipm, -MU, attacks.ipm(H, F, 0.5)),
        (attacks.adaptive_min_max, -MU, attacks.min_max(H, F)),
    ],
    ids=["alie", "ipm", "min_max"],
)
def test_adaptive_attacks_come_near_the_strongest_of_a_fine_scan(rule, search, direction, plain):
    found = damage(rule, search(H, F, rule))
    assert found >= damage(rule, plain) * (1 - 1e-6)
    scale = (attacks.adaptive_min_max(H, F, rule)[0] - MU) @ direction / (direction @ direction)
    reach = max(20.0, 2 * abs(scale))
    strengths = np.linspace(1.0 if search is attacks.adaptive_ipm else 0.0, reach, 150)
    scanned = max(
        damage(rule, np.tile((MU + x * direction).astype("f4"), (F, 1))) for x in strengths
    )
    assert found >= 0.93 * scanned


def test_a_rule_that_refuses_is_not_harmed():
    def refuses_what_is_far(x):
        if np.abs(x).max() > 2 * np.abs(H).max():
            raise HansaError("too far", fix="none")
        return x.mean(axis=0)

    bad = attacks.adaptive_ipm(H, F, refuses_what_is_far)
    assert np.abs(bad).max() <= 2 * np.abs(H).max()
    assert damage(refuses_what_is_far, bad) > damage(refuses_what_is_far, attacks.ipm(H, F, 0.1))


def test_alie_goes_to_the_side_that_harms():
    """The smallest of each coordinate is moved by small numbers only: z must be negative."""
    bad = attacks.adaptive_alie(H, F, lambda x: x.min(axis=0))
    assert ((bad[0] - MU) / SD < -5).all()
