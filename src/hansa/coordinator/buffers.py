"""A fixed number of receive buffers, so that memory does not grow with the number of senders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from hansa.coordinator.turns import Turns


class Buffers:
    """At most `count` buffers at once; a transfer waits for one, in order of arrival."""

    def __init__(self, count: int) -> None:
        self._turns = Turns(count)
        self._kept: list[memoryview] = []

    def patience(self) -> float:
        """How long, in seconds, whoever fills a buffer may be silent: less if others wait."""
        return self._turns.patience()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[memoryview]:
        """A writable buffer of exactly `size` bytes, for the time of one transfer."""
        async with self._turns.take():
            buffer = self._kept.pop() if self._kept else None
            if buffer is None or len(buffer) != size:
                buffer = np.empty(size, np.uint8).data
            yield buffer
            if self._turns.contended:  # for whoever comes next; otherwise the memory is given back
                self._kept.append(buffer)
