"""Groups of units and tuning: events that say what a whole costs, against other bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from hansa.core.events import (
    Composed,
    Event,
    Gaussian,
    Laplace,
    MixtureOfGaussians,
    NonPrivate,
    NoOp,
    PoissonSampled,
    RepeatAndSelect,
    SelfComposed,
    ZCDp,
    repeat,
)
from hansa.errors import HansaError
from hansa.privacy import epsilon
from hansa.privacy.groups import of_group

NOISY = PoissonSampled(0.05, Gaussian(6.0))


@pytest.mark.parametrize(
    ("event", "group"),
    [
        (Gaussian(6.0), Gaussian(2.0)),
        (ZCDp(0.5), ZCDp(4.5)),
        (NoOp(), NoOp()),
        (NonPrivate(), NonPrivate()),
        (SelfComposed(Gaussian(6.0), 7), SelfComposed(Gaussian(2.0), 7)),
        (Composed((Gaussian(6.0), NoOp())), Composed((Gaussian(2.0), NoOp()))),
    ],
)
def test_what_three_cost(event, group):
    assert of_group(event, 3) == group
    assert of_group(event, 1) == event


def test_a_sample_of_a_group_is_binomial():
    found = of_group(NOISY, 4)
    assert isinstance(found, MixtureOfGaussians)
    assert found.standard_deviation == 6.0
    assert found.sensitivities == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert found.sampling_probs == pytest.approx(stats.binom(4, 0.05).pmf(range(5)))


def delta_by_hand(event: MixtureOfGaussians, eps: float) -> float:
    """The larger hockey-stick divergence of the two Gaussian mixtures, by quadrature."""
    sd = event.standard_deviation
    x = np.linspace(-12 * sd, 12 * sd + 4, 20_001)
    without = stats.norm(0, sd).pdf(x)
    pairs = zip(event.sampling_probs, event.sensitivities, strict=True)
    together = sum(p * stats.norm(c, sd).pdf(x) for p, c in pairs)
    both = ((without, together), (together, without))
    return max(float(integrate.simpson(np.maximum(p - math.exp(eps) * q, 0), x=x)) for p, q in both)


def test_epsilon_of_a_sampled_group_is_that_of_its_mixture():
    """Not by anybody's accountant: delta at the epsilon found is the one that was asked for."""
    event = of_group(NOISY, 3)
    assert isinstance(event, MixtureOfGaussians)
    assert delta_by_hand(event, epsilon(event, 1e-5)) == pytest.approx(1e-5, rel=0.02)


def test_a_group_costs_more_than_one_and_less_than_the_general_rule():
    one = repeat(NOISY, 20)
    found = epsilon(of_group(one, 2), 1e-5)
    single = epsilon(one, 1e-5)
    general = 2 * epsilon(one, 1e-5 / (1 + math.exp(single)))
    assert single < found < general


@pytest.mark.parametrize("event", [Laplace(1.0), PoissonSampled(0.1, Laplace(1.0)), ZCDp(0.1, 0.2)])
def test_what_is_not_known_is_refused(event):
    with pytest.raises(HansaError, match="costs a group is not known"):
        of_group(event, 2)


def test_an_empty_group_is_refused():
    with pytest.raises(HansaError, match="is none"):
        of_group(Gaussian(1.0), 0)


# ------------------------------------------------------------------ tuning


def tuned_by_hand(z: float, mean: float, delta: float) -> float:
    """Papernot and Steinke 2022, theorem 2 at shape 1, for a Gaussian: the best of many orders.

    RDP'(a) = RDP(a) + 2 (1 - 1/b) RDP(b) + 2 ln(1/gamma) / b + ln(mean) / (a - 1), with the
    geometric distribution's gamma = 1 / mean.
    """
    orders = np.concatenate([np.linspace(1.1, 11, 200), np.arange(11, 400)])
    curve = orders / (2 * z**2)
    other = (2 * (1 - 1 / orders) * curve + 2 * math.log(mean) / orders).min()
    total = curve + other + math.log(mean) / (orders - 1)
    eps = total + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    return float(eps.min())


@pytest.mark.parametrize("mean", [2.0, 10.0, 100.0])
def test_tuning_by_the_paper(mean):
    event: Event = RepeatAndSelect(Gaussian(4.0), mean, 1.0)
    assert epsilon(event, 1e-5, "rdp") == pytest.approx(tuned_by_hand(4.0, mean, 1e-5), rel=5e-3)


def test_tuning_costs_less_than_publishing_every_run():
    one = epsilon(Gaussian(4.0), 1e-5, "rdp")
    ten = epsilon(RepeatAndSelect(Gaussian(4.0), 10.0, 1.0), 1e-5, "rdp")
    poisson = epsilon(RepeatAndSelect(Gaussian(4.0), 10.0, math.inf), 1e-5, "rdp")
    assert one < poisson < epsilon(repeat(Gaussian(4.0), 10), 1e-5, "rdp")
    assert one < ten < epsilon(repeat(Gaussian(4.0), 10), 1e-5, "rdp")
