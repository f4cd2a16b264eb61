"""Robust means, against their definitions and against liars."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hansa.aggregators.robust import Median, TrimmedMean
from hansa.core.parts import Facts, Partial
from hansa.core.spec import Divisor
from hansa.core.vector import Layout, Segment
from hansa.errors import UpdateRejected
from hansa.stages.weight import Weight
from tests.support.toy import LAYOUT, encode, facts_after, update

EXAMPLES, UNIFORM = Weight("examples"), Weight("uniform")
columns = st.lists(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=5), min_size=1, max_size=12
)
RULES = [Median(), TrimmedMean(0.2), TrimmedMean(0.45)]


def fold(rule, rows, weights=None, weight: Weight = UNIFORM) -> tuple[Partial, Facts]:
    facts = facts_after([weight, rule], quorum=100, cohort=100)
    partial = rule.zero(LAYOUT, facts)
    for i, row in enumerate(rows):
        examples = 1 if weights is None else weights[i]
        raw = update(row, examples, [float(examples)] * 4)
        partial = rule.add(partial, f"c{i}", encode([weight], raw), facts)
    return partial, facts


def centre(rule, rows, weights=None, weight: Weight = UNIFORM) -> np.ndarray:
    """The delta as a round divides it: total by realised weight."""
    partial, facts = fold(rule, rows, weights, weight)
    total = rule.finish(partial, LAYOUT, facts)
    found: np.ndarray = total[:5] / max(total[5], 1.0)
    return found


@given(columns)
@settings(derandomize=True, deadline=None, max_examples=80)
def test_the_median_is_numpys(rows):
    expected = np.median(np.array(rows, np.float32).astype(np.float64), axis=0)
    assert centre(Median(), rows) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(columns, st.sampled_from([0.1, 0.2, 0.25, 0.34, 0.49]))
@settings(derandomize=True, deadline=None, max_examples=80)
def test_the_trimmed_mean_is_scipys(rows, trim):
    expected = stats.trim_mean(np.array(rows, np.float32).astype(np.float64), trim, axis=0)
    assert centre(TrimmedMean(trim), rows) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_a_share_is_counted_in_whole_clients():
    """0.29 of 100 is 29, although 0.29 * 100 is 28.999999999999996."""
    rows = [[float(i)] * 5 for i in range(100)]
    rows[:29] = [[-1e6] * 5] * 29
    assert centre(TrimmedMean(0.29), rows) == pytest.approx([(29 + 70) / 2] * 5)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("lie", [1e6, -1e6])
def test_liars_below_the_breakdown_point_cannot_leave_the_honest_range(rule, lie):
    rng = np.random.default_rng(0)
    honest = rng.standard_normal((20, 5)).round(3)
    tolerated = 9 if isinstance(rule, Median) else math.floor(rule.trim * 20 + 1e-9)
    rows = honest.copy()
    rows[:tolerated] = lie
    found = centre(rule, rows.tolist())
    kept = honest[tolerated:].astype(np.float32)
    assert (found >= kept.min(axis=0) - 1e-9).all()
    assert (found <= kept.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_liars_above_the_breakdown_point_can(rule):
    rows = [[0.0] * 5] * 20
    share = 0.5 if isinstance(rule, Median) else rule.trim
    liars = math.floor(share * 20) + 1
    assert np.abs(centre(rule, [[1e6] * 5] * liars + rows[liars:])).max() > 1e3


def test_a_client_counts_once_whatever_it_weighs():
    """Examples weigh the metrics, not the median: a huge liar has one vote."""
    rows, weights = [[1.0] * 5, [2.0] * 5, [3.0] * 5], [10, 1_000, 1]
    assert centre(Median(), rows, weights, EXAMPLES) == pytest.approx([2.0] * 5, rel=1e-6)
    partial, facts = fold(Median(), rows, weights, EXAMPLES)
    total = Median().finish(partial, LAYOUT, facts)
    assert total[5] == 1_011
    assert total[6:].tolist() == [1_011.0] * 4


def test_a_client_without_examples_has_no_say():
    rows, weights = [[0.0] * 5, [7.0] * 5, [9.0] * 5, [8.0] * 5], [0, 5, 5, 5]
    assert centre(Median(), rows, weights, EXAMPLES) == pytest.approx([8.0] * 5)
    partial, _ = fold(Median(), rows, weights, EXAMPLES)
    assert len(partial.members) == 4


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_nobody_has_weight(rule):
    assert not centre(rule, [[0.0] * 5] * 3, [0, 0, 0]).any()


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_one_client_alone(rule):
    assert centre(rule, [[1.0, 2.0, 3.0, 4.0, 5.0]]) == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0])


def test_too_few_to_trim_are_a_plain_mean():
    assert centre(TrimmedMean(0.2), [[1.0] * 5, [2.0] * 5, [6.0] * 5]) == pytest.approx([3.0] * 5)


@pytest.mark.parametrize("weight", [-1.0, 1e-45])
def test_a_weight_that_would_blow_up_the_delta_is_rejected(weight):
    rule = Median()
    partial, facts = fold(rule, [[1.0] * 5] * 3)
    with pytest.raises(UpdateRejected, match="negative, or its delta is too large"):
        rule.add(partial, "bad", update([1.0] * 5, weight), facts)
    assert len(partial.value.deltas) == 3
    assert partial.value.rest.members == ("c0", "c1", "c2")


def test_a_measurement_sums_without_deltas():
    rule, layout = Median(), LAYOUT.without("delta")
    facts = facts_after([UNIFORM, rule], quorum=5)
    partial = rule.zero(layout, facts)
    for i in range(3):
        partial = rule.add(partial, str(i), update([], 1.0, [1.0, 2, 3, 4], layout), facts)
    assert rule.finish(partial, layout, facts).tolist() == [3.0, 3, 6, 9, 12]


def test_many_clients_and_blocks_give_what_one_block_gives():
    """More coordinates than fit into one block of columns."""
    rule = TrimmedMean(0.3)
    layout = Layout((Segment("delta", 300_001), Segment("weight", 1), Segment("metrics", 0)))
    facts = facts_after([UNIFORM, rule], layout=layout, cohort=7, quorum=7)
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((7, 300_001)).astype(np.float32)
    partial = rule.zero(layout, facts)
    for i, row in enumerate(rows):
        one = update([0], 1.0, layout=layout)
        one.segment("delta")[:] = row
        partial = rule.add(partial, str(i), one, facts)
    found = rule.finish(partial, layout, facts)[:-1] / 7
    expected = stats.trim_mean(rows.astype(np.float64), 0.3, axis=0)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_facts_and_words(rule):
    facts = facts_after([UNIFORM, rule], quorum=5)
    assert math.isinf(facts["delta"].l2)
    assert math.isfinite(facts["delta"].peak)
    assert facts["delta"].divisor is Divisor.REALISED
    assert facts["weight"].quantum > 0
    assert not rule.linear
    assert "bad" in str(rule)
