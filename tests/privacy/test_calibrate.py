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
