"""Long content in chunks, received into a buffer and hashed on the way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable

from hansa.errors import UpdateRejected
from hansa.wire.limits import CHUNK, CHUNK_SECONDS


async def receive(
    parts: AsyncIterator[memoryview],
    into: memoryview,
    sha256: str,
    what: str,
    sender: str,
    patience: Callable[[], float] = lambda: CHUNK_SECONDS,
) -> None:
    """Fills a buffer with exactly the announced content.

    Args:
      parts: the chunks as they come.
      into: memory of exactly the announced size.
      sha256: the announced hash.
      what: name of the content, for errors.
      sender: who sends, for errors.
      patience: longest silence before the next chunk, in seconds.

    Raises:
      UpdateRejected: too many or too few bytes, a chunk over the limit, or another hash.
      TimeoutError: no chunk came in time.
    """
    filled, hasher = 0, hashlib.sha256()
    while True:
        async with asyncio.timeout(patience()):
            data = await anext(parts, None)
        if data is None:
            break
        if len(data) > CHUNK or filled + len(data) > len(into):
            raise UpdateRejected(
                f"{what} of '{sender}' is larger than the {len(into):,} bytes announced",
                fix=f"send exactly the announced bytes, at most {CHUNK:,} in one chunk",
            )
        into[filled : filled + len(data)] = data
        hasher.update(data)
        filled += len(data)
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
