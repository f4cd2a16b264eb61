"""The mean: exact, in place, and fast enough."""

from __future__ import annotations

import math
import time
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.aggregators.linear import RANGES, Mean
from hansa.core.parts import Facts, Update
from hansa.core.spec import Divisor, Domain, UpdateSpec
from hansa.core.vector import Layout, Segment
from hansa.errors import HansaError, UpdateRejected
from hansa.stages.clip import Clip
from hansa.stages.quantize import Quantize
from hansa.stages.weight import Weight
from tests.support.toy import LAYOUT, encode, facts_after, update

MEAN = Mean(Divisor.REALISED)
BIG = Layout((Segment("delta", 1_660_000), Segment("weight", 1), Segment("metrics", 0)))
RING = (Weight("uniform"), Clip(1.0), Clip(9.0, "metrics"), Quantize(1e-4, 1.0, 1e-2))


def total(updates, facts: Facts, layout: Layout = LAYOUT):
    partial = MEAN.zero(layout, facts)
    for i, one in enumerate(updates):
        partial = MEAN.add(partial, str(i), one, facts)
    return MEAN.finish(partial, layout, facts)


@pytest.mark.parametrize("cohort", [1, 2, 10, 1000, 10**6])
@pytest.mark.parametrize("peak", [1e-40, 1e-6, 0.3, 1.0, 7.0, 1e30, math.inf])
def test_the_grid_is_the_finest_on_which_the_whole_cohort_fits(cohort, peak):
    spec = UpdateSpec(size=4, cohort=cohort, peak=peak, l2=2 * peak)
    after = MEAN.infer(spec)
    bound = peak if math.isfinite(peak) else RANGES["delta"]
    assert after.peak == bound
    assert math.log2(after.quantum).is_integer()
    assert cohort * (bound / after.quantum + 0.5) < 2**62
    finest = after.quantum == 2.0**-149
    assert finest or cohort * bound / after.quantum >= 2**60, "no bit is wasted"
    if math.isfinite(peak):
        assert after.l2 == 2 * peak + after.quantum
    assert after.divisor is Divisor.REALISED


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_sums_are_right_to_the_last_bit_that_the_grid_has(values):
    facts = facts_after([Weight("uniform"), Clip(1.0), MEAN], cohort=40)
    found = total([update([v], 1.0) for v in values], facts)[0]
    error = len(values) * facts["delta"].quantum / 2 + 2.0**-53 * len(values)
    assert abs(found - math.fsum(float(np.float32(v)) for v in values)) <= error


@pytest.mark.parametrize("exponent", [-12, -60, -75, -90, -140])
@pytest.mark.parametrize("sign", [1, -1])
def test_each_coordinate_is_rounded_to_the_grid_half_to_even(exponent, sign):
    facts = facts_after([Weight("uniform"), Clip(1.0), MEAN], cohort=40)
    quantum = Fraction(facts["delta"].quantum)
    steps = [Fraction(n, 4) for n in range(1, 40)] + [Fraction(2**22 + n, 2) for n in range(9)]
    values = [float(sign * step * Fraction(2) ** exponent) for step in steps]
    values += [float(sign * step * quantum) for step in steps]
    values = [value for value in values if float(np.float32(value)) == value and abs(value) <= 1]
    for value in values:
        wanted = round(Fraction(value) / quantum) * quantum
        assert Fraction(total([update([value], 1.0)], facts)[0]) == wanted


def test_float_addition_would_have_depended_on_the_order():
    """The values that the exact sum is for: they cancel, and float32 loses the small one."""
    values = [1e6, 1.0, -1e6, 2.0**-10]
    facts = facts_after([MEAN], cohort=4)
    sums = {
        total([update([v], 1.0) for v in order], facts)[0]
        for order in (values, values[::-1], values[2:] + values[:2])
    }
    assert sums == {1.0 + 2.0**-10}


def test_the_whole_cohort_at_its_peak_does_not_overflow():
    facts = facts_after([Weight("uniform"), Clip(0.37), MEAN], cohort=1000)
    peak = float(np.nextafter(np.float32(0.37), np.float32(0)))
    for sign in (1, -1):
        found = total([update([sign * peak], 1.0)] * 1000, facts)[0]
        assert found == pytest.approx(sign * 1000 * peak, rel=1e-12)


@pytest.mark.parametrize("stages", [(), RING], ids=["real", "ring"])
def test_more_updates_than_were_proved_to_fit_are_no_sum(stages):
    facts = facts_after([*stages, MEAN], cohort=3)
    sent = [encode(stages, update([0.1], 1)) for _ in range(4)]
    total(sent[:3], facts)
    with pytest.raises(HansaError, match="4 updates were added up, the plan says at most 3"):
        total(sent, facts)


