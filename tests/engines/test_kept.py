"""Examples kept between rounds: the last ones, and no more bytes than were allowed."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.core.parts import Examples, Split
from hansa.engines.kept import Kept


def source(calls: list[str], size: int = 100):
    """Splits of so many bytes; it notes who was read."""

    def read(client: str) -> Split:
        calls.append(client)
        if client == "bad":
            raise OSError("no such file")
        empty = Examples(np.zeros((0, 1), np.uint8), np.zeros(0, np.uint8))
        wide = 10 * size if client == "huge" else size
        return Split(Examples(np.zeros((1, wide - 1), np.uint8), np.zeros(1, np.uint8)), empty)

    return read


def test_the_last_ones_are_kept():
    calls: list[str] = []
    kept = Kept(source(calls), most=300)
    for client in ("a", "b", "c", "a", "d", "a", "b"):
        assert len(kept(client).train) == 1
    assert calls == ["a", "b", "c", "d", "b"], "b was the one that was not asked for"
    assert kept._bytes == 300


def test_what_is_too_large_is_read_again_and_drives_nobody_out():
    calls: list[str] = []
    kept = Kept(source(calls), most=300)
    for client in ("a", "huge", "huge", "a"):
        kept(client)
    assert calls == ["a", "huge", "huge"]
    assert kept._bytes == 100


def test_what_fails_fails_again():
    calls: list[str] = []
    kept = Kept(source(calls))
    for _ in range(2):
        with pytest.raises(OSError, match="no such"):
            kept("bad")
    assert calls == ["bad", "bad"]
