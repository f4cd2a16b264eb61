"""Accounting for sums of discrete Gaussian noise: reference values, oracles, and the solver."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from hansa.core.events import (
    Composed,
    DiscreteGaussianSum,
    Event,
    Gaussian,
    Laplace,
    NonPrivate,
    PoissonSampled,
    SampledWithoutReplacement,
    SelfComposed,
    repeat,
)
from hansa.core.parts import Relation
from hansa.errors import HansaError
from hansa.figures import step_down
from hansa.privacy import calibrate, epsilon
from hansa.privacy.accountants import DpAccounting, best_accountant
from hansa.privacy.distributed import (
    BETA,
    ORDERS,
    Setting,
    amplified,
    divergence,
    rounded_norm,
    smallest_sigma,
    tau,
)

ADD, REPLACE = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE
PAGE = (Path(__file__).resolve().parents[2] / "docs/distributed-noise.md").read_text("utf-8")


def by_rdp(event: Event, delta: float) -> float:
    return epsilon(event, delta, "rdp")


def device(bits: int) -> Setting:
    return Setting(
        norm=0.03, size=2**20, cohort=100, shares=100, bits=bits, rounds=1500, rate=100 / 3400
    )


def silo(bits: int) -> Setting:
    return Setting(norm=1.0, size=2**20, cohort=20, shares=20, bits=bits, rounds=50)


REFERENCE = [
    # setting, epsilon, delta, sigma, 1 / step, sigma / step, effective multiplier
    (device(16), 10.0, 1 / 3400, 0.0026813, 303_712, 814.4, 0.8938),
    (device(18), 10.0, 1 / 3400, 0.0026773, 1_216_680, 3257, 0.8924),
    (silo(20), 5.0, 1e-5, 1.50887, 19_424, 29_310, 6.7479),
    (silo(24), 5.0, 1e-5, 1.50831, 310_901, 468_900, 6.7454),
]
"""The published code of Kairouz et al., run on four settings."""


def digits4(value: float) -> str:
    return f"{value:.4g}"


@pytest.mark.parametrize(("setting", "target", "delta", "sigma", "scale", "steps", "z"), REFERENCE)
def test_reference_values_to_four_digits(setting, target, delta, sigma, scale, steps, z):
    found = smallest_sigma(setting, target, delta, by_rdp)
    step = setting.step(found)
    assert digits4(found) == digits4(sigma)
    assert digits4(1 / step) == digits4(scale)
    assert digits4(found / step) == digits4(steps)
    assert digits4(math.sqrt(setting.shares) * found / setting.norm) == digits4(z)


def test_the_page_shows_the_reference_values():
    rows = re.findall(
        r"^\| .*\| (0\.\d+|\d\.\d+) \| ([\d,]+) \| ([\d,.]+) \| (\d\.\d+) \|", PAGE, re.MULTILINE
    )
    assert len(rows) == len(REFERENCE)
    for row, (setting, target, delta, *_) in zip(rows, REFERENCE, strict=True):
        sigma = smallest_sigma(setting, target, delta, by_rdp)
        step = setting.step(sigma)
        z = math.sqrt(setting.shares) * sigma / setting.norm
        shown = [float(number.replace(",", "")) for number in row]
        assert [digits4(x) for x in (sigma, 1 / step, sigma / step, z)] == [
            digits4(x) for x in shown
        ]


def test_without_sampling_discreteness_costs_next_to_nothing():
    """The price of integers against one continuous Gaussian on the whole sum."""
    central = calibrate(lambda z: repeat(Gaussian(z), 50), 5.0, 1e-5, "rdp")
    found = smallest_sigma(silo(24), 5.0, 1e-5, by_rdp) * math.sqrt(20)
    assert central * 0.999 < found < central * 1.003


# ------------------------------------------------------------------ oracles


def pmf(sigma: float, shares: int, reach: int) -> np.ndarray:
    """Of a sum of discrete Gaussians, on -reach .. reach."""
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    one = np.exp(-(x**2) / (2 * sigma**2))
    one /= one.sum()
    total = np.zeros(2 * reach + 1)
    total[reach] = 1.0
    for _ in range(shares):
        total = np.convolve(total, one)[reach:-reach]
    return total


def renyi(p: np.ndarray, shift: int, order: float) -> float:
    """Divergence of a distribution from itself, shifted."""
    left, right = p[shift:], p[:-shift]
    ok = (left > 1e-280) & (right > 1e-280)
    terms = order * np.log(left[ok]) + (1 - order) * np.log(right[ok])
    return float(np.logaddexp.reduce(terms)) / (order - 1)


@pytest.mark.parametrize("shares", [1, 2, 5])
@pytest.mark.parametrize("sigma", [0.4, 0.6, 1.0, 4.0])
@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("order", [2, 5, 20])
def test_the_bound_covers_the_exact_divergence_in_one_dimension(shares, sigma, shift, order):
    exact = renyi(pmf(sigma, shares, 90), shift, order)
    event = DiscreteGaussianSum(sigma, shares, float(shift), 1)
    assert exact <= divergence(event, order) * (1 + 1e-6)
    if sigma >= 4:
        assert divergence(event, order) <= exact * 1.001, "and is tight where noise is not tiny"


def test_a_sum_of_little_noise_reveals_more_than_a_gaussian_of_its_variance():
    """Why tau is there: without it, the bound would be below the exact divergence."""
    exact = renyi(pmf(0.4, 2, 90), 1, 2)
    assert exact > 2 / 2 / (2 * 0.4**2)
    assert exact <= divergence(DiscreteGaussianSum(0.4, 2, 1.0, 1), 2)


@pytest.mark.parametrize(
    ("sigma", "shares", "sensitivity", "size", "order"),
    [
        (0.7, 4, 3.0, 10, 3),
        (0.5, 100, 40.0, 10_000, 2),
        (0.9, 7, 2.0, 1000, 9),
        (6.0, 9, 5.0, 4, 2),
    ],
)
def test_the_formula_written_out(sigma, shares, sensitivity, size, order):
    t = 10 * math.fsum(math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, shares))
    assert tau(sigma, shares) == pytest.approx(t)
    d2 = sensitivity / math.sqrt(shares * sigma**2)
    d1 = min(math.sqrt(size), sensitivity) * d2
    expected = min(
        order * d2**2 / 2 + t * size,
        order / 2 * (d2**2 + 2 * d1 * t + t**2 * size),
        order / 2 * (d2 + math.sqrt(size) * t) ** 2,
    )
    event = DiscreteGaussianSum(sigma, shares, sensitivity, size)
    assert divergence(event, order) == pytest.approx(expected)
    assert shares == 9 or divergence(event, order) > 1.0001 * order * d2**2 / 2, "tau matters here"


def test_the_sample_bound_written_out():
    """Zhu and Wang, theorem 5, term by term, at small orders."""
    q, curve = 0.03, np.array([0.5 * order * 0.8**2 for order in ORDERS])
    for order in (2, 3, 4, 7):
        total = (1 - q) ** (order - 1) * (order * q - q + 1)
        total += math.comb(order, 2) * q**2 * (1 - q) ** (order - 2) * math.exp(curve[0])
        for k in range(3, order + 1):
            weight = 3 * math.comb(order, k) * (1 - q) ** (order - k) * q**k
            total += weight * math.exp((k - 1) * curve[k - 2])
        expected = math.log(total) / (order - 1)
        assert amplified(curve, q)[order - 2] == pytest.approx(min(expected, curve[order - 2]))


@pytest.mark.parametrize("z", [1.0, 4.0])
def test_the_sample_bound_covers_what_is_known_for_gaussian_noise(z):
    """dp-accounting's bound is exact for it; the general one must not be below."""
    for rate in (0.01, 0.1):
        exact = by_rdp(repeat(PoissonSampled(rate, Gaussian(z)), 100), 1e-5)
        discrete = DiscreteGaussianSum(1000.0 * z, 1, 1000.0, 1)
        assert by_rdp(repeat(PoissonSampled(rate, discrete), 100), 1e-5) >= exact * (1 - 1e-9)


