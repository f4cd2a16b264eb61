"""`site.toml`: where a site's data are, and what it allows.

    [data]                           handed to the task as `site.config`, read by nobody else
    path = "patients.csv"

    [policy]
    federations = ["heart-study"]    whose jobs may run here
    tasks = ["sha256 of a bundle"]   which task code may run here ...
    signers = ["Ed25519 key, hex"]   ... or whose signature on a bundle is enough
    tiers = ["medium", "high"]       which risk tiers of jobs
    min_cohort = 3                   fewest clients whose updates are added up
    min_examples = 10                fewest training examples that an update is made of
    max_epsilon = 10.0               weakest guarantee; 0 = a job without privacy may run too
    units = ["client", "example"]    whose data a guarantee must hide: all of a client's, or one
                                     example's
    hours = "20:00-06:00"            local time in which training may start

    [budget]                         what all jobs that count by example may cost one of them
    name = "patients"                of the budget; other data, another name
    epsilon = 8.0                    0 = no limit but each job's own
    delta = 1e-6                     well below one by the number of examples
    order = 0                        Renyi order; 0 = the best for the first job

    [secure_aggregation]             what every masked sum must keep to, whatever is asked
    required = false                 true: no job may run whose updates can be read one by one
    min_cohort = 3                   fewest sites whose sum it helps to reveal
    min_organisations = 0            of how many organisations; 0 = as many as min_cohort
    min_threshold = 0.5              more than this share must answer to reveal anything
    max_size = 268435456             most coordinates of an update
    moduli = [16, 24, 32]            bits of the integers that are added
    min_corrupt = 0.0                smallest share of corrupt sites that must be assumed
    active = true                    whether a coordinator that lies must be assumed

    [limits]
    threads = 1                      processor threads of a task
    memory_mb = 4096                 memory of the agent, 0 = no limit
    round_seconds = 3600             longest work on one round

What is left out is refused where refusing is safer: no federation, no task and no signer is known.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from datetime import time
from pathlib import Path
from typing import Any

from hansa.errors import JobError
from hansa.secagg.floor import Floor

NAME = "site.toml"

TEMPLATE = """\
# What this site's tasks read, and what this site allows. See docs/site.md.

[data]
# path = "patients.csv"

[policy]
federations = ["{federation}"]
tasks = []            # add the digest that `hansa plan` shows for a task you have read
signers = []          # or the public keys of people whose tasks you trust
tiers = ["low", "medium", "high"]
min_cohort = 2
min_examples = 10     # fewest training examples that an update without noise is made of
max_epsilon = 0.0     # 0 = jobs without differential privacy may run too
units = ["client", "example"]  # whose data a guarantee must hide
hours = "00:00-24:00"

# [budget]              # what all jobs together may cost one example; only such jobs may run then
# name = "patients"
# epsilon = 8.0
# delta = 1e-6

[secure_aggregation]
required = false      # true: no job whose updates the coordinator could read one by one
min_cohort = 3

[limits]
threads = 1
memory_mb = 0
round_seconds = 3600.0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`[policy]`: what may run on this site's data."""

    federations: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    signers: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ("low", "medium", "high")
    min_cohort: int = 2
    min_examples: int = 10
    max_epsilon: float = 0.0
    units: tuple[str, ...] = ("client", "example")
    hours: str = "00:00-24:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """`[budget]`: what all jobs that count by example may cost one example of this site."""

    name: str = "examples"
    epsilon: float = 0.0
    delta: float = 0.0
    order: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureAggregation:
    """`[secure_aggregation]`: the least that a masked sum must keep to."""

    required: bool = False
    min_cohort: int = 3
    min_organisations: int = 0
    min_threshold: float = 0.5
    max_size: int = 1 << 28
    moduli: tuple[int, ...] = (16, 24, 32)
    min_corrupt: float = 0.0
    active: bool = True

    @property
    def floor(self) -> Floor:
        """The same, as the protocol takes it."""
        return Floor(
            cohort=self.min_cohort,
            organisations=self.min_organisations,
            threshold=self.min_threshold,
            size=self.max_size,
            bits=self.moduli,
            corrupt=self.min_corrupt,
            active=self.active,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`[limits]`: how much of this machine a task may use."""

    threads: int = 1
    memory_mb: int = 0
    round_seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig:
    """A site's folder and what its `site.toml` says.

    Attributes:
      folder: the folder; relative paths in `[data]` are the task's to resolve against it.
      data: the site's own configuration for tasks.
      policy: what may run.
      budget: what all jobs together may cost one example.
      secure_aggregation: what masked sums must keep to.
      limits: how much it may use.
    """

    folder: Path
    data: dict[str, Any] = field(default_factory=dict)
    policy: Policy = Policy()
    budget: Budget = Budget()
    secure_aggregation: SecureAggregation = SecureAggregation()
    limits: Limits = Limits()


