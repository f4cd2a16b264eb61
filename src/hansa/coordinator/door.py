"""The sites' door: every call is authenticated by its certificate, then bounded, then parsed."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc.aio

from hansa.coordinator.desk import Desk, RoundKey
from hansa.coordinator.heads import Heads
from hansa.coordinator.incoming import Header
from hansa.coordinator.members import Caller, Members
from hansa.coordinator.roster import Attendance, Roster
from hansa.coordinator.runner import Runner
from hansa.coordinator.shelf import Shelf
from hansa.coordinator.turns import Turns
from hansa.core.contribute import Purpose
from hansa.core.plan import FORMAT
from hansa.errors import HansaError, Unavailable, UpdateRejected, VersionMismatch
from hansa.identity.peer import Peer
from hansa.wire.frames import DELIVERED, FETCHED, content_of, frame_of
from hansa.wire.limits import CHUNK, HANDSHAKE_SECONDS, PROTOCOL
from hansa.wire.methods import ATTEND, DELIVER, FETCH, RENEW, parse, serve
from hansa.wire.progress import progressing
from hansa.wire.status import abort
from hansa.wire.v1 import sites_pb2 as pb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SENDING = 2
"""Fetches answered at once: while one waits for its peer, another keeps the network busy."""

UNREAD = 8
"""Fetches that one site may have open: one that it does not read keeps a chunk in memory."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """The service `hansa.v1.Sites`.

    Attributes:
      members: who is enrolled, and who a certificate belongs to.
      roster: who attends.
      desk: the open rounds.
      shelf: what may be fetched.
      runner: the jobs, for verdicts.
      heads: what sites have seen of the budgets' chain.
      sending: bounds the fetches that are answered at once; the others wait their turn.
      fetching: held by a site while it fetches, so that it has one turn at a time.
      unread: how many fetches each site has open.
    """

    members: Members
    roster: Roster
    desk: Desk
    shelf: Shelf
    runner: Runner
    heads: Heads
    sending: Turns = field(default_factory=lambda: Turns(SENDING))
    fetching: dict[str, asyncio.Lock] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for a gRPC server."""
        return serve(
            ATTEND.service,
            {
                ATTEND: answering(self._attend),
                FETCH: answering(self._fetch),
                DELIVER: answering(self._deliver),
                RENEW: answering(self._renew),
            },
        )

    # -------------------------------------------------------------- attend

    async def _attend(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self.members.calling(context) as caller:
            peer = caller.peer
            hello = await self._hello(peer, requests)
            with self.roster.attending(caller) as attendance:
                _log.info("site %s attends (%.80r)", peer.name, hello.software)
                self.heads.entered(peer.name, hello.ledger_seq)
                self.runner.entered(peer.name)  # offers first: work is for jobs that are known
                self.roster.entered(peer.name)
                await context.write(pb.ToSite(welcome=self.members.welcome(caller)))
                reader = asyncio.create_task(self._read(caller, requests, attendance))
                try:
                    async for message in self._outgoing(attendance):
                        await context.write(message)
                finally:
                    reader.cancel()
                    _log.info("site %s left", peer.name)

    async def _hello(self, peer: Peer, requests: AsyncIterator[bytes]) -> pb.Hello:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                first = parse(pb.FromSite, await anext(requests))
        except (TimeoutError, StopAsyncIteration):
            raise Unavailable(
                f"site '{peer.name}' said no hello within {HANDSHAKE_SECONDS:g} s",
                fix="say hello first",
            ) from None
        if first.WhichOneof("body") != "hello":
            raise HansaError("the first message is no hello", fix="say hello first")
        _check_versions(first.hello)
        return first.hello

    async def _outgoing(self, attendance: Attendance) -> AsyncIterator[pb.ToSite]:
        """Messages for the site until its stream is ended."""
        while True:
            taking = asyncio.ensure_future(attendance.outbox.get())
            both: list[asyncio.Future[Any]] = [taking, attendance.ended]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not taking.done():
                    taking.cancel()
            if attendance.ended.done():
                raise attendance.ended.result()
            self.members.recheck(attendance.caller)
            yield taking.result()

    async def _read(
        self, caller: Caller, requests: AsyncIterator[bytes], attendance: Attendance
    ) -> None:
        """What the site says; the first error ends its stream."""
        try:
            async for data in requests:
                self.members.recheck(caller)
                message = parse(pb.FromSite, data)
                match message.WhichOneof("body"):
                    case "verdict":
                        await self.runner.decided(caller.peer.name, message.verdict)
                    case "declined":
                        self._declined(caller.peer.name, message.declined)
                    case "secagg":
                        self._spoken(caller.peer.name, message.secagg)
                    case "ledger":
                        self.heads.heard(caller.peer.name, message.ledger)
                    case _:
                        raise HansaError(
                            f"site '{caller.peer.name}' sent a message that has no place here",
                            fix="send verdicts and declines after the hello",
                        )
            attendance.end(Unavailable("the site hung up", fix="attend again"))
        except HansaError as error:
            attendance.end(error)

    def _declined(self, site: str, declined: pb.Declined) -> None:
        key, reason = _key(declined.round), declined.reason[:500]
        intake, talk = self.desk.find(key, site), self.desk.talk(key, site)
        stream = self.desk.stream(key)
        if stream is not None:
            stream.decline(site, key, reason)
        elif intake is not None:
            intake.decline(site, reason)
        if talk is not None:
            talk.decline(site, reason)

    def _spoken(self, site: str, reply: pb.SecAggReply) -> None:
        talk = self.desk.talk(_key(reply.round), site)
        if talk is not None:
            talk.hear(site, reply)

    # -------------------------------------------------------------- fetch, deliver, renew

    async def _fetch(self, request: bytes, context: Context) -> None:
        async with self.members.calling(context) as caller:
            wanted, site = parse(pb.FetchRequest, request), caller.peer.name
            self._count_fetch(site, context)
            async with (
                self.fetching.setdefault(site, asyncio.Lock()),  # one file of a site at once
                self.sending.take(),
            ):
                with self.shelf.reading(wanted.sha256, site) as item:
                    # With the first chunk they would count as unsent until it is read, and an
                    # answer that ends before that would send them twice, which gRPC refuses.
                    await context.send_initial_metadata(())
                    async with progressing(self.sending.patience) as progress:
                        for offset in range(wanted.offset, item.size, CHUNK):
                            self.members.recheck(caller)
                            await context.write(frame_of(item.read(offset, CHUNK), FETCHED))
                            progress.made()

    def _count_fetch(self, site: str, context: Context) -> None:
        if self.unread[site] >= UNREAD:
            raise HansaError(
                f"site '{site}' has {UNREAD} fetches open", fix="read or end them before the next"
            )

        def ended(context: Context) -> None:
            del context
            self.unread[site] -= 1

        self.unread[site] += 1
        context.add_done_callback(ended)  # type: ignore[arg-type]  # the stubs want their own class

    async def _deliver(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self.members.calling(context) as caller:
            site, header = caller.peer.name, await self._header(requests)
            key = _key(header.round)

            async def go() -> AsyncIterator[memoryview]:
                await context.write(pb.DeliverReply(go=pb.Go()))
                async for frame in requests:
                    self.members.recheck(caller)
                    yield content_of(frame, DELIVERED)

            intake, stream = self.desk.find(key, site), self.desk.stream(key)
            announced = Header(header.plan_digest, header.layout_digest, header.size, header.sha256)
            if stream is not None:
                await stream.deliver(site, key, announced, go())
            elif intake is not None:
                await intake.deliver(site, announced, go())
            else:
                await self.desk.check_counted(key, site, header.plan_digest, header.sha256)
            receipt = self.members.receipt(caller, key, header)
            await context.write(pb.DeliverReply(receipt=receipt))

    async def _header(self, requests: AsyncIterator[bytes]) -> pb.DeliverHeader:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                first = parse(pb.DeliverPart, await anext(requests))
        except (TimeoutError, StopAsyncIteration):
            raise UpdateRejected("no header came", fix="send a header first") from None
        if first.WhichOneof("body") != "header":
            raise UpdateRejected("the first message is no header", fix="send a header first")
        return first.header

    async def _renew(self, request: bytes, context: Context) -> pb.RenewReply:
        async with self.members.calling(context) as caller:
            csr = parse(pb.RenewRequest, request).csr_pem
            return await self.members.renew(caller, csr)


def _check_versions(hello: pb.Hello) -> None:
    for what, theirs, ours in (
        ("protocol", hello.protocol, PROTOCOL),
        ("plan format", hello.plan_format, FORMAT),
    ):
        if theirs != ours:
            older = "site" if theirs < ours else "coordinator"
            raise VersionMismatch(
                f"the site speaks {what} {theirs}, the coordinator {what} {ours}",
                fix=f"upgrade the {older}, which is older: pip install --upgrade hansa",
            )


def _key(round_id: pb.RoundId) -> RoundKey:
    try:
        purpose = Purpose(round_id.purpose)
    except ValueError as error:
        raise HansaError(
            f"{round_id.purpose[:20]!r} is no purpose of a round", fix="use train or evaluate"
        ) from error
    return RoundKey(round_id.job, purpose, round_id.round, round_id.attempt)


def answering(
    method: Callable[[Any, Context], Awaitable[Any]],
) -> Callable[[Any, Context], Awaitable[Any]]:
    """Turns our errors into statuses."""

    async def answer(request: Any, context: Context) -> Any:
        try:
            return await method(request, context)
        except HansaError as error:
            _log.info("refused: %s", error)
            await abort(context, error)
        except TimeoutError:
            await abort(context, Unavailable("the transfer stalled", fix="send it again"))
        except grpc.aio.InternalError:
            _log.debug("a caller went away in the middle of an answer")
            raise asyncio.CancelledError from None  # nobody is there to be told an end

    return answer
