"""Degree and threshold: published vectors, SciPy as an oracle, what is refused."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from hansa.errors import Refused
from hansa.secagg.parameters import (
    COMPLETE,
    CORRECTNESS_BITS,
    SAFETY_BITS,
    Rule,
    Scheme,
    _drawn,
    _largest_below,
    _smallest_above,
    find,
)

CURIOUS, LYING = False, True

RECOMMENDED = {
    # curious 5 % / 10 %, 10 % / 20 %; lying 10 % / 20 %; curious 20 % / 20 %;
    # lying 20 % / 10 %, 5 % / 30 %
    64: ((10, 4), (18, 7), (32, 20), (26, 13), (26, 20), (42, 23)),
    100: ((16, 6), (28, 11), (52, 32), (40, 21), (42, 32), (66, 36)),
    200: ((24, 11), (44, 20), (88, 55), (62, 34), (76, 57), (116, 64)),
    500: ((32, 17), (58, 28), (152, 97), (88, 48), (116, 86), (212, 119)),
    1000: ((36, 19), (66, 31), (194, 124), (98, 54), (140, 104), (314, 179)),
    2000: ((38, 20), (70, 34), (230, 147), (108, 59), (158, 117), (394, 225)),
    5000: ((40, 21), (76, 36), (260, 166), (118, 64), (172, 127), (474, 271)),
    10000: ((42, 22), (78, 37), (280, 179), (122, 67), (184, 136), (522, 299)),
}
RULES = (
    Rule(0.05, 0.1, CURIOUS),
    Rule(0.1, 0.2, CURIOUS),
    Rule(0.1, 0.2, LYING),
    Rule(0.2, 0.2, CURIOUS),
    Rule(0.2, 0.1, LYING),
    Rule(0.05, 0.3, LYING),
)


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropouts", "active", "degree", "threshold"),
    [
        (100, 0.33, 0.33, CURIOUS, 68, 34),
        (1000, 0.33, 0.33, CURIOUS, 286, 150),
        (1000, 0.05, 0.33, CURIOUS, 72, 24),
        (1000, 0.33, 0.05, CURIOUS, 78, 60),
        (1000, 0.33, 0.05, LYING, 132, 109),
        (100, 0.05, 0.33, LYING, 72, 39),
        (10000, 0.05, 0.33, CURIOUS, 86, 29),
        (10000, 0.33, 0.05, LYING, 178, 146),
    ],
)
def test_published_vectors(clients, corrupt, dropouts, active, degree, threshold):
    assert find(clients, Rule(corrupt, dropouts, active)) == Scheme(clients, degree, threshold)


@pytest.mark.parametrize("clients", RECOMMENDED)
def test_the_recommended_table(clients):
    found = [rule.scheme(clients) for rule in RULES]
    assert tuple((scheme.degree, scheme.threshold) for scheme in found) == RECOMMENDED[clients]
    assert not any(scheme.complete for scheme in found)
    assert [scheme.holders for scheme in found] == [scheme.degree for scheme in found]


DRAWS = st.integers(2, 400).flatmap(
    lambda clients: st.tuples(
        st.just(clients),
        st.integers(0, clients),
        st.integers(1, clients),
        st.sampled_from([2.0**-10, 2.0**-20, 2.0**-41, 2.0**-50]),
    )
)


@given(DRAWS)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_chances_are_those_of_scipy(drawing):
    clients, marked, drawn, _ = drawing
    for x in range(drawn + 1):
        expected = hypergeom.pmf(x, clients, marked, drawn)
        assert _drawn(clients, marked, drawn, x) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(DRAWS)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_both_tails_end_where_those_of_scipy_do(drawing):
    clients, marked, drawn, chance = drawing
    law = hypergeom(clients, marked, drawn)
    above = _smallest_above(clients, marked, drawn, chance)
    assert law.sf(above) <= chance * (1 + 1e-9)
    assert above == -1 or law.sf(above - 1) > chance * (1 - 1e-9)
    below = _largest_below(clients, marked, drawn, chance)
    assert law.cdf(below - 1) <= chance * (1 + 1e-9)
    assert below == drawn or law.cdf(below) > chance * (1 - 1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clients", [64, 300, 1000])
def test_a_sparse_graph_is_as_safe_and_as_likely_to_work_as_is_claimed(clients, rule):
    """By SciPy, with a union bound over all clients; the graph's connection has its own test."""
    scheme, corrupt = rule.scheme(clients), rule.corrupted(clients)
    corrupt_needed = scheme.threshold
    if rule.active:  # two sets of survivors, each with a threshold of votes, need so many liars
        corrupt_needed = 2 * scheme.threshold - scheme.degree
    unsafe = clients * hypergeom.sf(corrupt_needed - 1, clients, corrupt, scheme.degree)
    assert unsafe <= 2.0 ** -(SAFETY_BITS + 1)
    left = clients - int(rule.dropouts * clients + 1e-9)
    stuck = clients * hypergeom.cdf(scheme.threshold - 1, clients, left, scheme.degree)
    assert stuck <= 2.0**-CORRECTNESS_BITS


