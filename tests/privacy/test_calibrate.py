"""Noise for a target epsilon."""

from __future__ import annotations

import math

import pytest

from hansa.core.events import (
    Composed,
    Event,
    Gaussian,
    PoissonSampled,
    SampledWithoutReplacement,
    repeat,
)
from hansa.errors import HansaError
from hansa.figures import step_down
from hansa.privacy import calibrate, epsilon
from hansa.privacy.calibrate import _certified


def sampled(noise: float) -> Event:
    return repeat(PoissonSampled(0.01, Gaussian(noise)), 1000)


@pytest.mark.parametrize(("method", "expected"), [("rdp", 1.02229), ("pld", 0.95910)])
def test_reference_values(method, expected):
    noise = calibrate(sampled, 2.0, 1e-5, method)
    assert noise == pytest.approx(expected, abs=1e-3)
    assert noise >= expected
    assert noise == float(f"{noise:.4g}")


@pytest.mark.parametrize("target", [0.05, 1.0, 30.0, 500.0])
@pytest.mark.parametrize("rounds", [1, 300])
def test_the_smallest_of_four_digits_that_meets_the_target(target, rounds):
    noise = calibrate(lambda z: repeat(Gaussian(z), rounds), target, 1e-5, "rdp")
    assert epsilon(repeat(Gaussian(noise), rounds), 1e-5, "rdp") <= target
    assert epsilon(repeat(Gaussian(step_down(noise)), rounds), 1e-5, "rdp") > target
    assert noise == float(f"{noise:.4g}")


@pytest.mark.parametrize(("rate", "rounds", "target"), [(0.1, 100, 1.0), (0.02, 500, 0.7)])
def test_what_is_found_on_a_coarse_grid_is_certified_on_the_fine_one(rate, rounds, target):
    def event(noise: float) -> Event:
        return repeat(PoissonSampled(rate, Gaussian(noise)), rounds)

    noise = calibrate(event, target, 1e-5)
    assert epsilon(event(noise), 1e-5) <= target < epsilon(event(step_down(noise)), 1e-5)
    assert noise == float(f"{noise:.4g}")


@pytest.mark.parametrize(
    ("rate", "rounds", "target"), [(0.1, 100, 1.0), (0.4, 6, 8.0), (0.01, 3000, 1.0)]
)
def test_a_quick_search_meets_the_target_with_little_more_noise(rate, rounds, target):
    def event(noise: float) -> Event:
        return repeat(PoissonSampled(rate, Gaussian(noise)), rounds)

    noise = calibrate(event, target, 1e-5, quick=True)
    assert epsilon(event(noise), 1e-5) <= target
    assert noise <= 1.02 * calibrate(event, target, 1e-5)
    assert noise == float(f"{noise:.3g}")


@pytest.mark.parametrize("start", [0.02, 0.9, 1.0, 1.1, 50.0])
@pytest.mark.parametrize("bent", [0.5, 0.999, 1.0, 1.001, 2.0])
def test_the_answer_does_not_depend_on_where_the_search_starts_or_how_rough_its_guide_is(
    start, bent
):
    """Epsilon is 1 / noise**2 here, and the guide is off by a factor that varies."""
    found = _certified(lambda z: z**-2.0, lambda z: bent * z**-2.03, 0.77, start)
    assert found == 1.14
    assert 1.14**-2 <= 0.77 < 1.139**-2


def test_an_event_that_the_accountant_does_not_know_is_refused():
    def event(noise: float) -> Event:
        return SampledWithoutReplacement(100, 10, Gaussian(noise))

    with pytest.raises(HansaError, match="does not know"):
        calibrate(event, 3.0, 1e-5, "pld")


def test_a_known_part_of_the_noise_is_counted_in():
    alone = calibrate(lambda z: Gaussian(z), 1.0, 1e-5, "rdp")
    beside = calibrate(lambda z: Composed((Gaussian(z), Gaussian(6.0))), 1.0, 1e-5, "rdp")
    assert beside > alone


def test_what_noise_cannot_reach_is_refused():
    with pytest.raises(HansaError, match="no noise brings epsilon down") as caught:
        calibrate(lambda z: Composed((Gaussian(z), Gaussian(6.0))), 0.1, 1e-5, "rdp")
    assert "metrics" in caught.value.fix


def test_what_needs_no_noise_is_refused():
    with pytest.raises(HansaError, match="stays below 1 without noise"):
        calibrate(lambda _: Gaussian(100.0), 1.0, 1e-5, "rdp")


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_a_target_is_a_positive_number(target):
    with pytest.raises(HansaError, match="epsilon is"):
        calibrate(sampled, target, 1e-5)
