"""Who is online when: against spans that are written down by hand, second by second."""

from __future__ import annotations

import math

import pytest

from hansa.core.keys import ReplayKey
from hansa.devices.availability import ALWAYS, DAY, HOUR, NEVER, Daily, Recorded

KEY = ReplayKey.of_seed(4)


def online(availability, at: float, device: str = "a", key: ReplayKey = KEY) -> bool:
    start, end = availability.span(device, at, key)
    assert end > at
    return bool(start <= at)


def test_always_is_always():
    assert ALWAYS.span("a", 12.5, KEY) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("zone", "hour", "expected"),
    [
        (0, 21.9, False),
        (0, 22.1, True),
        (0, 0.5, True),
        (0, 5.9, True),
        (0, 6.1, False),
        (8, 14.1, True),  # 22:06 in a zone eight hours ahead
        (8, 13.9, False),
        (-5, 3.1, True),
        (-5, 2.9, False),
    ],
)
def test_nights_follow_the_time_zone(zone, hour, expected):
    nights = Daily(22.0, 8.0, (float(zone),))
    for day in (1, 2, 40):
        assert online(nights, day * DAY + hour * HOUR) is expected


def test_the_first_night_has_begun_when_the_simulation_begins():
    start, end = Daily(22.0, 8.0).span("a", 0.0, KEY)
    assert (start, end) == (0.0, 6 * HOUR)
    assert Daily(22.0, 8.0).span("a", 6 * HOUR, KEY) == (22 * HOUR, 30 * HOUR)
    assert Daily(0.0, 24.0).span("a", 99.0, KEY) == (0.0, math.inf)


def test_jitter_moves_both_ends_by_no_more_than_it_says_and_differs_from_day_to_day():
    nights, at, ends = Daily(22.0, 8.0, jitter=1.5), 0.0, []
    for day in range(60):
        start, end = nights.span("a", at, KEY)
        if day:
            assert abs(start - ((day - 1) * DAY + 22 * HOUR)) <= 1.5 * HOUR
        assert abs(end - (day * DAY + 6 * HOUR)) <= 1.5 * HOUR
        ends.append(end - day * DAY)
        at = end
    assert max(ends) - min(ends) > 2 * HOUR
    assert nights.span("a", 5 * DAY, KEY) == nights.span("a", 5 * DAY, KEY)


def test_zones_are_shared_out_among_the_devices():
    nights = Daily(0.0, 6.0, (0.0, 6.0, 12.0, 18.0))
    share = [
        sum(online(nights, hour * HOUR, key=KEY.derive(i)) for i in range(400)) / 400
        for hour in (3, 9, 15, 21)
    ]
    assert sum(share) == 1
    assert all(0.15 < each < 0.35 for each in share)


TRACE = Recorded({"a": ((10.0, 20.0), (50.0, 60.0)), "b": ((0.0, 5.0), (90.0, 100.0))}, 100.0)


@pytest.mark.parametrize(
    ("device", "at", "span"),
    [
        ("a", 0, (10, 20)),
        ("a", 15, (10, 20)),
        ("a", 20, (50, 60)),
        ("a", 60, (110, 120)),
        ("a", 1015, (1010, 1020)),
        ("b", 5, (90, 105)),  # over the end of the trace
        ("b", 95, (90, 105)),
        ("b", 199, (190, 205)),
    ],
)
def test_a_trace_is_followed_and_repeated(device, at, span):
    assert TRACE.span(device, float(at), KEY) == span


def test_a_trace_that_is_not_repeated_ends():
    once = Recorded(TRACE.spans)
    assert once.span("a", 55.0, KEY) == (50.0, 60.0)
    assert once.span("a", 60.0, KEY) == NEVER
    whole = Recorded({"a": ((0.0, 100.0),)}, 100.0)
    assert whole.span("a", 250.0, KEY) == (0.0, math.inf)


def test_who_is_not_in_the_trace_follows_one_of_its_devices():
    first = {TRACE.span("else", 0.0, KEY.derive(i)) for i in range(40)}
    assert first == {(10.0, 20.0), (0.0, 5.0)}
    assert TRACE.span("else", 0.0, KEY) == TRACE.span("else", 0.0, KEY)
