"""`devices.toml`: the devices of a simulation.

    [availability]
    kind = "daily"                   always | daily | recorded
    begins = "22:00"                 daily: local time at which a device comes online
    hours = 8.0                      daily: for how long
    zones = [-8, -5, 0, 1]           daily: hours ahead of UTC, each device has one of them
    jitter = 1.0                     daily: hours by which both ends differ from day to day
    trace = "online.csv"             recorded: columns client, start, end, in seconds
    period = 604800.0                recorded: seconds after which it begins again; 0 = never

    [speed]
    kind = "lognormal"               lognormal | recorded
    compute = 100.0                  lognormal: median training examples a second
    download = 2500000.0             lognormal: median bytes a second
    upload = 600000.0                lognormal: median bytes a second
    compute_spread = 1.0             lognormal: standard deviation of the logarithm
    network_spread = 0.7             lognormal: the same for both network speeds
    trace = "speeds.csv"             recorded: columns client, compute, download, upload

    [failures]
    probability = 0.05               that a device vanishes while it works
    per_hour = 0.1                   how often it vanishes in an hour of work
    stragglers = 0.02                share of all work that takes longer by
    slowdown = 10.0                  this factor

What is left out is as in `Devices()`: always online, the speeds above, no failures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hansa.devices.availability import ALWAYS, Availability, Daily, Recorded
from hansa.devices.fleet import Devices, Failures
from hansa.devices.speed import LogNormal, RecordedSpeeds, Speeds
from hansa.devices.tables import read_spans, read_speeds
from hansa.errors import JobError
from hansa.jobfile.locate import Path as Place
from hansa.jobfile.mistakes import line_of
from hansa.jobfile.syntax import parse
from hansa.nearest import suggest

MOST_ZONE = 14.0
"""Hours that local time is ahead of, or behind, UTC at most."""

_DAILY = ("begins", "hours", "zones", "jitter")
_AVAILABILITY = {"always": (), "daily": _DAILY, "recorded": ("trace", "period")}
_SPEED = {"lognormal": tuple(f.name for f in fields(LogNormal)), "recorded": ("trace",)}


def load_devices(path: Path | str) -> Devices:
    """Reads a file of devices, and the traces that it names.

    Raises:
      JobError: a file cannot be read, or says what cannot be; names the line.
    """
    file = Path(path)
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(
            f"the devices cannot be read: {why}", fix="name a TOML file", file=str(path)
        ) from error
    words, lines = parse(text.replace("\r\n", "\n"), str(path))
    reader = _Reader(str(path), lines)
    for name in words:
        if name not in ("availability", "speed", "failures"):
            raise reader.wrong(
                (name,),
                f"there is no '{name}' here",
                suggest(name, ("availability", "speed", "failures"), "sections"),
            )
    return Devices(
        _availability(_Section.of(reader, words, "availability"), file.parent),
        _speeds(_Section.of(reader, words, "speed"), file.parent),
        _failures(_Section.of(reader, words, "failures")),
    )


def _availability(section: _Section, folder: Path) -> Availability:
    match section.kind(_AVAILABILITY, "always"):
        case "daily":
            hours = section.number("hours", 8.0, above=0.0, at_most=24.0)
            daily = Daily(
                section.clock("begins", "22:00"), hours, section.zones(), section.number("jitter")
            )
            if daily.hours + 2 * daily.jitter > 24 or 2 * daily.jitter >= daily.hours:
                raise section.wrong(
                    "jitter" if daily.jitter else "hours",
                    f"{hours:g} hours with a jitter of {daily.jitter:g} can vanish, or last longer "
                    "than a day",
                    "set a jitter that is below half of the hours, and of what is left of the day",
                )
            return daily
        case "recorded":
            spans, period = read_spans(section.file("trace", folder)), section.number("period")
            last = max(each[-1][1] for each in spans.values())
            if 0 < period < last:
                raise section.wrong(
                    "period",
                    f"the trace lasts {last:g} s, and would begin again after {period:g} s",
                    f"set period to at least {last:g}, or to 0",
                )
            return Recorded(spans, period)
    return ALWAYS


def _speeds(section: _Section, folder: Path) -> Speeds:
    if section.kind(_SPEED, "lognormal") == "recorded":
        return RecordedSpeeds(read_speeds(section.file("trace", folder)))
    usual = LogNormal()
    return LogNormal(
        *(
            section.number(name, getattr(usual, name), above=0.0)
            for name in _SPEED["lognormal"][:3]
        ),
        *(
            section.number(name, getattr(usual, name), at_most=5.0)
            for name in _SPEED["lognormal"][3:]
        ),
    )


def _failures(section: _Section) -> Failures:
    section.known(tuple(f.name for f in fields(Failures)), "")
    return Failures(
        section.number("probability", at_most=1.0),
        section.number("per_hour"),
        section.number("stragglers", at_most=1.0),
        section.number("slowdown", Failures().slowdown, at_least=1.0),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Where each key of one file stands."""

    file: str
    lines: Mapping[Place, int]

    def wrong(self, path: Place, message: str, fix: str) -> JobError:
        return JobError(message, fix=fix, file=self.file, line=line_of(path, self.lines))


