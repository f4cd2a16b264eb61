"""Adaptive clipping: what one client sends, and where the bound goes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.core.parts import Adapts, Stage, Update
from hansa.core.spec import Divisor, Domain, Held, Reader, UpdateSpec
from hansa.core.vector import Layout, Segment
from hansa.errors import HansaError, PlanError, UpdateRejected
from hansa.stages.adaptive_clip import AdaptiveClip
from hansa.stages.quantize import Quantize
from hansa.stages.weight import Weight
from tests.laws.settings import LAW
from tests.support.toy import admit, context, encode, facts_after, update

LAYOUT = Layout(
    (Segment("delta", 5), Segment("weight", 1), Segment("metrics", 0), Segment("within", 1))
)
STAGE = AdaptiveClip(0.1, 0.5)
CHAIN = (Weight("uniform"), STAGE)
floats = st.floats(-(2.0**99), 2.0**99, width=32)


def sent(
    delta: list[float],
    weight: float = 1.0,
    clip: float | None = 2.0,
    chain: tuple[Stage, ...] = CHAIN,
) -> Update:
    ctx = replace(context(), clip=clip)
    return encode(chain, update(delta, weight, (), LAYOUT), ctx)


def test_a_delta_within_the_bound_is_sent_in_units_of_it():
    one = sent([1.0, 0, 0, 0, 1.0])
    assert one.segment("delta").tolist() == [0.5, 0, 0, 0, 0.5]
    assert one.segment("within").tolist() == [0.5]


def test_a_delta_beyond_the_bound_keeps_its_direction_and_says_so():
    one = sent([30.0, 0, 40.0, 0, 0])
    assert one.segment("delta") == pytest.approx([0.6, 0, 0.8, 0, 0], rel=1e-6)
    assert one.segment("within").tolist() == [-0.5]


def test_a_client_without_examples_says_nothing():
    one = sent([0.0] * 5, weight=0)
    assert not one.vector.any()


@given(st.lists(floats, min_size=5, max_size=5), st.floats(1e-30, 1e30))
@LAW
def test_the_norm_is_at_most_one_in_exact_arithmetic(delta, clip):
    one = sent(delta, clip=clip)
    assert sum(Fraction(float(v)) ** 2 for v in one.segment("delta")) <= 1
    assert abs(one.segment("within")[0]) == 0.5
    admit(CHAIN, one, facts_after(CHAIN, LAYOUT))


@given(st.lists(floats, min_size=5, max_size=5), st.integers(1, 50))
@LAW
def test_the_bound_grows_with_the_weight(delta, examples):
    chain = (Weight("examples", 20.0), STAGE)
    one = sent(delta, weight=examples, chain=chain)
    weight = Fraction(float(one.segment("weight")[0]))
    assert sum(Fraction(float(v)) ** 2 for v in one.segment("delta")) <= weight**2


@pytest.mark.parametrize("clip", [None, 0.0, -1.0, float("inf"), float("nan")])
def test_a_round_without_a_bound_is_not_worked_for(clip):
    with pytest.raises(HansaError, match="norm bound") as caught:
        sent([1.0] * 5, clip=clip)
    assert caught.value.fix


def test_what_is_not_finite_stops_at_the_client():
    with pytest.raises(HansaError, match="not finite"):
        sent([np.inf, 0, 0, 0, 0])


@pytest.mark.parametrize("word", [0.25, -1.0, 7.0, float("nan")])
def test_the_server_rejects_a_bit_that_is_none(word):
    forged = update([0.1] * 5, 1.0, (), LAYOUT)
    forged.segment("within")[:] = word
    with pytest.raises(UpdateRejected):
        admit(CHAIN, forged, facts_after(CHAIN, LAYOUT))


def test_facts_are_in_units_of_the_bound():
    facts = facts_after(CHAIN, LAYOUT)
    assert (facts["delta"].l2, facts["delta"].held) == (1.0, Held.CHECKED)
    assert (facts["within"].l2, facts["within"].peak, facts["within"].quantum) == (0.5, 0.5, 0.5)
    capped = facts_after((Weight("examples", 20.0), STAGE), LAYOUT)
    assert capped["delta"].l2 == 20.0


def test_a_ring_holds_the_bit_exactly():
    chain = (*CHAIN, Quantize(2.0**-10, bits=16))
    facts = facts_after(chain, LAYOUT)
    assert (facts["within"].domain, facts["within"].l2) == (Domain.RING, 0.5)
    for delta, bit in (([0.1] * 5, 0.5), ([9.0] * 5, -0.5)):
        decoded = chain[-1].decode(sent(delta, chain=chain).vector, LAYOUT)
        assert LAYOUT.slice(decoded, "within").tolist() == [bit]


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (AdaptiveClip(0.0, 0.5), "start"),
        (AdaptiveClip(1.0, 0.0), "share"),
        (AdaptiveClip(1.0, 1.0), "share"),
        (AdaptiveClip(1.0, 0.5, 0.0), "rate"),
        (AdaptiveClip(1.0, 0.5, float("inf")), "rate"),
    ],
)
def test_impossible_numbers_are_refused(stage, words):
    with pytest.raises(PlanError, match=words) as caught:
        facts_after((Weight("uniform"), stage), LAYOUT)
    assert caught.value.fix


@pytest.mark.parametrize(
    "known",
    [{"domain": Domain.RING}, {"reader": Reader.SUM}, {"weight": float("inf")}],
)
def test_it_is_refused_where_the_norm_does_not_hold(known):
    spec = UpdateSpec(size=5, cohort=3, divisor=Divisor.FIXED, **{"weight": 1.0, **known})
    with pytest.raises(PlanError):
        STAGE.infer(spec)


def test_the_bound_moves_as_algorithm_1_says():
    stage = AdaptiveClip(1.0, 0.5, 0.2)
    assert isinstance(stage, Adapts)
    assert stage.start == 1.0
    # All within: share 1, C shrinks by exp(-0.2 * 0.5). None within: it grows by as much.
    assert stage.next(3.0, 50.0, 100) == pytest.approx(3.0 * np.exp(-0.1))
    assert stage.next(3.0, -50.0, 100) == pytest.approx(3.0 * np.exp(0.1))
    assert stage.next(3.0, 0.0, 100) == 3.0
    upper = AdaptiveClip(1.0, 0.9, 0.2)
    assert upper.next(3.0, 40.0, 100) == pytest.approx(3.0)


def test_the_bound_never_reaches_zero_or_infinity():
    stage, low, high = AdaptiveClip(2.0, 0.5, 5.0), 2.0, 2.0
    for _ in range(200):
        low, high = stage.next(low, 50.0, 100), stage.next(high, -50.0, 100)
    assert low == pytest.approx(2e-6)
    assert high == pytest.approx(2e6)


def test_it_finds_the_quantile_of_the_norms():
    rng = np.random.default_rng(5)
    norms = rng.lognormal(1.0, 0.7, size=2000)
    stage, clip = AdaptiveClip(0.1, 0.8, 0.2), 0.1
    for _ in range(200):
        drawn = rng.choice(norms, 100)
        within = float(np.where(drawn <= clip, 0.5, -0.5).sum() + rng.normal(0, 5))
        clip = stage.next(clip, within, 100)
    assert (norms <= clip).mean() == pytest.approx(0.8, abs=0.08)
