"""Long content in chunks, received into a buffer and hashed on the way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hansa.errors import UpdateRejected
from hansa.wire.limits import CHUNK, CHUNK_SECONDS
from hansa.wire.progress import progressing

AHEAD = 1
"""Chunks that wait to be taken while the next one is read; memory for each transfer."""


async def receive(
    parts: AsyncIterator[memoryview],
    into: memoryview,
    sha256: str,
    what: str,
    sender: str,
    patience: Callable[[], float] = lambda: CHUNK_SECONDS,
) -> None:
    """Fills a buffer with exactly the announced content.

    All chunks but the last are full: whoever sends crumbs would keep the buffer for ever without
    ever being silent.

    Args:
      parts: the chunks as they come, best from `ahead`.
      into: memory of exactly the announced size.
      sha256: the announced hash.
      what: name of the content, for errors.
      sender: who sends, for errors.
      patience: longest silence before the next chunk, in seconds.

    Raises:
      UpdateRejected: too many or too few bytes, a chunk of another size, or another hash.
      TimeoutError: no chunk came in time.
    """
    filled, hasher = 0, hashlib.sha256()
    async with progressing(patience) as progress:
        async for data in parts:
            progress.made()
            due = min(CHUNK, len(into) - filled)
            if len(data) != due or not due:
                raise UpdateRejected(
                    f"{what} of '{sender}' came with a chunk of {len(data):,} bytes where "
                    f"{due:,} of the {len(into):,} announced were due",
                    fix=f"send exactly the announced bytes, {CHUNK:,} in each chunk but the last",
                )
            part = into[filled : filled + due]
            part[:] = data
            del data  # a chunk that is copied must not keep its memory while the next comes
            hasher.update(part)  # less than a millisecond: a thread would cost more than it gains
            filled += due
    if filled != len(into):
        raise UpdateRejected(
            f"{what} of '{sender}' ended after {filled:,} of {len(into):,} bytes",
            fix="send it again from the start",
        )
    if hasher.hexdigest() != sha256:
        raise UpdateRejected(
            f"{what} of '{sender}' has another SHA-256 than announced",
            fix="send it again; if it repeats, the bytes change on the way",
        )


@asynccontextmanager
async def ahead(parts: AsyncIterator[memoryview]) -> AsyncIterator[AsyncIterator[memoryview]]:
    """The same chunks, read before they are asked for: a few travel while one is worked on."""
    chunks: asyncio.Queue[memoryview | None] = asyncio.Queue()
    room = asyncio.Semaphore(AHEAD)

    async def read() -> None:
        async for part in parts:
            chunks.put_nowait(part)
            del part  # as in `receive`
            await room.acquire()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: chunks.put_nowait(None))

    async def taken() -> AsyncIterator[memoryview]:
        while (part := await chunks.get()) is not None:
            room.release()
            yield part
            del part
        await reading  # raises whatever ended it

    try:
        yield taken()
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()  # was raised above, or somebody else was faster
