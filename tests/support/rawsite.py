"""A site written by hand on the wire: as honest as the test that drives it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc.aio
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hansa.core.contribute import Purpose, layout_of
from hansa.core.plan import FORMAT
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.identity.credentials import Credentials
from hansa.identity.documents import read_document
from hansa.identity.names import Role
from hansa.identity.receipts import Receipt, verify_receipt
from hansa.site.config import SiteConfig
from hansa.site.connection import dialled
from hansa.site.desk import Accepted, Asked, Offer, accept, work
from hansa.site.rounds import clip_of
from hansa.site.spending import Spending
from hansa.wire.limits import CHANNEL_OPTIONS, CHUNK, PROTOCOL
from hansa.wire.methods import ATTEND, DELIVER, FETCH, RENEW, call
from hansa.wire.status import of_status
from hansa.wire.v1 import sites_pb2 as pb
from hansa.wire.vectors import Encoding
from tests.support.federation import LONG, Place

PAUSE = 0.02
"""Time between two chunks in which an answer to the first can arrive."""

HELLO = pb.Hello(protocol=PROTOCOL, plan_format=FORMAT, software="by hand")


@dataclass
class Parcel:
    """An update, and the receipt that an honest coordinator gives for it."""

    header: pb.DeliverHeader
    content: bytes
    receipt: Receipt

    def parts(self) -> Iterable[pb.DeliverPart]:
        """What an honest site sends."""
        yield pb.DeliverPart(header=self.header)
        for start in range(0, len(self.content), CHUNK):
            yield pb.DeliverPart(data=self.content[start : start + CHUNK])

    def with_content(self, content: bytes, **header: Any) -> Parcel:
        """Other bytes, announced as they are unless `header` says otherwise."""
        changed = pb.DeliverHeader()
        changed.CopyFrom(self.header)
        changed.size, changed.sha256 = len(content), hashlib.sha256(content).hexdigest()
        for name, value in header.items():
            setattr(changed, name, value)
        return Parcel(changed, content, self.receipt)

    def with_header(self, **header: Any) -> Parcel:
        """The same bytes under another header; `round`, `job` and so on change the round's name."""
        changed = self.with_content(self.content)
        for name, value in header.items():
            inside = name in pb.RoundId.DESCRIPTOR.fields_by_name
            setattr(changed.header.round if inside else changed.header, name, value)
        return changed