def test_sampling_helps_and_never_hurts():
    curve = np.array([0.5 * order * 0.8**2 for order in ORDERS])
    assert (amplified(curve, 0.01) <= curve).all()
    assert amplified(curve, 0.01)[0] < curve[0] / 100
    assert (amplified(curve, 1.0) == curve).all()
    assert not amplified(curve, 0.0).any()


# ------------------------------------------------------------------ rounding


@pytest.mark.parametrize(("norm", "size"), [(2.0, 16), (0.3, 1), (50.0, 10), (1e5, 2**20)])
def test_the_bound_of_conditional_rounding_written_out(norm, size):
    assert math.exp(-0.5) == BETA
    expected = math.sqrt(
        min(
            (norm + math.sqrt(size)) ** 2,
            norm**2 + size / 4 + math.sqrt(2 * math.log(1 / BETA)) * (norm + math.sqrt(size) / 2),
        )
    )
    assert rounded_norm(norm, size) == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------------ who is counted on


def test_lost_and_colluding_shares_cost_epsilon():
    costs = [by_rdp(DiscreteGaussianSum(20.0, n, 60.0, 1000), 1e-5) for n in (20, 12, 8, 1)]
    assert costs == sorted(costs)
    assert costs[0] < costs[1] < costs[2] < costs[3]
    one = by_rdp(DiscreteGaussianSum(20.0, 8, 60.0, 1000), 1e-5)
    assert one == pytest.approx(by_rdp(Gaussian(20 * math.sqrt(8) / 60), 1e-5), rel=0.02)


