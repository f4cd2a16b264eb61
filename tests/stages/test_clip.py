"""The L2 clip: the bound holds in exact arithmetic, whatever the numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hansa.core.parts import Stage
from hansa.core.spec import Held
from hansa.errors import HansaError, UpdateRejected
from hansa.stages.clip import Clip
from hansa.stages.norm import l2_norm
from hansa.stages.weight import Weight
from tests.support.toy import context, copy, encode, facts_after, update

TINY = float(np.finfo(np.float32).smallest_subnormal)
HUGE = float(np.finfo(np.float32).max)
anything = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.lists(anything, min_size=5, max_size=5)


def exact_square(values) -> Fraction:
    """The squared norm, without any rounding."""
    return sum((Fraction(float(v)) ** 2 for v in values), Fraction(0))


@given(vectors, st.floats(1e-44, 1e38), st.sampled_from([1, 3, 1000]))
@example([TINY] * 5, 1e-45, 1)
@example([TINY] * 5, 2e-45, 1)
@example([HUGE] * 5, 1.0, 1)
@example([HUGE, TINY, -HUGE, 0.0, 1.0], 1e-38, 1000)
@example([1e20] * 5, 0.3, 3)
@example([1.0, 0, 0, 0, 0], 1.0, 1)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_the_bound_holds_in_exact_arithmetic(delta, norm, weight):
    before = update(delta, weight)
    after = encode([Clip(norm)], before).segment("delta")
    limit = norm * weight
    if exact_square(before.segment("delta")) > Fraction(limit) ** 2 * (1 + Fraction(1, 10**12)):
        assert exact_square(after) <= Fraction(limit) ** 2
        if 1e-30 < limit < 1e37:
            assert l2_norm(after) >= limit * (1 - 1e-6), "and it is not clipped more than needed"
    else:
        assert (after == before.segment("delta")).all()
        assert l2_norm(after) <= limit * (1 + 1e-12)


@given(vectors, st.floats(1e-3, 1e3))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_the_direction_stays(delta, norm):
    before = update(delta, 1.0).segment("delta").astype(np.float64)
    after = encode([Clip(norm)], update(delta, 1.0)).segment("delta").astype(np.float64)
    length = np.linalg.norm(before)
    if length > 0:
        expected = before * min(1.0, norm / length)
        assert after == pytest.approx(expected, rel=1e-5, abs=1e-5 * norm)


def test_the_limit_grows_with_the_weight():
    """Weighted first: a client of weight 3 may send three times the norm."""
    sent = encode([Weight("examples", cap=10), Clip(0.5)], update([3.0, 4.0, 0, 0, 0], 3))
    assert l2_norm(sent.segment("delta")) == pytest.approx(1.5, rel=1e-6)


def test_a_long_vector_is_as_exact_as_a_short_one():
    """A million coordinates whose squares are below float32's resolution next to their sum."""
    values = np.full(1_000_000, 1e-3, np.float32)
    values[0] = 30.0
    assert l2_norm(values) == pytest.approx(
        math.sqrt(900 + 999_999 * float(values[1]) ** 2), rel=1e-12
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("stage", "segment"), [(Clip(1.0), "delta"), (Clip(1.0, "metrics"), "metrics")]
)
def test_what_is_not_finite_stops_at_the_client(bad, stage, segment):
    sent = update([0.0] * 5, 1.0, [0.0] * 4)
    sent.segment(segment)[2] = bad
    with pytest.raises(HansaError, match=f"the {segment} of round 4 is not finite") as caught:
        stage.encode(sent, context(number=4))
    assert not isinstance(caught.value, UpdateRejected)
    assert caught.value.fix


def test_a_client_without_weight_sends_zeros():
    assert not encode([Clip(1.0)], update([5.0] * 5, 0.0)).segment("delta").any()


def test_a_limit_that_float32_cannot_say_gives_zeros():
    assert not encode([Clip(1e-46)], update([TINY] * 5, 1.0)).segment("delta").any()


def test_metric_sums_keep_their_ratios():
    before = update([1.0] * 5, 100.0, [30.0, 40.0, 0.5, 12.0])
    after = encode([Clip(5.0, "metrics")], before)
    assert l2_norm(after.segment("metrics")) == pytest.approx(5.0, rel=1e-6)
    assert after.segment("metrics") / after.segment("metrics")[1] == pytest.approx(
        before.segment("metrics") / 40.0, rel=1e-6
    )
    assert (after.segment("delta") == 1).all(), "the delta is another clip's"


@pytest.mark.parametrize(
    ("before", "l2", "peak"),
    [((), math.inf, math.inf), ((Clip(0.3),), 0.3, 0.3), ((Clip(2.0),), 0.7, 0.7)],
)
def test_facts_only_ever_get_tighter(before, l2, peak):
    facts = facts_after([Weight("uniform"), *before])
    after = facts_after([Weight("uniform"), *before, Clip(0.7)])
    assert after["delta"].l2 == min(0.7, facts["delta"].l2)
    assert after["delta"].held is Held.CHECKED
    assert after["metrics"] == facts["metrics"]
    if before:
        assert (after["delta"].l2, after["delta"].peak) == (min(l2, 0.7), min(peak, 0.7))


def test_facts_scale_with_the_bound_of_the_weight():
    after = facts_after([Weight("examples", cap=10), Clip(0.7), Clip(9.0, "metrics")])
    assert after["delta"].l2 == pytest.approx(7.0)
    assert after["metrics"].l2 == 9.0, "metric sums are not weighted"


def test_the_server_measures_against_the_clients_own_weight():
    """A small client may not use the bound of a large one."""
    stages: list[Stage] = [Weight("examples", cap=10), Clip(1.0)]
    facts = facts_after(stages)
    honest = encode(stages, update([9.0] * 5, 2))
    Clip(1.0).admit(honest, facts)
    cheat = copy(honest)
    cheat.segment("delta")[:] *= 1.001
    with pytest.raises(UpdateRejected, match="exceeds its norm bound"):
        Clip(1.0).admit(cheat, facts)


def test_the_server_allows_for_rounding_and_for_nothing_else():
    facts = facts_after([Weight("uniform"), Clip(1.0)])
    Clip(1.0).admit(update([1.0, 0, 0, 0, 0], 1.0), facts)
    with pytest.raises(UpdateRejected):
        Clip(1.0).admit(
            update([float(np.nextafter(np.float32(1), np.float32(2))), 0, 0, 0, 0], 1.0), facts
        )
