"""The noise of adaptive clipping: the split, and that both parts together cost one Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.core.events import Composed, Gaussian, NoOp
from hansa.core.keys import NoiseSource
from hansa.core.spec import Divisor, UpdateSpec
from hansa.errors import HansaError, PlanError
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.privacy.adaptive import default_count_noise, delta_multiplier
from hansa.privacy.joint import joint
from tests.laws.settings import LAW


def test_the_papers_defaults():
    """m = 100 clients and z = 1: sigma_b = 5, z_delta = 1.00504."""
    assert default_count_noise(100) == 5.0
    assert delta_multiplier(1.0, 5.0) == pytest.approx(1.00504, abs=5e-6)


@given(st.floats(0.01, 100), st.floats(1.01, 1000))
@LAW
def test_both_together_are_one_gaussian(noise, factor):
    count = noise * factor / 2
    both = Composed((Gaussian(delta_multiplier(noise, count)), Gaussian(2 * count)))
    together = joint(both)
    assert together is not None
    assert together.noise_multiplier == pytest.approx(noise, rel=1e-6)


@pytest.mark.parametrize(("noise", "count"), [(1.0, 0.5), (1.0, 0.0), (0.0, 1.0), (10.0, 4.9)])
def test_a_count_that_reveals_too_much_is_refused(noise, count):
    with pytest.raises(HansaError) as caught:
        delta_multiplier(noise, count)
    assert caught.value.fix


def spec(segment: str, size: int, l2: float) -> UpdateSpec:
    return UpdateSpec(
        segment=segment, size=size, cohort=100, l2=l2, peak=l2, weight=1.0, divisor=Divisor.FIXED
    )


def test_the_mechanism_draws_the_two_parts_of_the_split():
    mechanism = CentralGaussian(1.0, count_noise=0.6)
    delta = mechanism.apply(np.zeros(40_000), spec("delta", 40_000, 1.0), NoiseSource())
    counts = mechanism.apply(np.zeros(40_000), spec("within", 1, 0.5), NoiseSource())
    expected = delta_multiplier(1.0, 0.6)
    assert expected > 1.5  # else a mechanism that does not split would pass
    assert delta.std() == pytest.approx(expected, rel=0.02)
    assert counts.std() == pytest.approx(0.6, rel=0.02)


def test_the_mechanism_states_one_gaussian():
    mechanism = CentralGaussian(1.0, count_noise=5.0)
    assert mechanism.infer(spec("delta", 10, 1.0)) == Gaussian(1.0)
    assert mechanism.infer(spec("within", 1, 0.5)) == NoOp()
    assert mechanism.releases(spec("within", 1, 0.5))


@pytest.mark.parametrize("count", [0.0, 0.4])
def test_a_mechanism_without_enough_noise_on_the_count_is_refused(count):
    with pytest.raises(PlanError, match="count") as caught:
        CentralGaussian(1.0, count_noise=count).infer(spec("within", 1, 0.5))
    assert "clip_noise" in caught.value.fix
