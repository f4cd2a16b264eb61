"""Entries: what a budget's log holds, one for each block and each step of a charge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hansa.core.canonical import Json
from hansa.errors import HansaError


class Kind(StrEnum):
    """What an entry does to its block."""

    CREATE = "create"
    HOLD = "hold"
    RESERVE = "reserve"
    COMMIT = "commit"
    REFUND = "refund"
    SETTLE = "settle"


@dataclass(frozen=True, slots=True)
class Key:
    """The name of a charge; with a block it is sent as often as one likes and counts once.

    Attributes:
      job: identifier of the run of the job.
      purpose: of the round: train or evaluate.
      round: its number.
      attempt: the try; a try again has fresh noise and is another charge.
    """

    job: str
    purpose: str
    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    | kind    | job, key | urdp                | more                                   |
    |---------|----------|---------------------|----------------------------------------|
    | create  |          | capacity            | `definition`: the block's words        |
    | hold    | job      | set aside           | `each`: dearest release; `releases`    |
    | reserve | key      | drawn               | `from_hold`, `event`                   |
    | commit  | key      | what was reserved   |                                        |
    | refund  | key      | what was reserved   | `statement`: that nothing was released |
    | settle  | job      | free again          | `open`: reservations that are spent    |

    Attributes:
      kind: see above.
      block: name of the block.
      job: identifier; empty for a block's creation.
      purpose: see `Key`; empty where no single charge is meant.
      round: see `Key`; 0 likewise.
      attempt: see `Key`; 0 likewise.
      urdp: micro-RDP, see above.
      time: seconds since the epoch.
      more: see above.
    """

    kind: Kind
    block: str
    job: str
    purpose: str
    round: int
    attempt: int
    urdp: int
    time: float
    more: Mapping[str, Json] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """The charge that it is about."""
        return Key(self.job, self.purpose, self.round, self.attempt)

    @property
    def body(self) -> dict[str, Json]:
        """The entry as JSON."""
        return {
            "kind": self.kind.value,
            "block": self.block,
            "job": self.job,
            "purpose": self.purpose,
            "round": self.round,
            "attempt": self.attempt,
            "urdp": self.urdp,
            "time": self.time,
            **self.more,
        }


_TYPES: Mapping[str, tuple[type, ...]] = {
    "kind": (str,),
    "block": (str,),
    "job": (str,),
    "purpose": (str,),
    "round": (int,),
    "attempt": (int,),
    "urdp": (int,),
    "time": (int, float),
}

_PLACED = frozenset((*_TYPES, "chain", "seq"))


def entry_of(said: Mapping[str, Any]) -> Entry:
    """Reads an entry back from its JSON; `chain` and `seq` are its place, not part of it.

    Raises:
      HansaError: it is no entry.
    """
    try:
        for name, types in _TYPES.items():
            if type(said[name]) not in types:
                raise TypeError(name)
        kind = Kind(said["kind"])
    except (KeyError, TypeError, ValueError):
        raise HansaError(
            f"{dict(said)!r:.200} is no entry of a budget's log",
            fix="read it with the version of Hansa that wrote it",
        ) from None
    return Entry(
        kind,
        said["block"],
        said["job"],
        said["purpose"],
        said["round"],
        said["attempt"],
        said["urdp"],
        said["time"],
        {name: value for name, value in said.items() if name not in _PLACED},
    )
