"""Turns: a fixed number at once, in order of arrival; whoever has one knows whether others wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hansa.wire.limits import CHUNK_SECONDS, CONTENDED_SECONDS


class Turns:
    """At most `count` at once."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._waiting = 0

    @property
    def contended(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._waiting > 0

    @property
    def used(self) -> bool:
        """Whether all turns are taken."""
        return self._free.locked()

    def patience(self) -> float:
        """How long, in seconds, the other side may be silent in a turn: less if others wait."""
        return CONTENDED_SECONDS if self.contended else CHUNK_SECONDS

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """One turn."""
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