def load(folder: Path) -> SiteConfig:
    """Reads a site's folder.

    Raises:
      JobError: there is no `site.toml`, or it says something impossible; names the line.
    """
    path = folder / NAME
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise JobError(
            "there is no site here", fix="run: hansa site join INVITE", file=str(path)
        ) from None
    try:
        words = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else 0
        raise JobError(str(error), fix="correct the line", file=str(path), line=line) from error
    reader = _Reader(str(path), text)
    reader.known("", words, ("data", "policy", "budget", "secure_aggregation", "limits"))
    return SiteConfig(
        folder=folder,
        data=dict(words.get("data", {})),
        policy=reader.section("policy", words.get("policy", {}), Policy()),
        budget=reader.section("budget", words.get("budget", {}), Budget()),
        secure_aggregation=reader.section(
            "secure_aggregation", words.get("secure_aggregation", {}), SecureAggregation()
        ),
        limits=reader.section("limits", words.get("limits", {}), Limits()),
    )


def opening_hours(hours: str) -> tuple[time, time]:
    """Start and end of `HH:MM-HH:MM`; 24:00 is the end of the day.

    Raises:
      ValueError: the text is no span of time.
    """
    start, _, end = hours.partition("-")
    latest = time.max if end.strip() == "24:00" else time.fromisoformat(end.strip())
    return time.fromisoformat(start.strip()), latest


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks one file's tables against the dataclasses that they become."""

    file: str
    text: str

    def section(self, name: str, table: Any, default: Any) -> Any:
        if not isinstance(table, dict):
            raise self._error(name, f"[{name}] is no table", f"write [{name}] on a line of its own")
        allowed = [f.name for f in fields(default)]
        self.known(name, table, allowed)
        values = {
            key: self._value(key, value, getattr(default, key)) for key, value in table.items()
        }
        return type(default)(**values)

    def known(self, section: str, table: dict[str, Any], allowed: Any) -> None:
        for key in table:
            if key not in allowed:
                where = f"[{section}]" if section else "a site"
                raise self._error(
                    key, f"{where} has no '{key}'", f"use one of: {', '.join(allowed)}"
                )

    def _value(self, key: str, value: Any, default: Any) -> Any:
        if isinstance(default, tuple):
            return self._values(key, value, default)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            kind = _KINDS[type(default)]
            example = str(default).lower() if isinstance(default, bool) else repr(default)
            raise self._error(key, f"{key} = {value!r} is not {kind}", f"write {key} = {example}")
        if isinstance(value, (int, float)) and value < 0:
            raise self._error(key, f"{key} = {value} is negative", "use 0 or more")
        if key == "min_threshold" and value >= 1:
            raise self._error(
                key,
                f"min_threshold = {value} cannot be exceeded",
                "use a share below 1, such as 0.5",
            )
        if key == "hours":
            try:
                opening_hours(value)
            except ValueError:
                raise self._error(
                    key, f"hours = {value!r} is no span of time", 'write hours = "20:00-06:00"'
                ) from None
        return value

    def _values(self, key: str, value: Any, default: tuple[Any, ...]) -> tuple[Any, ...]:
        kind = type(default[0]) if default and key == "moduli" else str
        if not isinstance(value, list) or not all(type(each) is kind for each in value):
            words, example = ("numbers", "[16, 24, 32]") if kind is int else ("texts", '["..."]')
            raise self._error(key, f"{key} is no list of {words}", f"write {key} = {example}")
        if key == "moduli" and not 0 < len(set(value) & {16, 24, 32}) == len(value):
            raise self._error(
                key, f"moduli = {value!r} are not some of 16, 24 and 32", "write moduli = [32]"
            )
        return tuple(value)

    def _error(self, key: str, message: str, fix: str) -> JobError:
        pattern = re.compile(rf"^\s*(\[\s*)?{re.escape(key)}\b")
        lines = self.text.splitlines()
        line = next((n for n, text in enumerate(lines, 1) if pattern.match(text)), 0)
        return JobError(message, fix=fix, file=self.file, line=line)
