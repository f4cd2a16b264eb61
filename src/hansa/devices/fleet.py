"""What becomes of a device that is given work: when its update arrives, or why none does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hansa.core.keys import ReplayKey
from hansa.devices.availability import ALWAYS, Availability
from hansa.devices.speed import LogNormal, Speeds

OFFLINE = "was offline"
LEFT = "went offline in the middle of its work"
VANISHED = "vanished in the middle of its work"


@dataclass(frozen=True, slots=True)
class Failures:
    """What goes wrong with devices, by chance.

    Attributes:
      probability: that a device vanishes while it works, whatever it has to do.
      per_hour: how often a device vanishes in an hour of work: long work is lost more often.
      stragglers: share of all work that takes `slowdown` times as long.
      slowdown: factor on the time of a straggler.
    """

    probability: float = 0.0
    per_hour: float = 0.0
    stragglers: float = 0.0
    slowdown: float = 10.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a device has to do.

    Attributes:
      down_bytes: to fetch.
      examples: to train on, each pass counted; measuring one counts a third of that.
      up_bytes: to send.
    """

    down_bytes: int
    examples: float
    up_bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one piece of work.

    Attributes:
      client: who did it.
      starts: virtual seconds at which the device takes it up; inf if it never does.
      ends: at which the update arrives, or the device is gone; inf if it never was there.
      failure: why no update arrives; empty if one does.
    """

    client: str
    starts: float
    ends: float
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Devices:
    """A population's devices.

    All that is random about them derives from keys that are handed in, so that a run repeats.

    Attributes:
      availability: who is online when.
      speeds: how fast each is.
      failures: what goes wrong.
    """

    availability: Availability = ALWAYS
    speeds: Speeds = field(default_factory=LogNormal)
    failures: Failures = field(default_factory=Failures)

    def outcome(self, client: str, at: float, work: Work, key: ReplayKey, name: str) -> Outcome:
        """What becomes of work that a client is given at a moment.

        A device that is offline takes it up when it is online next. One that goes offline, or
        vanishes, does not come back to the same work.

        Args:
          client: its name.
          at: virtual seconds.
          work: what there is to do.
          key: the simulation's; a device's own nature derives from it and the client's name.
          name: of this piece of work; its luck derives from that, too.
        """
        own = key.derive("device", client)
        start, end = self.availability.span(client, at, own)
        start = max(start, at)
        if math.isinf(start):
            return Outcome(client, math.inf, math.inf, OFFLINE)
        seconds = self._seconds(client, work, own, name)
        vanishes = self._vanishes(seconds, own, name)
        if vanishes < seconds and start + vanishes < end:
            return Outcome(client, start, start + vanishes, VANISHED)
        if start + seconds > end:
            return Outcome(client, start, end, LEFT)
        return Outcome(client, start, start + seconds)

    def _seconds(self, client: str, work: Work, own: ReplayKey, name: str) -> float:
        """How long the work takes, without anything that goes wrong."""
        speed = self.speeds.of(client, own)
        seconds = (
            work.down_bytes / speed.download
            + work.examples / speed.compute
            + work.up_bytes / speed.upload
        )
        share = self.failures.stragglers
        slow = share > 0 and own.generator("straggler", name).random() < share
        return seconds * self.failures.slowdown if slow else seconds

    def _vanishes(self, seconds: float, own: ReplayKey, name: str) -> float:
        """After how many seconds of work the device is gone; inf if it stays."""
        luck = self.failures
        if not luck.probability and not luck.per_hour:
            return math.inf
        chance, when, hours = own.generator("failure", name).random(3)
        gone = seconds * float(when) if chance < luck.probability else math.inf
        if luck.per_hour:
            gone = min(gone, -math.log1p(-float(hours)) / luck.per_hour * 3600.0)
        return gone
