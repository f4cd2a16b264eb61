"""Renewal times: two thirds of a life, spread, and the same after a restart."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.identity.renewal import due, renew_at
from tests.support.ca import NOW

DAY = timedelta(hours=24)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text(max_size=40), st.integers(1, 10**8))
def test_between_seven_and_eight_twelfths(serial, seconds):
    life = timedelta(seconds=seconds)
    at = renew_at(NOW, NOW + life, serial)
    assert NOW + life * (7 / 12) <= at <= NOW + life * (2 / 3)
    assert at == renew_at(NOW, NOW + life, serial)


def test_a_thousand_sites_that_joined_together_come_back_spread():
    hours = [
        (renew_at(NOW, NOW + DAY, f"{i:040x}") - NOW) / timedelta(hours=1) for i in range(1000)
    ]
    quarters = [sum(14 + q / 2 <= hour < 14.5 + q / 2 for hour in hours) for q in range(4)]
    assert sum(quarters) == 1000
    assert min(quarters) > 190  # 250 expected; 190 is more than four standard deviations below


def test_due():
    at = renew_at(NOW, NOW + DAY, "x")
    assert not due(NOW, NOW + DAY, "x", at - timedelta(seconds=1))
    assert due(NOW, NOW + DAY, "x", at)
    assert due(NOW, NOW + DAY, "x", NOW + 2 * DAY)
