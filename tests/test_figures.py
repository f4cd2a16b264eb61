"""Numbers of a few digits."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.figures import round_up, step_down, step_up

positive = st.floats(1e-300, 1e300)


@pytest.mark.parametrize(
    ("value", "result"),
    [(1.00001, 1.001), (2.5, 2.5), (9.9999, 10.0), (0.0, 0.0), (math.inf, math.inf), (1e-9, 1e-9)],
)
def test_the_table(value, result):
    assert round_up(value) == result


def test_not_a_number_stays_one():
    assert math.isnan(round_up(math.nan))


@given(positive)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_rounding_up_is_never_down_and_never_far(value):
    result = round_up(value)
    assert result >= value
    assert Fraction(result) <= Fraction(value) * Fraction(10_011, 10_000)
    assert result == float(f"{result:.4g}")
    assert round_up(result) == result


@given(positive)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_steps_are_to_the_neighbours(value):
    middle = round_up(value)
    assert step_down(middle) < middle < step_up(middle)
    assert step_down(step_up(middle)) == middle
    assert round_up((middle + step_up(middle)) / 2) == step_up(middle)
