"""Keeps an update until its receipt: delivers it, and delivers it again after a lost connection."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio

from hansa.core.contribute import Purpose, layout_of
from hansa.core.plan import Plan
from hansa.core.vector import Layout, Vector
from hansa.errors import HansaError, IdentityError, RoundVoid, Unavailable, UpdateRejected
from hansa.identity.receipts import Receipt, verify_receipt
from hansa.site.connection import Line, answered, backoff
from hansa.wire.frames import DELIVERED, frames
from hansa.wire.methods import DELIVER, call
from hansa.wire.v1 import sites_pb2 as pb
from hansa.wire.vectors import Encoding

TRIES = 3
"""How often a rejected update is sent again, for bytes that changed on the way."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Package:
    """One update, ready to be sent.

    Attributes:
      header: what is announced.
      content: the bytes.
      layout: the segments that they are.
      receipt: what the coordinator must sign.
    """

    header: pb.DeliverHeader
    content: memoryview
    layout: Layout
    receipt: Receipt

    @classmethod
    def of(cls, federation: str, site: str, plan: Plan, order: pb.Work, vector: Vector) -> Package:
        """The encoded update of a round."""
        name = order.round
        layout = layout_of(plan, Purpose(name.purpose))
        content = Encoding.of(plan.facts).write(vector)
        sha256 = hashlib.sha256(content).hexdigest()
        header = pb.DeliverHeader(
            round=name,
            plan_digest=plan.digest,
            layout_digest=layout.digest,
            size=len(content),
            sha256=sha256,
        )
        receipt = Receipt(
            federation=federation,
            job=name.job,
            purpose=name.purpose,
            round=name.round,
            attempt=name.attempt,
            site=site,
            update=sha256,
            plan=plan.digest,
        )
        return cls(header, content, layout, receipt)


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
    """One try: the header, the bytes when the coordinator is ready for them, the receipt.

    Writing is a task of its own: the library lets a write wait for ever if the connection is lost
    before the call has begun, while a read is told.
    """
    stream, go = call(line.channel, DELIVER)(), asyncio.Event()

    async def write() -> None:
        await stream.write(pb.DeliverPart(header=package.header))
        await go.wait()
        for frame in frames(package.content, DELIVERED):
            await stream.write(frame)
        await stream.done_writing()

    writing = asyncio.create_task(write())
    try:
        with answered(line.address):
            while (reply := await stream.read()) is not grpc.aio.EOF:
                if reply.WhichOneof("body") == "receipt":
                    receipt: pb.Receipt = reply.receipt
                    return receipt
                go.set()
    finally:
        writing.cancel()
        stream.cancel()
        await asyncio.gather(writing, return_exceptions=True)  # why it ended, the read has said
    raise Unavailable(f"{line.address} gave no receipt", fix="the update is delivered again")