class RawSite:
    """One connection of one site."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials, config: SiteConfig):
        self.channel = channel
        self.credentials = credentials
        self.config = config
        self.stream: Any = None
        self.receipt_key: Ed25519PublicKey | None = None
        self.jobs: dict[str, Accepted] = {}
        self._waiting: list[pb.ToSite] = []

    @property
    def name(self) -> str:
        return self.credentials.name

    # -------------------------------------------------------------- attend

    async def attend(self, hello: pb.Hello = HELLO) -> pb.Welcome:
        """Says hello and waits for the welcome."""
        self.stream = call(self.channel, ATTEND)()
        await self.say(hello=hello)
        welcome: pb.Welcome = await self.hear("welcome")
        self.receipt_key = read_document(
            welcome.coordinator_document,
            self.credentials.root_pem,
            self.credentials.federation,
            datetime.now(UTC),
            Role.COORDINATOR,
        ).public_key
        return welcome

    async def say(self, **body: Any) -> None:
        try:
            await self.stream.write(pb.FromSite(**body))
        except grpc.aio.AioRpcError as error:
            raise of_status(error, "the coordinator") from error

    async def hear(self, kind: str, seconds: float = LONG) -> Any:
        """The next message of a kind; others wait until they are asked for.

        Raises:
          HansaError: the coordinator ended the stream, and this is why.
        """
        for message in self._waiting:
            if message.WhichOneof("body") == kind:
                self._waiting.remove(message)
                return getattr(message, kind)
        async with asyncio.timeout(seconds):
            while True:
                message = await self._read()
                if message.WhichOneof("body") == kind:
                    return getattr(message, kind)
                self._waiting.append(message)

    async def cut_off(self, seconds: float = LONG) -> HansaError:
        """Waits until the coordinator ends the stream; returns the reason it gave."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    self._waiting.append(await self._read())
                except HansaError as error:
                    return error

    async def _read(self) -> pb.ToSite:
        try:
            message = await self.stream.read()
        except grpc.aio.AioRpcError as error:
            raise of_status(error, "the coordinator") from error
        if message is grpc.aio.EOF:
            raise HansaError("the stream ended without a reason", fix="find out why")
        found: pb.ToSite = message
        return found

    # -------------------------------------------------------------- work

    async def take_offer(self) -> Accepted:
        """Waits for an offer, judges it as an agent does, and accepts it."""
        offer = await self.hear("offer")
        bundle = await self.fetch(offer.bundle_sha256)
        judged = Offer(offer.job, offer.words, offer.facts, offer.plan_digest, bundle)
        spending = Spending(self.config.folder, self.config.budget)
        accepted = await asyncio.to_thread(
            accept, judged, self.name, self.credentials.federation, self.config, spending
        )
        self.jobs[offer.job] = accepted
        await self.say(
            verdict=pb.Verdict(job=offer.job, accepted=True, plan_digest=offer.plan_digest)
        )
        return accepted

    async def prepared(self, order: pb.Work) -> Parcel:
        """Fetches the model and does the work honestly."""
        params = np.frombuffer(await self.fetch(order.model_sha256), "<f4")
        return await asyncio.to_thread(self.parcel, order, params)

    def parcel(self, order: pb.Work, params: Vector) -> Parcel:
        """The honest update of a round, ready to be sent."""
        accepted, name = self.jobs[order.round.job], order.round
        purpose = Purpose(name.purpose)
        asked = Asked(purpose, name.round, name.attempt, params, order.model_sha256, clip_of(order))
        vector = work(accepted, self.name, asked)
        plan = accepted.plan
        layout = layout_of(plan, purpose)
        content = bytes(Encoding.of(plan.facts).write(vector))
        header = pb.DeliverHeader(
            round=name,
            plan_digest=plan.digest,
            layout_digest=layout.digest,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        receipt = Receipt(
            federation=self.credentials.federation,
            job=name.job,
            purpose=name.purpose,
            round=name.round,
            attempt=name.attempt,
            site=self.name,
            update=header.sha256,
            plan=plan.digest,
        )
        return Parcel(header, content, receipt)

    async def work(self) -> Parcel:
        """Waits for work and does it honestly; nothing is delivered yet."""
        return await self.prepared(await self.hear("work"))

    async def decline(self, round_id: pb.RoundId, reason: str = "not now") -> None:
        await self.say(declined=pb.Declined(round=round_id, reason=reason))

    # -------------------------------------------------------------- calls

    async def deliver(self, parcel: Parcel) -> pb.Receipt:
        """Delivers honestly, checks the receipt, returns it."""
        reply: pb.Receipt = await self.send(parcel.parts())
        assert self.receipt_key is not None
        verify_receipt(reply.document, reply.signature, parcel.receipt, self.receipt_key)
        return reply

    async def send(self, parts: Iterable[pb.DeliverPart | bytes], patient: bool = True) -> Any:
        """Sends whatever it is given as a delivery.

        Args:
          parts: the messages.
          patient: whether to wait for the coordinator's go after the first.

        Raises:
          HansaError: what the coordinator answered.
        """
        stream = call(self.channel, DELIVER)()
        try:
            for number, part in enumerate(parts):
                if stream.done():
                    break
                await stream.write(part)
                if number == 0 and patient:
                    reply = await stream.read()
                    if reply is not grpc.aio.EOF and reply.WhichOneof("body") == "receipt":
                        return reply.receipt
                elif number:
                    # The library forgets the answer if the stream ends while it writes.
                    await asyncio.sleep(PAUSE)
            await stream.done_writing()
            while (reply := await stream.read()) is not grpc.aio.EOF:
                if reply.WhichOneof("body") == "receipt":
                    return reply.receipt
        except grpc.aio.AioRpcError as error:
            raise of_status(error, "the coordinator") from error
        finally:
            stream.cancel()
        raise HansaError("neither a receipt nor a reason", fix="find out why")

    async def fetch(self, sha256: str, offset: int = 0) -> bytes:
        """What the coordinator gives for a hash.

        Raises:
          HansaError: what the coordinator answered.
        """
        stream = call(self.channel, FETCH)(pb.FetchRequest(sha256=sha256, offset=offset))
        try:
            return b"".join([pb.Chunk.FromString(frame).data async for frame in stream])
        except grpc.aio.AioRpcError as error:
            raise of_status(error, "the coordinator") from error

    async def renew(self, csr_pem: bytes) -> pb.RenewReply:
        """Asks for a new certificate.

        Raises:
          HansaError: what the coordinator answered.
        """
        try:
            reply: pb.RenewReply = await call(self.channel, RENEW)(
                pb.RenewRequest(csr_pem=csr_pem), timeout=LONG
            )
        except grpc.aio.AioRpcError as error:
            raise of_status(error, "the coordinator") from error
        return reply


@asynccontextmanager
async def raw_site(
    place: Place, name: str, credentials: Credentials | None = None
) -> AsyncIterator[RawSite]:
    """A connection of a site that no agent keeps."""
    shown = credentials or place.credentials(name)
    async with dialled(place.sites_door, shown) as channel:
        yield RawSite(channel, shown, place.config(name))


@asynccontextmanager
async def narrow(address: str, shown: Credentials) -> AsyncIterator[grpc.aio.Channel]:
    """A connection that takes in no more than it is asked for."""
    tls = grpc.ssl_channel_credentials(shown.root_pem, shown.key_pem, shown.chain_pem)
    few = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16))
    async with grpc.aio.secure_channel(address, tls, options=(*CHANNEL_OPTIONS, *few)) as channel:
        yield channel