def test_more_survivors_than_counted_on_reveal_no_more():
    """In exact divergences: adding independent noise is post-processing."""
    for order in (2, 8):
        found = [renyi(pmf(0.5, shares, 60), 1, order) for shares in (1, 2, 3, 6)]
        assert found == sorted(found, reverse=True)


def test_a_setting_counts_on_its_shares_and_fills_the_ring_with_its_cohort():
    whole, lost = silo(20), Setting(norm=1.0, size=2**20, cohort=20, shares=12, bits=20, rounds=50)
    assert lost.step(1.5) == whole.step(1.5)
    more, less = (smallest_sigma(s, 5.0, 1e-5, by_rdp) for s in (lost, whole))
    assert more == pytest.approx(less * math.sqrt(20 / 12), rel=2e-3)
    assert more > 1.28 * less


def test_a_replaced_client_needs_twice_the_noise():
    one = silo(24)
    two = Setting(norm=1.0, size=2**20, cohort=20, shares=20, bits=24, rounds=50, neighbours=2)
    assert smallest_sigma(two, 5.0, 1e-5, by_rdp) == pytest.approx(
        2 * smallest_sigma(one, 5.0, 1e-5, by_rdp), rel=2e-3
    )


# ------------------------------------------------------------------ the solver


@pytest.mark.parametrize("target", [0.3, 3.0, 20.0])
@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_the_smallest_sigma_that_keeps_the_promise(target, rate):
    setting = Setting(norm=0.5, size=5000, cohort=40, shares=25, bits=24, rounds=20, rate=rate)
    sigma = smallest_sigma(setting, target, 1e-5, by_rdp)
    assert by_rdp(setting.event(sigma, setting.step(sigma)), 1e-5) <= target
    less = step_down(sigma, 6) * (1 - 1e-5)
    assert by_rdp(setting.event(less, setting.step(less)), 1e-5) > target
    assert sigma == float(f"{sigma:.6g}")


