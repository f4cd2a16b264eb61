"""Updates from older models in robust rules: shorter, and one client like any other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from hansa.aggregators.agnostic import Agnostic
from hansa.aggregators.robust import FLTrust, Median, Robust, TrimmedMean
from hansa.aggregators.robust.centers import CENTERS
from hansa.aggregators.robust.kept import KeepsRows
from hansa.core.parts import Discounts, Partial, Update
from hansa.core.standing import Compares
from hansa.core.vector import Layout, Segment, Vector
from hansa.errors import UpdateRejected
from tests.support.toy import facts_after, update

LAYOUT = Layout((Segment("delta", 40), Segment("weight", 1), Segment("metrics", 4)))
N = 15
RULES: dict[str, KeepsRows] = {
    **{name: Robust(name, 0.2) for name in CENTERS},
    "by coordinate": Median(),
    "trimmed by coordinate": TrimmedMean(0.2),
    "after nearest neighbours": Robust("geometric_median", 0.2, "nearest"),
    "after random pairs": Robust("median", 0.1, "bucketing"),
}
OLD = 4
"""Which update is old."""


def facts(rule: KeepsRows, **known: float):
    return facts_after([rule], LAYOUT, cohort=N, quorum=N, **known)


def updates(seed: int = 0) -> list[Update]:
    """Deltas of fifteen clients around one direction, times weights that are powers of two."""
    rng = np.random.default_rng(seed)
    rows = np.sin(np.arange(40)) + 0.4 * rng.standard_normal((N, 40))
    weights = 2.0 ** rng.integers(0, 4, N)
    return [
        update(list(row * w), w, [1.0, 2.0], layout=LAYOUT)
        for row, w in zip(rows, weights, strict=True)
    ]


def folded(rule: KeepsRows, them: Sequence[Update], discounts: dict[int, float]) -> Partial:
    its = facts(rule)
    partial = rule.zero(LAYOUT, its)
    for number, one in enumerate(them):
        weight = discounts.get(number, 1.0)
        partial = rule.add_discounted(partial, f"c{number:02}", one, its, weight)
    return partial


def total(rule: KeepsRows, them: Sequence[Update], discounts: dict[int, float]) -> Vector:
    return rule.finish(folded(rule, them, discounts), LAYOUT, facts(rule))


def shorter(one: Update, factor: float) -> Update:
    """A fresh update whose delta is shorter, and nothing else."""
    vector = one.vector.copy()
    LAYOUT.slice(vector, "delta")[:] *= np.float32(factor)
    return Update(vector, LAYOUT)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_takes_them(name):
    assert isinstance(RULES[name], Discounts)


@pytest.mark.parametrize("name", RULES)
def test_where_nobody_is_late_it_is_the_rule_to_the_bit(name):
    rule, them = RULES[name], updates()
    its = facts(rule)
    partial = rule.zero(LAYOUT, its)
    for number, one in enumerate(them):
        partial = rule.add(partial, f"c{number:02}", one, its)
    fresh = rule.finish(partial, LAYOUT, its)
    ones = dict.fromkeys(range(N), 1.0)
    assert total(rule, them, ones).tobytes() == fresh.tobytes()
    if name != "krum":  # which follows one update, here another one
        assert total(rule, them, {OLD: 0.5}).tobytes() != fresh.tobytes()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("discount", [0.5, 0.25])
@pytest.mark.parametrize("size", [1.0, -(2.0**16)])
def test_an_old_update_is_a_shorter_one_to_the_bit(name, discount, size):
    """Also a huge one: it pulls as a fresh one that is as much shorter, and no more."""
    rule, them = RULES[name], updates(1)
    them[OLD] = shorter(them[OLD], size)
    fresh = [*them[:OLD], shorter(them[OLD], discount), *them[OLD + 1 :]]
    assert total(rule, them, {OLD: discount}).tobytes() == total(rule, fresh, {}).tobytes()


def test_an_old_liar_pulls_no_more_than_its_discount():
    """A mean of all but what stands out most follows it by its share, times the discount."""
    rule, them = Robust("centered_clipping", 0.2), updates(2)
    without = total(rule, [*them[:OLD], shorter(them[OLD], 0.0), *them[OLD + 1 :]], {})
    pulls = [np.linalg.norm(total(rule, them, {OLD: w}) - without) for w in (1.0, 0.5, 0.1, 1e-3)]
    assert all(b < 0.75 * a for a, b in pairwise(pulls)), pulls
    assert pulls[-1] < 0.01 * pulls[0]


@pytest.mark.parametrize("discount", [2**-0.5, 3**-0.5, 1e-3, 1e-30])
def test_rows_are_the_mean_deltas_times_the_discount(discount):
    rule, them = Median(), updates(3)
    rows = dict(folded(rule, them, {OLD: discount}).value.deltas)
    for number, one in enumerate(them):
        exact = one.segment("delta").astype(np.float64) / float(one.segment("weight")[0])
        if number == OLD:
            exact *= discount
        np.testing.assert_allclose(rows[f"c{number:02}"], exact, rtol=3e-7)


def test_only_the_delta_is_multiplied():
    rule, them = Median(), updates()
    fresh, old = total(rule, them, {}), total(rule, them, dict.fromkeys(range(N), 0.5))
    for segment in ("weight", "metrics"):
        assert LAYOUT.slice(old, segment).tobytes() == LAYOUT.slice(fresh, segment).tobytes()
    np.testing.assert_array_equal(LAYOUT.slice(old, "delta"), LAYOUT.slice(fresh, "delta") / 2)


@pytest.mark.parametrize("bad", [3.5, np.inf, np.nan])
def test_bounds_are_checked_before_the_discount(bad):
    """2 is the bound; 3.5 would be within it after the discount."""
    rule = Median()
    its = facts(rule, peak=2.0)
    one, partial = update([1.0] * 40, 1.0, layout=LAYOUT), rule.zero(LAYOUT, its)
    one.vector[7] = bad
    with pytest.raises(UpdateRejected):
        rule.add_discounted(partial, "a", one, its, 0.5)
    assert partial.value.deltas == []
    assert not rule.finish(partial, LAYOUT, its).any()


def test_a_client_without_weight_has_no_say_however_old():
    rule, them = Median(), updates()
    them[OLD] = update([0.0] * 40, 0.0, [1.0], layout=LAYOUT)
    assert f"c{OLD:02}" not in dict(folded(rule, them, {OLD: 0.5}).value.deltas)


def test_the_update_that_was_added_stays_as_it_was():
    rule, them = Median(), updates()
    before = them[OLD].vector.copy()
    folded(rule, them, {OLD: 0.5})
    assert them[OLD].vector.tobytes() == before.tobytes()


def test_scores_are_of_rows_as_the_rule_sees_them():
    rule, them = Robust("geometric_median", 0.2), updates(4)
    assert isinstance(rule, Compares)
    old = rule.likeness(folded(rule, them, {OLD: 0.5})).products
    fresh = rule.likeness(folded(rule, them, {})).products
    factors = np.where(np.arange(N) == OLD, 0.5, 1.0)
    np.testing.assert_allclose(old, fresh * np.outer(factors, factors), rtol=1e-6)


def test_a_loss_is_not_multiplied():
    """No plan has the rule of the largest losses beside arrivals; it would still be right."""
    rule = Agnostic(0.5)
    (row,) = folded(rule, [update([2.0] * 40, 4.0, layout=LAYOUT)], {0: 0.5}).value.deltas
    assert set(row[1][:-1]) == {0.25}
    assert row[1][-1] == 4.0


def test_fltrust_would_undo_a_discount():
    """Why a plan refuses it: it gives each update the length of the trusted one."""
    rule, them = FLTrust("c00"), updates(5)
    fresh, old = total(rule, them, {}), total(rule, them, {OLD: 2**-10})
    np.testing.assert_allclose(old, fresh, rtol=1e-4, atol=1e-4)
