"""A site's part in a masked sum: the protocol's client half, fed by what the coordinator says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Final

from hansa.core.vector import Vector
from hansa.errors import HansaError, RoundVoid
from hansa.identity.directory import Directory
from hansa.secagg.messages import Masked, Message, ToServer
from hansa.wire.secagg import STEPS, read_ask, write_reply
from hansa.wire.v1 import sites_pb2 as pb

WAITING: Final = 64
"""Messages that may wait for one round; an honest coordinator sends four."""

Flow = Generator[ToServer, Message, None]


@dataclass(slots=True)
class Talk:
    """One masked round, as this site hears and speaks of it.

    Attributes:
      nonce: of the session.
      said: what the coordinator said and is not answered yet.
      last: the reply to what it said last, except a masked update.
    """

    nonce: bytes
    said: asyncio.Queue[pb.SecAggAsk] = field(default_factory=lambda: asyncio.Queue(WAITING))
    last: pb.FromSite | None = None

    def hear(self, ask: pb.SecAggAsk) -> None:
        """One message; what is of another session is not meant for this one."""
        if ask.nonce == self.nonce and not self.said.full():
            self.said.put_nowait(ask)

    def remind(self) -> None:
        """The coordinator waits for the first message, and it may be lost: it is said again."""
        self.hear(pb.SecAggAsk(nonce=self.nonce))


async def take_part(
    flow: Flow,
    talk: Talk,
    round_id: pb.RoundId,
    directory: Directory,
    say: Callable[[pb.FromSite], Awaitable[None]],
    leave: Callable[[Vector], Awaitable[str]],
) -> str:
    """Follows the protocol to its end.

    Args:
      flow: the client's half.
      talk: what the coordinator says.
      round_id: the round.
      directory: told of who was revoked.
      say: puts a message into the stream to the coordinator.
      leave: delivers the masked update; returns why it did not count, or an empty text.

    Returns:
      An empty text if the masked update counts, else why it does not.

    Raises:
      Misuse: the coordinator does not lead the protocol as agreed.
    """
    talk.last = write_reply(round_id, talk.nonce, await asyncio.to_thread(next, flow))
    await say(talk.last)
    leaving: asyncio.Task[str] | None = None
    try:
        for step in range(1, len(STEPS) + 1):
            ask = await _asked(talk, step, say, leaving)
            if ask is None:
                break
            if step == 1:
                directory.revoke(ask.roster.revocations)
            reply = await asyncio.to_thread(flow.send, read_ask(ask))
            if isinstance(reply, Masked):
                talk.last, leaving = None, asyncio.create_task(_left(leave, reply.vector))
            else:
                talk.last = write_reply(round_id, talk.nonce, reply)
                await say(talk.last)
            del reply
        flow.close()  # forgets what it held
        if leaving is None:
            return "the round ended early"
        await _asked(talk, len(STEPS) + 1, say, leaving)
        return await leaving
    finally:
        with contextlib.suppress(ValueError):  # a thread that is still in it ends it
            flow.close()
        if leaving is not None and not leaving.done():
            leaving.cancel()


async def _left(leave: Callable[[Vector], Awaitable[str]], vector: Vector) -> str:
    return await leave(vector)


async def _asked(
    talk: Talk,
    step: int,
    say: Callable[[pb.FromSite], Awaitable[None]],
    leaving: asyncio.Task[str] | None,
) -> pb.SecAggAsk | None:
    """The coordinator's next message; None if the update's fate is known before.

    A message that was answered already is said again to a site that was away: the reply may be
    lost, and is repeated as it was.
    """
    while True:
        hearing = asyncio.ensure_future(talk.said.get())
        both = [hearing] if leaving is None else [hearing, leaving]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not hearing.done():
                hearing.cancel()
        if not hearing.done() or hearing.cancelled():
            return None
        ask = hearing.result()
        heard = STEPS.get(ask.WhichOneof("body") or "", 0)
        if heard >= step:
            return ask
        if heard == step - 1 and talk.last is not None:
            await say(talk.last)


def no_part(round_id: pb.RoundId) -> pb.FromSite:
    """What a site says that is asked about a session that it is not in."""
    error: HansaError = RoundVoid(
        "this site is not in the session: it was started again, or has left it",
        fix="begin a new attempt",
    )
    return pb.FromSite(declined=pb.Declined(round=round_id, reason=error.message))
