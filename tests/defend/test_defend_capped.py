"""What aggregators that keep rows can say of clients, and how a watched client counts half."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import FLTrust, Median, Robust, TrimmedMean
from hansa.core.parts import Aggregator, Partial
from hansa.core.spec import Divisor
from hansa.core.standing import Compares
from hansa.core.vector import Layout, Segment, Vector
from hansa.errors import RoundVoid
from hansa.stages.weight import Weight
from tests.support.toy import facts_after, update

LAYOUT = Layout((Segment("delta", 6), Segment("weight", 1), Segment("metrics", 2)))
N = 16
RULES: dict[str, Any] = {
    "median": Median(),
    "trimmed mean": TrimmedMean(0.2),
    "krum": Robust("krum", 0.2),
    "bulyan": Robust("bulyan", 0.2),
    "geometric median": Robust("geometric_median", 0.2),
    "nearest, trimmed": Robust("trimmed_mean", 0.2, "nearest"),
    "pairs, median": Robust("median", 0.2, "bucketing"),
    "dnc": Robust("dnc", 0.2),
    "foolsgold": Robust("foolsgold", 0.2),
    "fltrust": FLTrust("c00"),
}


def rows(n: int = N, seed: int = 0) -> Vector:
    rng = np.random.default_rng(seed)
    return (np.arange(1, 7) + rng.standard_normal((n, 6))).astype(np.float32)


def folded(rule: Aggregator, given: Vector, names: list[str], weight: float = 2.0) -> Partial:
    facts = facts_after([Weight("examples"), rule], layout=LAYOUT, cohort=N, quorum=N)
    partial = rule.zero(LAYOUT, facts)
    for name, row in zip(names, given, strict=True):
        one = update(list(row * weight), weight, [1.0, 2.0], LAYOUT)
        partial = rule.add(partial, name, one, facts)
    return partial


def total(rule: Any, given: Vector, names: list[str], capped: frozenset[str] | None = None) -> Any:
    facts = facts_after([Weight("examples"), rule], layout=LAYOUT, cohort=N, quorum=N)
    partial = folded(rule, given, names)
    if capped is None:
        return rule.finish(partial, LAYOUT, facts)
    return rule.finish_capped(partial, LAYOUT, facts, capped, 0.5)


def centre(rule: Any, given: Vector, names: list[str], capped: Any = None) -> Any:
    found = total(rule, given, names, capped)
    return LAYOUT.slice(found, "delta") / LAYOUT.slice(found, "weight")[0]


NAMES = [f"c{i:02d}" for i in range(N)]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_a_watched_client_changes_counts_half(rule: Any) -> None:
    """Against two whole results, one of all and one of the others."""
    given, watched = rows(), frozenset({"c03", "c15"})
    given[3], given[15] = 9 * given[3], -given[15]
    others = [i for i, name in enumerate(NAMES) if name not in watched]
    without = centre(rule, given[others], [NAMES[i] for i in others])
    everybody = centre(rule, given, NAMES)
    found = centre(rule, given, NAMES, watched)
    assert np.allclose(found, (without + everybody) / 2, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_result_with_watched_clients_does_not_depend_on_order(rule: Any) -> None:
    given, watched = rows(seed=1), frozenset({"c03", "c07"})
    expected = total(rule, given, NAMES, watched).tobytes()
    order = np.random.default_rng(5).permutation(N)
    assert total(rule, given[order], [NAMES[i] for i in order], watched).tobytes() == expected


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_without_watched_clients_nothing_changes(rule: Any) -> None:
    given = rows(seed=2)
    assert total(rule, given, NAMES, frozenset()).tobytes() == total(rule, given, NAMES).tobytes()


def test_the_other_segments_count_in_full() -> None:
    found = total(Median(), rows(), NAMES, frozenset({"c00"}))
    assert list(LAYOUT.slice(found, "metrics")) == [N, 2 * N]
    assert LAYOUT.slice(found, "weight")[0] == 2 * N


@pytest.mark.parametrize(
    ("rule", "watched"),
    [(Median(), NAMES[:12]), (Median(), NAMES), (FLTrust("c00"), ["c00"])],
    ids=["four others", "no others", "the trusted one is watched"],
)
def test_where_the_others_are_too_few_all_count_as_ever(rule: Any, watched: list[str]) -> None:
    given = rows()
    found = total(rule, given, NAMES, frozenset(watched))
    assert found.tobytes() == total(rule, given, NAMES).tobytes()


def test_a_rule_that_can_say_nothing_still_says_so() -> None:
    with pytest.raises(RoundVoid):
        total(FLTrust("nobody"), rows(), NAMES, frozenset({"c00"}))


def test_likeness_is_the_products_per_unit_of_weight_by_name() -> None:
    given, rule = rows(), Median()
    order = [5, 1, 9]
    partial = folded(rule, given[order], [NAMES[i] for i in order])
    found = rule.likeness(partial)
    assert found.clients == ("c01", "c05", "c09")
    expected = given[sorted(order)].astype(np.float64)
    assert np.allclose(found.products, expected @ expected.T)
    facts = facts_after([Weight("examples"), rule], layout=LAYOUT, cohort=N, quorum=N)
    finished = rule.finish(partial, LAYOUT, facts)
    assert np.isfinite(finished).all()  # the partial was left as it was
    assert found.products.flags.owndata


def test_a_client_without_weight_is_like_nobody() -> None:
    facts = facts_after([Weight("examples"), Median()], layout=LAYOUT, cohort=N, quorum=N)
    partial = Median().add(
        folded(Median(), rows()[:5], NAMES[:5]), "empty", update([], 0.0, layout=LAYOUT), facts
    )
    assert Median().likeness(partial).clients == tuple(NAMES[:5])


def test_a_measurement_has_no_likeness() -> None:
    layout = LAYOUT.without("delta")
    facts = facts_after([Weight("examples"), Median()], layout=LAYOUT, cohort=N, quorum=N)
    partial = Median().zero(layout, facts)
    partial = Median().add(partial, "a", update([], 1.0, [1.0, 1.0], layout), facts)
    assert Median().likeness(partial).clients == ()


def test_rules_compare_and_the_mean_does_not() -> None:
    assert all(isinstance(rule, Compares) for rule in RULES.values())
    assert not isinstance(Mean(Divisor.REALISED), Compares)
