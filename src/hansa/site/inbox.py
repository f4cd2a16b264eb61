"""Fetches what the coordinator offers, and fetches it again after a lost connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from hansa.errors import Unavailable
from hansa.site.connection import Line, answered, backoff
from hansa.wire.frames import FETCHED, content_of
from hansa.wire.methods import FETCH, call
from hansa.wire.transfer import ahead, receive
from hansa.wire.v1 import sites_pb2 as pb

_log = logging.getLogger(__name__)


async def fetch(
    sha256: str, size: int, connected: Callable[[], Awaitable[Line]], seconds: float
) -> NDArray[np.uint8]:
    """Content by its hash, verified.

    Args:
      sha256: its name.
      size: its bytes.
      connected: waits for a connection.
      seconds: how long a lost connection or a stalled transfer is tried again.

    Raises:
      UpdateRejected: other content came than was announced.
      HansaError: the coordinator refuses, or does not answer in time.
    """
    content, failures = np.empty(size, np.uint8), 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                line = await connected()
                try:
                    await _receive(line, sha256, content)
                except Unavailable as error:
                    _log.warning("nothing was fetched yet: %s", error)
                    failures += 1
                    await asyncio.sleep(backoff(failures))
                else:
                    return content
    except TimeoutError:
        raise Unavailable(
            f"{sha256[:16]} could not be fetched within {seconds:g} s",
            fix="see whether the way to the coordinator is too slow",
        ) from None


async def _receive(line: Line, sha256: str, content: NDArray[np.uint8]) -> None:
    stream = call(line.channel, FETCH)(pb.FetchRequest(sha256=sha256))
    try:
        with answered(line.address):
            parts = (content_of(frame, FETCHED) async for frame in stream)
            async with ahead(parts) as chunks:
                await receive(chunks, content.data, sha256, "what was fetched", "the coordinator")
    except TimeoutError:
        raise Unavailable("the coordinator sends nothing", fix="it is asked again") from None
    finally:
        stream.cancel()
