"""Tells whoever watches that something new was written down. Nothing polls."""

from __future__ import annotations

import asyncio


class Bulletin:
    """A count of news and a way to wait for the next."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()
        self.closed = False

    def post(self) -> None:
        """There is news: wakes everybody who waits."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """There will be no more news: whoever waits for some may go."""
        self.closed = True
        self.post()

    def next(self) -> asyncio.Future[None]:
        """Done at the next news. Take it before you look, so that nothing is missed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        return future
