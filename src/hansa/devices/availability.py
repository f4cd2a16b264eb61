"""Who is online when: always, at certain hours of the own day, or as it was recorded."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from hansa.core.keys import ReplayKey

HOUR = 3600.0
DAY = 24 * HOUR

Span: TypeAlias = tuple[float, float]
"""From when to when, in virtual seconds; the end is not part of it."""

NEVER: Span = (math.inf, math.inf)


class Availability(Protocol):
    """When a device is online."""

    def span(self, device: str, at: float, key: ReplayKey) -> Span:
        """The stretch of being online that holds `at`, or the next one after it.

        Args:
          device: its name.
          at: virtual seconds, 0 or more.
          key: the device's own key; what is random about it follows from that alone.

        Returns:
          `NEVER` if the device is not online again.
        """


@dataclass(frozen=True, slots=True)
class Always:
    """Every device is online all the time."""

    def span(self, device: str, at: float, key: ReplayKey) -> Span:  # noqa: ARG002  # the seam's signature
        """From the beginning, without end."""
        return 0.0, math.inf


ALWAYS = Always()


@dataclass(frozen=True, slots=True)
class Daily:
    """A device is online once a day, at about the same hours of its own time zone.

    That is how phones do it that take part while they are charged and unused (Bonawitz et al.,
    MLSys 2019): most of a time zone is online at once, at night.

    | begins, hours | the device is online                                  |
    |---------------|-------------------------------------------------------|
    | 22, 8         | from 22:00 to 06:00 of its time, give or take jitter  |
    | any, 24       | all the time; jitter must be 0                        |

    Attributes:
      begins: hour of the local day at which it starts, 0 to 24.
      hours: how long it lasts, up to 24.
      zones: hours that local time is ahead of UTC; each device has one of them, by chance.
      jitter: begin and end differ by up to so many hours from day to day.
    """

    begins: float
    hours: float
    zones: tuple[float, ...] = (0.0,)
    jitter: float = 0.0

    def span(self, device: str, at: float, key: ReplayKey) -> Span:  # noqa: ARG002  # the seam's signature
        """The stretch of today, or of yesterday while that lasts, or else the next one."""
        if self.hours >= 24:
            return 0.0, math.inf
        zone = self.zones[int(key.generator("zone").integers(len(self.zones)))]
        first = (self.begins - zone) * HOUR
        day = math.floor((at - first) / DAY) - 1
        while True:
            start, end = self._on(first, day, key)
            if end > at:
                return max(start, 0.0), end
            day += 1

    def _on(self, first: float, day: int, key: ReplayKey) -> Span:
        start = first + day * DAY
        early, late = (
            key.generator("day", day).uniform(-self.jitter, self.jitter, 2)
            if self.jitter
            else (0.0, 0.0)
        )
        return start + float(early) * HOUR, start + (self.hours + float(late)) * HOUR


@dataclass(frozen=True, slots=True)
class Recorded:
    """Devices are online as a trace says.

    A client whose name is in the trace follows its own line; any other one follows a recorded
    device that is drawn for it, so that a small trace serves a large population.

    Attributes:
      spans: when each recorded device is online, in order and without overlap.
      period: seconds after which the trace begins again; 0 = it never does.
    """

    spans: Mapping[str, tuple[Span, ...]]
    period: float = 0.0
    _names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", tuple(sorted(self.spans)))  # frozen for everybody else

    def span(self, device: str, at: float, key: ReplayKey) -> Span:
        """The recorded stretch; one that ends with the trace goes on into its repetition."""
        if device not in self.spans:
            device = self._names[int(key.generator("trace").integers(len(self._names)))]
        spans = self.spans[device]
        if not self.period:
            return _after(spans, at)
        turn = math.floor(at / self.period) * self.period
        found = _after(spans, at - turn)
        if found == NEVER:
            turn, found = turn + self.period, spans[0]
        start, end = found
        if end >= self.period and spans[0][0] <= 0:
            if start <= 0:
                return 0.0, math.inf
            end = self.period + spans[0][1]
        return turn + start, turn + end


def _after(spans: tuple[Span, ...], at: float) -> Span:
    place = bisect_right(spans, at, key=lambda span: span[1])
    return spans[place] if place < len(spans) else NEVER