@dataclass(frozen=True, slots=True)
class _Section:
    """One section's words, each checked when it is asked for."""

    reader: _Reader
    name: str
    words: Mapping[str, Any]

    @classmethod
    def of(cls, reader: _Reader, words: Mapping[str, Any], name: str) -> _Section:
        found = words.get(name, {})
        if not isinstance(found, Mapping):
            raise reader.wrong((name,), f"{name} is no section", f"write [{name}] on a line alone")
        return cls(reader, name, found)

    def wrong(self, key: str, message: str, fix: str) -> JobError:
        return self.reader.wrong((self.name, key), message, fix)

    def kind(self, keys: Mapping[str, tuple[str, ...]], usual: str) -> str:
        """What sort of section it is, once its keys are known to belong to that."""
        kind = self.words.get("kind", usual)
        if kind not in keys:
            raise self.wrong(
                "kind",
                f"there is no kind {kind!r} of {self.name}",
                suggest(str(kind), keys, "kinds"),
            )
        self.known(("kind", *keys[kind]), f' of kind "{kind}"')
        return str(kind)

    def known(self, names: tuple[str, ...], of: str) -> None:
        for key in self.words:
            if key not in names:
                raise self.wrong(
                    key, f"[{self.name}]{of} has no '{key}'", suggest(key, names, "keys")
                )

    def number(
        self,
        key: str,
        usual: float = 0.0,
        *,
        at_least: float = 0.0,
        above: float = -1.0,
        at_most: float = float("inf"),
    ) -> float:
        value = self.words.get(key, usual)
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        if (
            not right
            or not (at_least <= value <= at_most and value > above)
            or value == float("inf")
        ):
            limits = f"more than {above:g}" if above >= 0 else f"at least {at_least:g}"
            most = "" if at_most == float("inf") else f" and at most {at_most:g}"
            raise self.wrong(
                key, f"{key} is {value!r}; it must be a number, {limits}{most}", "change it"
            )
        return float(value)

    def clock(self, key: str, usual: str) -> float:
        """A time of the day, in hours."""
        value = self.words.get(key, usual)
        hour, _, minute = str(value).partition(":")
        if not (hour.isdecimal() and minute.isdecimal() and len(minute) == 2):
            raise self.wrong(key, f"{key} is {value!r}, no time of day", 'write it as "22:00"')
        hours = int(hour) + int(minute) / 60
        if int(minute) > 59 or hours > 24:
            raise self.wrong(key, f"{key} is {value!r}, no time of day", 'write it as "22:00"')
        return hours

    def zones(self) -> tuple[float, ...]:
        value = self.words.get("zones", [0])
        right = isinstance(value, list) and value
        if not right or not all(type(z) in (int, float) and abs(z) <= MOST_ZONE for z in value):
            raise self.wrong(
                "zones",
                f"zones is {value!r}; it must be hours ahead of UTC, each between -14 and 14",
                "write zones = [-5, 0, 1]",
            )
        return tuple(float(zone) for zone in value)

    def file(self, key: str, folder: Path) -> Path:
        value = self.words.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(
                key,
                f"[{self.name}] is recorded and names no trace",
                'add a line trace = "file.csv", beside this file or with its whole path',
            )
        return folder / value
