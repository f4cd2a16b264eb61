"""An update on its way in: from the first chunk to the end of what is done with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from hansa.coordinator.buffers import Buffers
from hansa.wire.transfer import ahead, receive

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Header:
    """What a site announces before it sends an update."""

    plan_digest: str
    layout_digest: str
    size: int
    sha256: str


@asynccontextmanager
async def incoming(
    buffers: Buffers,
    site: str,
    header: Header,
    parts: AsyncIterator[memoryview],
    still_wanted: Callable[[], None],
) -> AsyncIterator[memoryview]:
    """The whole content in a buffer, which is the caller's until the end of the context.

    Args:
      buffers: memory for updates.
      site: who sends.
      header: what it announced.
      parts: the bytes; asked for only when there is memory for them.
      still_wanted: raises if a turn to send comes too late.

    Raises:
      UpdateRejected: the content is not what was announced.
      TimeoutError: no chunk came in time.
    """
    patience = buffers.patience
    async with AsyncExitStack() as held:
        async with buffers.sending():
            still_wanted()
            async with ahead(parts) as chunks:
                buffer = await held.enter_async_context(buffers.take(header.size))
                await receive(chunks, buffer, header.sha256, "the update", site, patience)
        yield buffer


async def uninterrupted(work: Awaitable[_Result]) -> _Result:
    """Finishes the work even if the caller is cancelled, and only then lets the caller go."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
