"""Blocks: capacity by the conversion of another library, and what no block can be."""

from __future__ import annotations

import math

import pytest
from dp_accounting import rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.budget.block import MICRO, Block, block_of, capacity, epsilon_of
from hansa.core.parts import Relation
from hansa.errors import Refused

WORDS = {
    "name": "patients",
    "unit": "client",
    "relation": "add_or_remove_one",
    "epsilon": 8.0,
    "delta": 1e-5,
    "order": 4,
}


def block(**words) -> Block:
    return block_of({**WORDS, **words})


@settings(max_examples=200, derandomize=True)
@given(
    order=st.integers(2, 256),
    epsilon=st.floats(1e-3, 50),
    delta=st.floats(1e-12, 0.1),
)
def test_the_capacity_is_the_largest_that_dp_accounting_still_puts_within_epsilon(
    order, epsilon, delta
):
    def theirs(urdp: int) -> float:
        return float(rdp.compute_epsilon([order], [urdp / MICRO], delta)[0])

    found = capacity(order, epsilon, delta)
    if found:
        assert theirs(found) <= epsilon
    assert theirs(found + 2) > epsilon or found == 2**53
    assert epsilon_of(found + 5, order, delta) == pytest.approx(theirs(found + 5), rel=1e-12)


def test_the_capacity_by_hand():
    """Proposition 12 of Canonne, Kamath and Steinke, with a pencil: order 2, delta 1/4."""
    # epsilon = R + log(1/2) - log(1/2) = R
    assert capacity(2, 1.0, 0.25) == 1_000_000
    # order 4, delta 1e-5: R = 8 - log(3/4) + log(4e-5) / 3
    assert capacity(4, 8.0, 1e-5) == math.floor(1e6 * (8 - math.log(0.75) + math.log(4e-5) / 3))


def test_whatever_is_closer_than_delta_costs_no_epsilon():
    assert epsilon_of(1, 2, 0.01) == 0.0  # sqrt(1 - exp(-1e-6)) = 0.001 < 0.01


def test_a_block_survives_its_json():
    made = block(population="hanse", owner="kiel", purpose="heart")
    assert block_of(made.words) == made
    assert made.relation is Relation.ADD_OR_REMOVE_ONE
    assert block(epsilon=8) == block()


@pytest.mark.parametrize(
    "words",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "x" * 65},
        {"unit": "person"},
        {"relation": "none"},
        {"epsilon": 0.0},
        {"epsilon": math.inf},
        {"epsilon": math.nan},
        {"epsilon": 10**400},
        {"delta": 0.0},
        {"delta": 1.0},
        {"order": 1},
        {"order": 257},
        {"order": 4.0},
        {"order": True},
        {"epsilon": "8"},
        {"owner": 3},
        {"colour": "red"},
        {"epsilon": 0.01, "order": 2},  # nothing is left of it at this order
    ],
    ids=str,
)
def test_what_is_no_block_is_refused_with_a_fix(words):
    with pytest.raises(Refused) as caught:
        block(**words)
    assert caught.value.fix


def test_a_block_needs_its_words():
    with pytest.raises(Refused, match="needs unit, relation"):
        block_of({"name": "x"})


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"population": "hanse"}, True),
        ({"population": "other"}, False),
        ({"owner": "kiel"}, True),
        ({"owner": "lund"}, False),
        ({"purpose": "heart"}, True),
        ({"purpose": "lung"}, False),
        ({"population": "hanse", "owner": "kiel", "purpose": "heart"}, True),
        ({"population": "hanse", "owner": "lund", "purpose": "heart"}, False),
    ],
    ids=str,
)
def test_every_selector_must_match_and_an_empty_one_always_does(selector, matches):
    found = block(**selector).matches("hanse", frozenset({"kiel", "riga"}), "heart")
    assert found is matches


def test_a_purpose_block_does_not_cover_a_job_without_a_purpose():
    assert not block(purpose="heart").matches("hanse", frozenset(), "")
