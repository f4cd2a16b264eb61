"""A fixed number of receive buffers, so that memory does not grow with the number of senders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np


class Buffers:
    """At most `count` buffers at once; a transfer waits for one, in order of arrival."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._waiting = 0
        self._kept: list[memoryview] = []

    @property
    def contended(self) -> bool:
        """Whether somebody waits for a buffer."""
        return self._waiting > 0

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[memoryview]:
        """A writable buffer of exactly `size` bytes, for the time of one transfer."""
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            buffer = self._kept.pop() if self._kept else None
            if buffer is None or len(buffer) != size:
                buffer = np.empty(size, np.uint8).data
            yield buffer
            if self.contended:  # for whoever comes next; otherwise the memory is given back
                self._kept.append(buffer)
        finally:
            self._free.release()