def test_denormal_numbers_are_not_lost():
    tiny = float(np.finfo(np.float32).smallest_subnormal)
    facts = facts_after([Weight("uniform"), Clip(1e-40), MEAN])
    found = total([update([tiny], 1.0)] * 3, facts)[0]
    assert found == 3 * tiny


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.001])
def test_a_bad_coordinate_at_the_very_end_changes_nothing(bad):
    facts = facts_after([Weight("uniform"), Clip(1.0), MEAN], layout=BIG)
    good = np.zeros(BIG.size, np.float32)
    partial = MEAN.add(MEAN.zero(BIG, facts), "good", Update(good, BIG), facts)
    broken = np.full(BIG.size, 0.5, np.float32)
    broken[-2] = bad
    with pytest.raises(UpdateRejected, match="the delta of an update is not finite or beyond 1"):
        MEAN.add(partial, "bad", Update(broken, BIG), facts)
    assert not partial.value.any()
    assert partial.members == ("good",)


def test_the_range_itself_is_legal():
    facts = facts_after([MEAN])
    total([update([RANGES["delta"], -RANGES["delta"]], RANGES["weight"])], facts)
    with pytest.raises(UpdateRejected):
        total([update([2 * RANGES["delta"]], 1.0)], facts)


def test_the_result_is_in_the_memory_of_the_sum():
    facts = facts_after([MEAN])
    partial = MEAN.add(MEAN.zero(LAYOUT, facts), "a", update([1.5], 2.0), facts)
    assert partial.value.dtype == np.int64
    found = MEAN.finish(partial, LAYOUT, facts)
    assert found.dtype == np.float64
    assert np.shares_memory(found, partial.value)
    assert found[0] == 1.5


def test_a_ring_sum_stays_a_ring_sum():
    facts = facts_after([*RING, MEAN])
    sent = [encode(RING, update([0.25, -0.5], 3, [2.0])) for _ in range(3)]
    found = total(sent, facts)
    assert found.dtype == np.uint32
    real = RING[3].decode(found, LAYOUT)
    assert real[:2] == pytest.approx([0.75, -1.5], abs=1e-3)
    assert facts["delta"].domain is Domain.RING
    assert facts["delta"].divisor is Divisor.REALISED


def test_a_narrow_ring_is_masked_at_the_end():
    narrow = (*RING[:3], Quantize(1e-2, 1.0, 1.0, bits=16))
    facts = facts_after([*narrow, MEAN])
    found = total([encode(narrow, update([-0.5], 1, [0.0])) for _ in range(4)], facts)
    assert found.max() < 2**16
    assert narrow[3].decode(found, LAYOUT)[0] == pytest.approx(-2.0, abs=0.05)


@pytest.mark.parametrize("stages", [(), RING], ids=["real", "ring"])
def test_a_partial_sum_survives_as_bytes(stages):
    facts = facts_after([*stages, MEAN])
    sent = [encode(stages, update([0.1 * i, -0.3], 1, [float(i)])) for i in range(4)]
    whole = total([Update(s.vector.copy(), s.layout) for s in sent], facts).tobytes()
    partial = MEAN.zero(LAYOUT, facts)
    for i, one in enumerate(sent):
        partial = MEAN.add(partial, str(i), one, facts)
        kept = bytes(MEAN.dump(partial))
        partial = MEAN.load(kept, partial.members, LAYOUT, facts)
    assert partial.members == ("0", "1", "2", "3")
    assert MEAN.finish(partial, LAYOUT, facts).tobytes() == whole


def test_dumping_copies_nothing_and_loading_does():
    facts = facts_after([MEAN])
    partial = MEAN.add(MEAN.zero(LAYOUT, facts), "a", update([1.5], 2.0), facts)
    view = MEAN.dump(partial)
    assert view.nbytes == partial.value.nbytes
    assert np.shares_memory(np.frombuffer(view, np.int64), partial.value)
    loaded = MEAN.load(view, ("a",), LAYOUT, facts)
    assert not np.shares_memory(loaded.value, partial.value)
    assert loaded.value.flags.writeable


def test_bytes_of_another_layout_are_refused():
    facts = facts_after([MEAN])
    with pytest.raises(HansaError, match="has 72 bytes, the plan says 80"):
        MEAN.load(bytes(72), (), LAYOUT, facts)


def test_adding_needs_no_memory_of_the_updates_size():
    facts = facts_after([Weight("uniform"), Clip(1.0), MEAN], layout=BIG)
    one = Update(np.full(BIG.size, 1e-4, np.float32), BIG)
    partial = MEAN.zero(BIG, facts)
    tracemalloc.start()
    partial = MEAN.add(partial, "a", one, facts)
    _, adding = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    MEAN.finish(partial, BIG, facts)
    _, finishing = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert adding < 2_500_000, "temporaries of one block"
    assert finishing < 2_500_000


def test_adding_a_model_of_a_million_is_a_matter_of_milliseconds():
    """Alone on a machine it takes 3 ms; the bound allows for a busy one."""
    facts = facts_after([Weight("uniform"), Clip(1.0), MEAN], layout=BIG)
    one = Update(np.full(BIG.size, 1e-4, np.float32), BIG)
    partial, seconds = MEAN.zero(BIG, facts), []
    for i in range(15):
        started = time.perf_counter()
        partial = MEAN.add(partial, str(i), one, facts)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.02


def test_it_says_what_it_divides_by():
    assert "realised" in str(MEAN)
    assert "constant" in str(Mean(Divisor.FIXED))
    assert MEAN.linear
