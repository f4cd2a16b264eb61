"""`docs/secure-aggregation.md`: every refusal of a client by its name."""

from __future__ import annotations

from pathlib import Path

from hansa.secagg.faults import Fault

PAGE = Path(__file__).resolve().parents[2] / "docs" / "secure-aggregation.md"


def test_every_refusal_is_named() -> None:
    rows = set(PAGE.read_text("utf-8").splitlines())
    for fault in Fault:
        assert f"| {fault.name.lower().replace('_', ' ')} | {fault.value} |" in rows
