"""Published and independently computed values of epsilon and of noise, each with its source.

`accounting` stands for Google's dp-accounting 0.6.0, run by itself; every other value was printed
by somebody else. The subject is always ours: events, relations, `epsilon` and `calibrate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from hansa.core.events import (
    Event,
    Gaussian,
    PoissonSampled,
    SampledWithoutReplacement,
    SingleEpochTreeAggregation,
    TruncatedSubsampledGaussian,
    ZCDp,
    repeat,
)
from hansa.core.parts import Relation
from hansa.errors import HansaError
from hansa.privacy import calibrate, epsilon, gaussian_noise

ADD, REPLACE, ZERO = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE, Relation.ZERO_OUT


def poisson(rate: float, noise: float, rounds: int) -> Event:
    return repeat(PoissonSampled(rate, Gaussian(noise)), rounds)


def without(population: int, size: int, noise: float, rounds: int) -> Event:
    return repeat(SampledWithoutReplacement(population, size, Gaussian(noise)), rounds)


def cut(cap: int) -> Event:
    return repeat(TruncatedSubsampledGaussian(10_000, 0.01, cap, 1.0), 1000)


# ------------------------------------------------------------------ Poisson samples


@dataclass(frozen=True)
class Row:
    """Epsilon of one setting by both accountants, and what the literature printed for it."""

    source: str
    event: Event
    delta: float
    rdp: float
    pld: float
    published: tuple[float, ...] = ()


MNIST = 256 / 60_000
ROWS = [
    Row("1: Abadi et al. 2016, moments accountant and strong composition",
        poisson(0.01, 4.0, 10_000), 1e-5, 1.0355, 0.9470, (1.26, 9.34)),
    Row("2: TensorFlow Privacy, tutorial's README",
        poisson(MNIST, 1.12, 14_063), 1e-5, 2.5187, 2.3103, (2.92,)),
    Row("3: TensorFlow Privacy, MNIST at 1.3", poisson(MNIST, 1.3, 3515), 1e-5, 0.9544, 0.8645,
        (1.19,)),
    Row("4: TensorFlow Privacy, MNIST at 1.1", poisson(MNIST, 1.1, 14_062), 1e-5, 2.5966, 2.3817,
        (3.01,)),
    Row("5: TensorFlow Privacy, MNIST at 0.7", poisson(MNIST, 0.7, 10_546), 1e-5, 6.3195, 5.6394,
        (7.10,)),
    Row("6: McMahan et al. 2018, language models", poisson(5000 / 763_430, 1.0, 4120), 1e-9,
        3.8559, 3.5538, (4.6,)),
    Row("8: accounting", poisson(0.01, 1.0, 1000), 1e-5, 2.1014, 1.8282),
    Row("9: accounting", poisson(0.001, 0.8, 2000), 1e-7, 1.8117, 0.8071),
    Row("10: accounting, all clients", repeat(Gaussian(8.0), 50), 1e-5, 4.1057, 3.7965),
    Row("10: accounting, all clients", repeat(Gaussian(20.0), 100), 1e-5, 2.1657, 1.9931),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.source)
def test_epsilon(row):
    rdp, pld = epsilon(row.event, row.delta, "rdp"), epsilon(row.event, row.delta)
    assert rdp == pytest.approx(row.rdp, abs=1e-3)
    assert pld == pytest.approx(row.pld, abs=1e-3)
    assert pld < rdp
    assert all(rdp < older for older in row.published), "accounting has become tighter since"


class TestOpacus:
    """7: values of `accountants_test.py` of Opacus, whose accountants are not ours.

    Its PRV accountant adds its own error of 0.01 to epsilon; the noise follows from that.
    """

    def test_epsilon(self):
        event = poisson(0.04, 1.5, 2250)
        assert epsilon(event, 1e-5, "rdp") == pytest.approx(7.32911117, abs=1e-3)
        pld = epsilon(event, 1e-5)
        assert 6.7773957 - 0.01 <= pld <= 6.7773957
        assert pld > 6.6, "the central limit's 6.59 ... 6.60 is no bound"

    @pytest.mark.parametrize(
        ("steps", "rdp", "prv"), [(2250, 1.416, 1.34766), (2000, 1.3562, 1.2915)]
    )
    def test_noise_for_epsilon_8(self, steps, rdp, prv):
        def event(noise: float) -> Event:
            return poisson(0.04, noise, steps)

        assert calibrate(event, 8.0, 1e-5, "rdp") == pytest.approx(rdp, abs=1e-3)
        assert prv - 2e-3 <= calibrate(event, 8.0, 1e-5) <= prv


# ------------------------------------------------------------------ zero-concentrated privacy


@pytest.mark.parametrize(
    ("rho", "delta", "expected"),
    [
        pytest.param(0.81, 1e-10, 8.9223, id="11: Gboard's Spanish model, published as 8.9"),
        pytest.param(0.25, 1e-10, 4.6969, id="12: accounting"),
        pytest.param(1.0, 1e-10, 10.0344, id="12: accounting"),
        pytest.param(0.5, 1e-5, 4.7285, id="12: accounting"),
    ],
)
def test_zero_concentrated_privacy(rho, delta, expected):
    found = epsilon(ZCDp(rho), delta, "rdp")
    assert found == pytest.approx(expected, abs=1e-3)
    assert found < rho + 2 * math.sqrt(rho * math.log(1 / delta)), "Bun and Steinke 2016"
    assert epsilon(Gaussian(1 / math.sqrt(2 * rho)), delta) < found


def test_11_the_exact_gaussian_and_the_textbook():
    assert round(epsilon(ZCDp(0.81), 1e-10, "rdp"), 1) == 8.9
    assert epsilon(Gaussian(1 / math.sqrt(1.62)), 1e-10) == pytest.approx(8.5489, abs=1e-3)
    assert 0.81 + 2 * math.sqrt(0.81 * math.log(1e10)) == pytest.approx(9.4473, abs=1e-4)


# ------------------------------------------------------------------ noise from epsilon


@pytest.mark.parametrize(
    ("eps", "delta", "expected"),
    [(1.0, 1e-5, 3.73063), (2.0, 1e-5, 1.99381), (0.5, 1e-6, 8.05762), (8.0, 1e-10, 0.83399)],
)
def test_13_the_exact_noise_of_one_gaussian(eps, delta, expected):
    found = gaussian_noise(eps, delta)
    assert found == pytest.approx(expected, abs=1e-5)
    searched = calibrate(lambda noise: Gaussian(noise), eps, delta)
    assert found * (1 - 1e-4) <= searched <= found * (1 + 1e-3)


def test_13_the_classical_formula_is_wasteful_below_1_and_proves_nothing_above():
    def classical(eps: float, delta: float) -> float:
        return math.sqrt(2 * math.log(1.25 / delta)) / eps

    assert classical(1.0, 1e-5) == pytest.approx(4.8448, abs=1e-4)
    assert classical(1.0, 1e-5) > 1.25 * gaussian_noise(1.0, 1e-5)
    assert classical(30.0, 0.1) < gaussian_noise(30.0, 0.1)


@pytest.mark.parametrize(
    ("eps", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5), (1.0, 0.0),
                       (1.0, 1.0), (1.0, math.nan)]
)  # fmt: skip
def test_impossible_targets_are_refused(eps, delta):
    with pytest.raises(HansaError, match="no noise is made"):
        gaussian_noise(eps, delta)


@pytest.mark.parametrize(("method", "expected"), [("rdp", 1.02229), ("pld", 0.95910)])
def test_15_noise_for_epsilon_2_on_poisson_samples(method, expected):
    noise = calibrate(lambda z: poisson(0.01, z, 1000), 2.0, 1e-5, method)
    assert expected <= noise <= expected + 1e-3


# ------------------------------------------------------------------ other samples, other relations


@pytest.mark.parametrize(
    ("event", "expected"),
    [(without(60_000, 256, 1.12, 14_063), 5.1535), (without(10_000, 100, 1.0, 1000), 3.5761)],
)
def test_14_without_replacement(event, expected):
    assert epsilon(event, 1e-5, "rdp", REPLACE) == pytest.approx(expected, abs=1e-3)


def test_16_a_tree_in_which_each_unit_takes_part_once():
    event = SingleEpochTreeAggregation(10.0, 1024)
    assert epsilon(event, 1e-5, "rdp", ZERO) == pytest.approx(1.3785, abs=1e-3)
    height = math.ceil(math.log2(1024 + 1))
    assert epsilon(ZCDp(height / (2 * 10.0**2)), 1e-5, "rdp") == pytest.approx(1.3785, abs=1e-3)


SLOW = pytest.mark.soak  # 3 seconds each: cut draws have a distribution of their own


@pytest.mark.parametrize(
    ("cap", "expected"),
    [
        pytest.param(200, 1.8282, marks=SLOW),
        pytest.param(150, 1.8305, marks=SLOW),
        (130, 3.684),
        pytest.param(120, 5.297, marks=SLOW),
        pytest.param(110, 7.682, marks=SLOW),
    ],
)
def test_17_a_cap_on_the_cohort(cap, expected):
    assert epsilon(cut(cap), 1e-5) == pytest.approx(expected, abs=1e-3)


def test_17_a_unit_replaced_costs_more_than_a_unit_removed():
    """The same noise is half as many sensitivities where a unit is replaced."""
    removed = epsilon(poisson(0.01, 1.0, 1000), 1e-5, "pld", ADD)
    replaced = epsilon(poisson(0.01, 0.5, 1000), 1e-5, "pld", REPLACE)
    assert removed == pytest.approx(1.8282, abs=1e-3)
    assert replaced == pytest.approx(2.8434, abs=1e-3)