@pytest.mark.parametrize("clients", [60, 100, 500])
@pytest.mark.parametrize("rule", [Rule(0.0, 0.3, CURIOUS), Rule(0.05, 0.5, CURIOUS), *RULES])
def test_a_sparse_graph_stays_connected_without_the_corrupt_and_the_dropouts(clients, rule):
    """By exact binomials: a union bound over all pairs of clients that a cut would part."""
    scheme = rule.scheme(clients)
    bad = rule.corrupted(clients) + int(rule.dropouts * clients + 1e-9)

    def cut(degree: int) -> float:
        pairs = clients * (clients - degree - 1) // 2
        return float(pairs * comb(bad, degree) / comb(clients, degree))

    assert cut(scheme.degree) < 2.0 ** -(SAFETY_BITS + 1)
    if scheme.threshold == 2:  # no other demand makes the degree as large as it is
        assert cut(scheme.degree - 2) >= 2.0 ** -(SAFETY_BITS + 1)


@given(st.integers(2, COMPLETE), st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.33]))
@settings(derandomize=True, deadline=None)
def test_on_a_complete_graph_twice_the_threshold_is_more_than_all_and_the_corrupt(clients, share):
    scheme = Rule(share, 0.0).scheme(clients)
    corrupt = int(share * clients + 1e-9)
    assert scheme.complete
    assert scheme.holders == clients
    assert 2 * scheme.threshold > clients + corrupt
    assert scheme.threshold == 2 or 2 * (scheme.threshold - 1) <= clients + corrupt


@given(st.integers(2, COMPLETE), st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.33]))
@settings(derandomize=True, deadline=None)
def test_against_a_curious_coordinator_the_corrupt_hold_less_than_a_threshold(clients, share):
    scheme = Rule(share, 0.0, CURIOUS).scheme(clients)
    assert scheme.threshold == max(int(share * clients + 1e-9) + 1, 2)


@pytest.mark.parametrize(
    ("clients", "corrupt", "threshold"), [(4, 0.25, 3), (10, 0.3, 7), (50, 0.33, 34), (3, 0.0, 2)]
)
def test_thresholds_of_small_cohorts(clients, corrupt, threshold):
    assert Rule(corrupt, 0.0).scheme(clients) == Scheme(clients, clients - 1, threshold)


def test_beyond_the_largest_complete_cohort_the_graph_is_sparse():
    assert Rule().scheme(COMPLETE).complete
    assert not Rule().scheme(COMPLETE + 1).complete


def test_where_no_sparse_graph_is_safe_the_complete_one_is_left():
    rule = Rule(0.33, 0.33)
    assert find(55, rule) is None
    assert rule.scheme(55).complete


def test_a_share_of_clients_is_counted_in_whole_clients():
    assert Rule(corrupt=0.33).corrupted(100) == 33
    assert Rule(corrupt=0.29).corrupted(100) == 29  # 0.29 * 100 is 28.999999999999996
    assert Rule(corrupt=0.339).corrupted(100) == 33


@pytest.mark.parametrize(
    ("corrupt", "dropouts"),
    [(-0.1, 0.1), (1.0, 0.1), (0.1, -0.1), (0.1, 1.0), (float("nan"), 0.1), (0.1, float("nan"))],
)
def test_shares_that_make_no_sense_are_refused(corrupt, dropouts):
    with pytest.raises(Refused, match="make no sense"):
        Rule(corrupt, dropouts).scheme(10)


@pytest.mark.parametrize(
    ("clients", "rule"),
    [(10, Rule(0.4, 0.4)), (1, Rule(0.0, 0.0)), (0, Rule(0.0, 0.0)), (60, Rule(0.4, 0.4))],
)
def test_a_threshold_that_cannot_be_reached_is_refused(clients, rule):
    with pytest.raises(Refused, match="need a threshold"):
        rule.scheme(clients)