def test_a_grid_of_the_callers_own():
    setting = silo(24)
    found = smallest_sigma(setting, 5.0, 1e-5, by_rdp, lambda _: 2.0**-10)
    assert by_rdp(setting.event(found, 2.0**-10), 1e-5) <= 5.0
    assert found > smallest_sigma(setting, 5.0, 1e-5, by_rdp)


def test_a_ring_without_room_is_refused():
    tight = Setting(norm=1.0, size=10, cohort=10_000, shares=100, bits=8, rounds=1)
    assert math.isinf(tight.step(1.0))
    with pytest.raises(HansaError, match="in 8 bits") as caught:
        smallest_sigma(tight, 1.0, 1e-5, by_rdp)
    assert caught.value.fix


def test_a_target_that_needs_no_noise_is_refused():
    with pytest.raises(HansaError, match="without noise"):
        smallest_sigma(silo(24), 5.0, 1e-5, lambda *_: 0.0)


# ------------------------------------------------------------------ the accountants


ONE = DiscreteGaussianSum(20.0, 12, 60.0, 1000)


def test_only_renyi_divergence_counts_discrete_noise():
    assert best_accountant(repeat(ONE, 9), ADD) == DpAccounting("rdp")
    reason = DpAccounting("pld").unsupported(ONE, ADD)
    assert reason is not None
    assert "Renyi" in reason
    with pytest.raises(HansaError, match="Renyi"):
        epsilon(ONE, 1e-5)


@pytest.mark.parametrize(
    ("event", "relation", "why"),
    [
        (SampledWithoutReplacement(100, 10, ONE), REPLACE, "Poisson"),
        (PoissonSampled(0.1, ONE), REPLACE, "one unit replaced"),
        (PoissonSampled(0.1, PoissonSampled(0.1, ONE)), ADD, "sample of a sample"),
        (PoissonSampled(0.1, Composed((ONE, PoissonSampled(0.1, ONE)))), ADD, "sample of a sample"),
        (Composed((ONE, SampledWithoutReplacement(9, 3, Gaussian(1.0)))), ADD, "not Sampled"),
        (SelfComposed(Composed((ONE, PoissonSampled(0.1, Laplace(1.0)))), 3), ADD, "not Poisson"),
    ],
)
def test_what_is_not_known_is_refused_with_the_reason(event, relation, why):
    reason = DpAccounting("rdp").unsupported(event, relation)
    assert reason is not None
    assert why in reason
    with pytest.raises(HansaError, match="no accountant knows"):
        best_accountant(event, relation)


def test_it_composes_with_what_dp_accounting_knows():
    gaussian = Gaussian(20 * math.sqrt(12) / 60)
    both = by_rdp(repeat(Composed((ONE, Gaussian(3.0))), 10), 1e-5)
    assert both == pytest.approx(
        by_rdp(repeat(Composed((gaussian, Gaussian(3.0))), 10), 1e-5), 3e-2
    )
    assert both > by_rdp(repeat(ONE, 10), 1e-5)
    sampled = by_rdp(repeat(PoissonSampled(0.05, Composed((ONE, Gaussian(3.0)))), 10), 1e-5)
    assert by_rdp(repeat(PoissonSampled(0.05, ONE), 10), 1e-5) < sampled < both


def test_no_noise_and_no_guarantee_have_no_epsilon():
    assert math.isinf(by_rdp(DiscreteGaussianSum(0.0, 5, 1.0, 10), 1e-5))
    assert math.isinf(by_rdp(DiscreteGaussianSum(1.0, 0, 1.0, 10), 1e-5))
    assert math.isinf(by_rdp(Composed((ONE, NonPrivate())), 1e-5))


def test_rounds_add_up_under_both_relations():
    assert by_rdp(repeat(ONE, 4), 1e-5) > by_rdp(ONE, 1e-5)
    assert epsilon(ONE, 1e-5, "rdp", REPLACE) == by_rdp(ONE, 1e-5)
