"""Stochastic rounding into a ring."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core.parts import Stage, Update
from hansa.core.spec import Domain, Reader
from hansa.core.vector import Layout, Segment
from hansa.errors import HansaError, PlanError
from hansa.stages.clip import Clip
from hansa.stages.quantize import Quantize, fits, smallest_step
from hansa.stages.weight import Weight
from tests.support.toy import context, encode, facts_after, update

WIDE = Layout((Segment("delta", 200_000), Segment("weight", 1), Segment("metrics", 0)))

BOUNDED: tuple[Stage, ...] = (Weight("uniform"), Clip(1.0), Clip(9.0, "metrics"))
RING = Quantize(1e-3, 1.0, 1e-2)


def rounded(stage: Quantize, value: float, count: int = 200_000, seed: int = 0) -> np.ndarray:
    """One value rounded many times, decoded."""
    raw = update([value] * count, 1.0, layout=WIDE)
    sent = stage.encode(raw, context(seed=seed))
    return WIDE.slice(stage.decode(sent.vector, WIDE), "delta")


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.77, -0.3, -5.9, 30.25])
def test_rounding_is_unbiased(bits, share):
    """Five standard errors; a rounding that is off by one hundredth of a step is seen."""
    step = 2.0**-7
    value = float(np.float32(share * step))
    found, fraction = rounded(Quantize(step, bits=bits), value), abs(share) % 1
    tolerance = 5 * math.sqrt(fraction * (1 - fraction) / len(found)) + 1e-9
    assert abs(found.mean() - value) <= tolerance * step
    assert tolerance < 0.01, "the test has no power"
    assert np.abs(found - value).max() < step
    assert len(np.unique(found)) <= 2


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_integers_are_twos_complement_modulo_the_ring(bits):
    stage = Quantize(1.0, bits=bits)
    sent = stage.encode(update([0, 1, -1, 5, -7], 1.0), context())
    assert sent.vector.dtype == np.uint32
    modulus = 2**bits
    assert sent.segment("delta").tolist() == [0, 1, modulus - 1, 5, modulus - 7]
    assert stage.decode(sent.vector, sent.layout)[:5].tolist() == [0, 1, -1, 5, -7]


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30))
@settings(derandomize=True, deadline=None, max_examples=50)
def test_sums_wrap_and_come_out_right(values):
    stage = Quantize(1.0, bits=16)
    total = np.zeros(10, np.uint32)
    for value in values:
        total += stage.encode(update([value] * 5, 1.0), context()).vector
    total &= np.uint32(2**16 - 1)
    assert stage.decode(total, update([0], 0).layout)[0] == sum(values)


def test_draws_of_coordinates_and_of_clients_are_independent():
    step = 1.0
    one, other = (rounded(Quantize(step), 0.5, seed=seed) for seed in (0, 1))
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 5 / math.sqrt(len(one))
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(len(one))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38, 2.0**31])
def test_what_does_not_fit_stops_at_the_client(bad):
    with pytest.raises(HansaError, match="not finite or too large"):
        Quantize(1.0).encode(update([bad, 0, 0, 0, 0], 1.0), context())


@pytest.mark.parametrize(("cohort", "peak"), [(1, 1.0), (10, 0.37), (999, 123.4), (3, 1e-12)])
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_the_smallest_step_that_is_named_is_the_smallest_legal_one(cohort, peak, bits):
    step = smallest_step(cohort, peak, bits)
    assert fits(cohort, peak, step, bits)
    assert not fits(cohort, peak, step * (1 - 2e-3), bits)
    assert step == float(f"{step:.4g}"), "it is short enough to be copied"
    weight = Weight("uniform")
    before = facts_after([weight, Clip(peak)], cohort=cohort)["delta"]
    assert Quantize(step, bits=bits).infer(before).domain is Domain.RING
    with pytest.raises(PlanError) as caught:
        Quantize(step * 0.99, bits=bits).infer(before)
    assert repr(step) in caught.value.fix


def test_a_cohort_can_be_too_large_for_any_step():
    assert math.isinf(smallest_step(40_000, 1.0, 16))


def test_a_sum_at_the_bound_does_not_overflow():
    """Every client at its peak, rounded up, with the smallest legal step."""
    cohort, bits = 9, 16
    step = smallest_step(cohort, 1.0, bits)
    stage = Quantize(step, bits=bits)
    for value in (1.0, -1.0):
        total = np.zeros(10, np.uint32)
        for i in range(cohort):
            total += stage.encode(update([value] * 5, 1.0), context(str(i))).vector
        total &= np.uint32(2**bits - 1)
        found = stage.decode(total, update([0], 0).layout)[:5]
        assert found == pytest.approx([cohort * value] * 5, abs=cohort * step)


def test_rounding_is_counted_in_the_facts():
    before = facts_after([Weight("uniform"), Clip(2.0)])["delta"]
    after = Quantize(0.01).infer(before)
    assert after.l2 == pytest.approx(2.0 + 0.01 * math.sqrt(5))
    assert after.peak == pytest.approx(2.01)
    assert (after.quantum, after.bits, after.domain) == (0.01, 32, Domain.RING)


def test_whole_weights_stay_exact():
    for weight in (Weight("uniform"), Weight("examples", cap=50)):
        after = facts_after([weight, Clip(1.0), Clip(9.0, "metrics"), Quantize(1e-3, 1.0, 1e-2)])
        assert after["weight"].peak == weight.bound
        assert after["weight"].l2 == weight.bound
    odd = facts_after(
        [Weight("examples", cap=2.5), Clip(1.0), Clip(9.0, "metrics"), Quantize(1e-3, 1.0, 1e-2)]
    )
    assert odd["weight"].peak == 3.5


def test_each_segment_has_its_own_step():
    stages: list[Stage] = [Weight("examples", cap=50), Clip(1.0), Clip(99.0, "metrics")]
    stage = Quantize(step=2**-10, weight_step=1.0, metrics_step=0.25)
    sent = encode([*stages, stage], update([0.01] * 5, 7, [1.25, 7.0, 0.5, 7.0]))
    real = stage.decode(sent.vector, sent.layout)
    assert real[5] == 7
    assert real[6:].tolist() == [1.25, 7.0, 0.5, 7.0]


def test_a_client_that_counts_twice_is_rejected():
    facts = facts_after((*BOUNDED, RING))
    sent = encode((*BOUNDED, RING), update([0.1] * 5, 7, [1.0] * 4))
    sent.segment("weight")[0] = 2
    with pytest.raises(HansaError, match="the weight of an update exceeds"):
        RING.admit(sent, facts)


def test_a_norm_is_checked_even_where_each_coordinate_is_within_its_peak():
    facts = facts_after((*BOUNDED, RING))
    sent = RING.encode(update([0.9] * 5, 1.0, [0.0] * 4), context())
    with pytest.raises(HansaError, match="the delta of an update exceeds"):
        RING.admit(sent, facts)


def test_a_hidden_update_is_checked_for_its_form_only():
    hidden = {n: replace(s, reader=Reader.SUM) for n, s in facts_after((*BOUNDED, RING)).items()}
    masked = Update(np.full(10, 2**32 - 5, np.uint32), update([0], 0).layout)
    RING.admit(masked, hidden)
