"""Keeps an update until its receipt: delivers it, and delivers it again after a lost connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hansa.errors import HansaError, IdentityError, RoundVoid, Unavailable, UpdateRejected
from hansa.identity.receipts import Receipt, verify_receipt
from hansa.site.connection import backoff
from hansa.wire.frames import DELIVERED, frames
from hansa.wire.methods import DELIVER, call
from hansa.wire.status import of_status
from hansa.wire.v1 import sites_pb2 as pb

TRIES = 3
"""How often a rejected update is sent again, for bytes that changed on the way."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Package:
    """One update, ready to be sent.

    Attributes:
      header: what is announced.
      content: the bytes.
      receipt: what the coordinator must sign.
    """

    header: pb.DeliverHeader
    content: memoryview
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Line:
    """A connection and the key that signs its receipts."""

    channel: grpc.aio.Channel
    address: str
    receipt_key: Ed25519PublicKey


async def deliver(package: Package, connected: Callable[[], Awaitable[Line]]) -> str:
    """Sends an update until it is acknowledged or not wanted any more.

    Args:
      package: the update.
      connected: waits for a connection.

    Returns:
      An empty text after a valid receipt, else why the update was dropped.
    """
    rejected = failures = 0
    while True:
        line = await connected()
        try:
            reply = await _send(package, line)
            verify_receipt(reply.document, reply.signature, package.receipt, line.receipt_key)
        except RoundVoid as error:
            return error.message
        except UpdateRejected as error:
            rejected += 1
            if rejected >= TRIES:
                return error.message
        except HansaError as error:
            _log.warning("the update was not delivered yet: %s", error)
            if isinstance(error, IdentityError):
                return error.message
        else:
            return ""
        failures += 1
        await asyncio.sleep(backoff(failures))


async def _send(package: Package, line: Line) -> pb.Receipt:
    """One try: the header, the bytes when the coordinator is ready for them, the receipt."""
    go = asyncio.Event()

    async def parts() -> AsyncIterator[pb.DeliverPart | bytes]:
        yield pb.DeliverPart(header=package.header)
        await go.wait()
        for frame in frames(package.content, DELIVERED):
            yield frame

    stream = call(line.channel, DELIVER)(parts())
    try:
        async for reply in stream:
            if reply.WhichOneof("body") == "receipt":
                receipt: pb.Receipt = reply.receipt
                return receipt
            go.set()
    except grpc.aio.AioRpcError as error:
        raise of_status(error, line.address) from error
    finally:
        stream.cancel()
    raise Unavailable(f"{line.address} gave no receipt", fix="the update is delivered again")
