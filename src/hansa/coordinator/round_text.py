"""Records and states as text, and back: canonical JSON in which every float survives, also NaN.

A model that diverges has metrics that are infinite or no numbers; the record of such a round must
still be written, and must still read back as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from hansa.coordinator.rows import AcceptedRow
from hansa.core import canonical
from hansa.core.canonical import Json
from hansa.core.contribute import Purpose
from hansa.core.parts import Dropout
from hansa.core.rollback import Rejected
from hansa.core.round import RoundRecord


def number_text(value: float | None) -> str:
    """A float, or None, as JSON."""
    return canonical.dumps(_number(value))


def number_of(text: str) -> float | None:
    """The float, or None, that `number_text` wrote."""
    value = json.loads(text)
    return None if value is None else float(value)


def accepted_text(row: AcceptedRow | None) -> str:
    """What is gone back to, or None, as JSON."""
    if row is None:
        return canonical.dumps(None)
    return canonical.dumps(
        {
            "round": row.round,
            "model": row.model_sha256,
            "server": row.server_sha256s,
            "clip": _number(row.clip),
        }
    )


def accepted_of(text: str) -> AcceptedRow | None:
    """The row, or None, that `accepted_text` wrote."""
    said = json.loads(text)
    if said is None:
        return None
    clip = None if said["clip"] is None else float(said["clip"])
    return AcceptedRow(said["round"], said["model"], tuple(said["server"]), clip)


def record_text(record: RoundRecord) -> str:
    """A record as canonical JSON."""
    return canonical.dumps(
        {
            "purpose": record.purpose.value,
            "round": record.round,
            "attempt": record.attempt,
            "cohort": record.cohort,
            "members": record.members,
            "dropouts": [list(astuple(dropout)) for dropout in record.dropouts],
            "void": record.void,
            "metrics": _numbers(record.metrics),
            "seconds": record.seconds,
            "model": record.model,
            **_more(record),
        }
    )


def _more(record: RoundRecord) -> dict[str, object]:
    """What only some rounds have: virtual time, updates of several ages, a rejected model."""
    virtual, rejected = record.virtual_seconds, record.rejected
    return {
        **({} if virtual is None else {"virtual_seconds": virtual}),
        **({"ages": record.ages} if record.ages else {}),
        **({} if rejected is None else {"rejected": rejection(rejected)}),
    }


def rejection(rejected: Rejected) -> dict[str, Json]:
    """Why a model was rejected, as JSON."""
    return {
        "metric": rejected.metric,
        "value": _number(rejected.value),
        "best": _number(rejected.best),
        "tolerance": rejected.tolerance,
        "back": rejected.back,
    }


def _rejection_of(said: Mapping[str, Any]) -> Rejected:
    best = None if said["best"] is None else float(said["best"])
    return Rejected(said["metric"], float(said["value"]), best, said["tolerance"], said["back"])


def record_of(text: str) -> RoundRecord:
    """The record that `record_text` wrote."""
    said = json.loads(text)
    return RoundRecord(
        purpose=Purpose(said["purpose"]),
        round=said["round"],
        attempt=said["attempt"],
        cohort=tuple(said["cohort"]),
        members=tuple(said["members"]),
        dropouts=tuple(Dropout(*dropout) for dropout in said["dropouts"]),
        void=said["void"],
        metrics={n: None if v is None else float(v) for n, v in said["metrics"].items()},
        seconds=float(said["seconds"]),
        model=said["model"],
        virtual_seconds=said.get("virtual_seconds"),
        ages=tuple(said.get("ages", ())),
        rejected=_rejection_of(said["rejected"]) if "rejected" in said else None,
    )


def summary(record: RoundRecord) -> dict[str, object]:
    """What the audit trail says about a round: counts and metrics, nobody's name."""
    return {
        "asked": len(record.cohort),
        "counted": len(record.members),
        "metrics": _numbers(record.metrics),
        "seconds": record.seconds,
        "model": record.model,
        **({"ages": record.ages} if record.ages else {}),
    }


def _numbers(values: dict[str, float | None]) -> dict[str, Json]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float | None) -> Json:
    """A float as JSON; JSON has no infinities and no NaN, so they are words."""
    if value is None or math.isfinite(value):
        return value
    return str(float(value))
