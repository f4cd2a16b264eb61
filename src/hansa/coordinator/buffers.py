"""A fixed number of receive buffers, so that memory does not grow with the number of senders.

    wait ──► sending: one after the other ──► take: a buffer ──► filled ──► folded
                 │                                  ▲              │
                 └─ the first chunks on their way ──┘              └── the next one sends

While one update is folded, the next one's first chunks travel already; they wait for the buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import numpy as np

from hansa.coordinator.turns import Turns
from hansa.memory import trim


class Buffers:
    """At most `count` buffers at once, and as many senders; each waits in order of arrival."""

    def __init__(self, count: int) -> None:
        self._line = Turns(count)
        self._buffers = Turns(count)
        self._kept: list[memoryview] = []

    def patience(self) -> float:
        """How long, in seconds, whoever sends may be silent: less if others wait."""
        return self._line.patience()

    def sending(self) -> AbstractAsyncContextManager[None]:
        """A turn to send, from the first chunk to the last."""
        return self._line.take()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[memoryview]:
        """A writable buffer of exactly `size` bytes, from the first chunk to the end of a fold."""
        async with self._buffers.take():
            buffer = self._kept.pop() if self._kept else None
            if buffer is None or len(buffer) != size:
                buffer = await asyncio.to_thread(_fresh, size)
            yield buffer
            if self._line.used:  # for whoever comes next; otherwise the memory is given back
                self._kept.append(buffer)


def _fresh(size: int) -> memoryview:
    """Memory that is there already: to get it page by page would hold up the event loop.

    It takes the place of what earlier transfers left free.
    """
    trim()
    array = np.empty(size, np.uint8)
    array[...] = 0
    return array.data
