"""What happens, in words: one row per kind of event and of log entry."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.news import entry_words, event_words, moment, without_fix

ROUND: dict[str, Any] = {"purpose": "train", "round": 3, "attempt": 0}
COUNTS: dict[str, Any] = {"asked": 4, "counted": 3, "seconds": 1.234, "model": "0" * 64}
WHY = "the disk is full. Fix: free some"

BACK = {"metric": "auroc", "tolerance": 0.1, "back": 2}
EVENTS = {
    "submitted": (
        "job.submitted",
        {"name": "heart", "plan_digest": "0123456789abcdef" * 4},
        "heart is submitted, plan 0123456789abcdef",
    ),
    "running": (
        "job.status",
        {"from": "offered", "to": "running", "reason": ""},
        "the job is running",
    ),
    "failed": (
        "job.status",
        {"from": "running", "to": "failed", "reason": WHY},
        "the job is failed: the disk is full",
    ),
    "yes": ("job.decided", {"site": "kiel", "accepted": True, "reason": ""}, "kiel accepts"),
    "no": (
        "job.decided",
        {"site": "kiel", "accepted": False, "reason": WHY},
        "kiel refuses: the disk is full",
    ),
    "opened": ("round.opened", {**ROUND, "asked": 4, "model": "0" * 64}, ""),
    "closed": (
        "round.closed",
        {**ROUND, **COUNTS, "metrics": {"loss": 0.46789, "auroc": None}},
        "round 3: 3 of 4 in 1.23 s  loss 0.4679",
    ),
    "again": (
        "round.closed",
        {**ROUND, **COUNTS, "attempt": 1, "metrics": {}},
        "round 3, attempt 1: 3 of 4 in 1.23 s",
    ),
    "measured": (
        "round.closed",
        {**ROUND, **COUNTS, "purpose": "evaluate", "metrics": {"loss": 0.5}},
        "evaluate: 3 of 4 in 1.23 s  loss 0.5",
    ),
    "void": ("round.void", {**ROUND, **COUNTS, "metrics": {}}, "round 3 is void: 3 of 4 came"),
    "rejected": (
        "model.rejected",
        {**ROUND, **BACK, "value": 0.51234, "best": 0.9},
        "round 3: the model is rejected: auroc 0.5123 is worse than 0.9 by more than 0.1; on from "
        "the model that round 2 started from",
    ),
    "rejected at the end, without a number": (
        "model.rejected",
        {**ROUND, **BACK, "purpose": "evaluate", "value": "nan", "best": None},
        "evaluate: the model is rejected: auroc is no finite number; on from the model that round "
        "2 started from",
    ),
    "a kind of a later version": ("site.moved", {"site": "kiel"}, "site.moved  site kiel"),
}


@pytest.mark.parametrize(("kind", "body", "words"), EVENTS.values(), ids=EVENTS)
def test_events_in_words(kind: str, body: dict[str, Any], words: str) -> None:
    assert event_words({"kind": kind, "body": body, "time": 0.0}) == words


ENTRIES = {
    "yes": ({"kind": "verdict", "accepted": True, "reason": ""}, ("accepted", "heart-1")),
    "no": (
        {"kind": "verdict", "accepted": False, "reason": WHY},
        ("refused", "heart-1: the disk is full"),
    ),
    "left": (
        {"kind": "left", **ROUND, "bytes": 12345, "segments": {"delta": 3000, "weight": 1}},
        ("left", "heart-1 round 3: 12,345 bytes: delta 3,000, weight 1"),
    ),
    "left under a mask": (
        {"kind": "left", **ROUND, "bytes": 9, "segments": {"delta": 3}, "masked": True},
        ("left", "heart-1 round 3: 9 bytes under a mask: delta 3"),
    ),
    "received": ({"kind": "received", **ROUND, "reason": ""}, ("received", "heart-1 round 3")),
    "dropped": (
        {"kind": "dropped", **ROUND, "attempt": 2, "reason": WHY},
        ("dropped", "heart-1 round 3, attempt 2: the disk is full"),
    ),
}


@pytest.mark.parametrize(("entry", "words"), ENTRIES.values(), ids=ENTRIES)
def test_entries_in_words(entry: dict[str, Any], words: tuple[str, str]) -> None:
    assert entry_words({**entry, "job": "heart-1"}) == words


def test_what_happened_is_told_without_the_fix() -> None:
    assert without_fix(WHY) == "the disk is full"
    assert without_fix("stopped by hand") == "stopped by hand"


def test_a_moment_is_in_utc() -> None:
    assert moment(86_399.0) == "01-01 23:59:59"
