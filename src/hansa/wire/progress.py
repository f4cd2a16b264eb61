"""Ends what makes no progress, at the cost of one timer for a whole transfer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

LOOK = 0.25
"""Seconds between two looks at whether there was progress."""


class Progress:
    """When there was progress last."""

    __slots__ = ("_clock", "last")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.last = clock()

    def made(self) -> None:
        """There is progress now."""
        self.last = self._clock()


@asynccontextmanager
async def progressing(patience: Callable[[], float]) -> AsyncIterator[Progress]:
    """Ends its body if `made` is not called for too long.

    Args:
      patience: how many seconds are too long; asked again at each look, since it may have become
        less meanwhile.

    Raises:
      TimeoutError: there was no progress.
    """
    loop = asyncio.get_running_loop()
    progress = Progress(loop.time)
    async with asyncio.timeout(None) as limit:

        def look() -> None:
            if loop.time() - progress.last >= patience():
                limit.reschedule(loop.time())
            else:
                timers[:] = [loop.call_later(LOOK, look)]

        timers = [loop.call_later(LOOK, look)]
        try:
            yield progress
        finally:
            timers[0].cancel()
