"""Long content in chunks, received into a buffer and hashed on the way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable

from hansa.errors import UpdateRejected
from hansa.wire.limits import CHUNK, CHUNK_SECONDS
from hansa.wire.progress import progressing


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
      parts: the chunks as they come.
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
    hashing = asyncio.get_running_loop().run_in_executor
    coming = asyncio.ensure_future(_next(parts))
    try:
        async with progressing(patience) as progress:
            while (data := await coming) is not None:
                progress.made()
                due = min(CHUNK, len(into) - filled)
                if len(data) != due or not due:
                    raise UpdateRejected(
                        f"{what} of '{sender}' came with a chunk of {len(data):,} bytes where "
                        f"{due:,} of the {len(into):,} announced were due",
                        fix=f"send exactly the announced bytes, {CHUNK:,} in each chunk but the "
                        "last",
                    )
                part = into[filled : filled + due]
                part[:] = data
                del data  # a chunk that is copied must not keep its memory while the next comes
                # The next chunk travels while this one is hashed, which needs no interpreter lock.
                coming = asyncio.ensure_future(_next(parts))
                await hashing(None, hasher.update, part)
                filled += due
    finally:
        coming.cancel()
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


async def _next(parts: AsyncIterator[memoryview]) -> memoryview | None:
    return await anext(parts, None)
