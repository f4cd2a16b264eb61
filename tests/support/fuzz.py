"""Malformed messages for the sites' door: valid ones, changed in ways that have broken parsers.

Everything is drawn from one seed, so that a run can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from hansa.identity.credentials import Credentials
from hansa.site.connection import _context
from hansa.wire.limits import CHANNEL_OPTIONS, CHUNK
from hansa.wire.methods import ATTEND, DELIVER, ENROL, FETCH, RENEW, Method
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.rawsite import HELLO, Parcel

SECONDS = 20.0
"""Longest answer to anything; whoever takes longer has lost the coordinator."""

LISTEN = 0.005
"""How long an answer is waited for where none has to come."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Mutator:
    """Changes bytes and messages."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def text(self) -> str:
        """A text that somebody might not expect."""
        return self.rng.choice(
            [
                "",
                "\0",
                "a" * self.rng.choice([1, 64, 65, 5000, 200_000]),
                "../../secret.key",
                "\N{PILE OF POO}" * 20,
                "'; DROP TABLE rounds; --",
                "\r\nINFO forged line",
                "%s%n{0}",
                "f" * 64,
                "train",
                "\u202e\ufeff",
            ]
        )

    def number(self) -> int:
        return self.rng.choice([0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, self.rng.getrandbits(32)])

    def junk(self, size: int) -> bytes:
        return self.rng.randbytes(self.rng.randrange(size + 1))

    def mutated(self, content: bytes) -> bytes:
        """Some bytes changed, lost, doubled, or announced as more than there are."""
        data = bytearray(content)
        for _ in range(self.rng.choice([1, 1, 1, 2, 5])):
            place = self.rng.randrange(len(data) + 1)
            match self.rng.randrange(8):
                case 0 if data:
                    data[place % len(data)] ^= 1 << self.rng.randrange(8)
                case 1:
                    del data[place:]
                case 2:
                    del data[:place]
                case 3:
                    data[place:place] = self.junk(40)
                case 4:
                    data += data[place:]
                case 5:  # a field of a length that nobody has
                    tag = self.rng.choice([0x0A, 0x12, 0x1A, 0x22, 0x7A])
                    data[place:place] = bytes([tag]) + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
                case 6:  # groups, which nothing closes
                    data[place:place] = b"\x0b" * self.rng.choice([1, 50, 5000])
                case _:
                    data = bytearray(self.junk(200))
        return bytes(data)

    def round_id(self, real: pb.RoundId) -> pb.RoundId:
        name = pb.RoundId()
        name.CopyFrom(real)
        match self.rng.randrange(5):
            case 0:
                name.job = self.text()
            case 1:
                name.purpose = self.text()
            case 2:
                name.round = self.number()
            case 3:
                name.attempt = self.number()
            case _:
                pass
        return name

    def header(self, parcel: Parcel) -> pb.DeliverHeader:
        """The header of an honest update with one word changed."""
        changed = pb.DeliverHeader()
        changed.CopyFrom(parcel.header)
        match self.rng.randrange(6):
            case 0:
                changed.round.CopyFrom(self.round_id(changed.round))
            case 1:
                changed.plan_digest = self.text()
            case 2:
                changed.layout_digest = self.text()
            case 3:
                changed.size = self.number() * self.rng.choice([1, 2**31])
            case 4:
                changed.sha256 = self.text()
            case _:
                pass
        return changed

    def said(self, parcel: Parcel) -> pb.FromSite:
        """Something that a site may say, with odd words."""
        match self.rng.randrange(4):
            case 0:
                return pb.FromSite(
                    hello=pb.Hello(protocol=self.number(), plan_format=1, software=self.text())
                )
            case 1:
                job = self.rng.choice([parcel.header.round.job, self.text()])
                return pb.FromSite(
                    verdict=pb.Verdict(
                        job=job,
                        accepted=self.rng.random() < 0.5,
                        plan_digest=self.rng.choice([parcel.header.plan_digest, self.text()]),
                        reason=self.text(),
                    )
                )
            case 2:
                name = self.round_id(parcel.header.round)
                return pb.FromSite(declined=pb.Declined(round=name, reason=self.text()))
            case _:
                return pb.FromSite()


@dataclass
class Fuzzer:
    """One site with a valid certificate that sends anything but what it should.

    Attributes:
      parcel: the honest update that its lies are made from; never sent as it is.
      frames: how many messages were sent.
      answers: how often each status came back.
      seconds: how long each refused call took, from its last message to its end.
    """

    address: str
    enrol_address: str
    shown: Credentials
    parcel: Parcel
    model: str
    csr: bytes
    seed: int
    frames: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def run(self, frames: int, workers: int = 8) -> None:
        """Sends so many messages over one channel, and some past it."""
        async with self._channels() as (sites, enrolment):
            await asyncio.gather(
                *(self._work(number, frames, sites, enrolment) for number in range(workers))
            )

    @asynccontextmanager
    async def _channels(self) -> AsyncIterator[tuple[grpc.aio.Channel, grpc.aio.Channel]]:
        shown = self.shown
        mutual = grpc.ssl_channel_credentials(shown.root_pem, shown.key_pem, shown.chain_pem)
        plain = grpc.ssl_channel_credentials(shown.root_pem)
        options = (*CHANNEL_OPTIONS, ("grpc.max_metadata_size", 1 << 20))
        async with (
            grpc.aio.secure_channel(self.address, mutual, options=options) as sites,
            grpc.aio.secure_channel(self.enrol_address, plain, options=options) as enrolment,
        ):
            yield sites, enrolment

    async def _work(
        self, number: int, frames: int, sites: grpc.aio.Channel, enrolment: grpc.aio.Channel
    ) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        mutator = Mutator(rng)
        kinds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "attend": (30, lambda: self._attend(sites, mutator)),
            "deliver": (30, lambda: self._deliver(sites, mutator)),
            "fetch": (15, lambda: self._fetch(sites, mutator)),
            "renew": (10, lambda: self._renew(sites, mutator)),
            "enrol": (8, lambda: self._enrol(enrolment, mutator)),
            "many headers": (3, lambda: self._flood(sites, mutator)),
            "frames of HTTP/2": (2, lambda: self._http2(mutator)),
            "no certificate": (2, lambda: self._stranger(mutator)),
        }
        weights = [weight for weight, _ in kinds.values()]
        while self.frames < frames:
            (name,) = rng.choices(list(kinds), weights)
            try:
                async with asyncio.timeout(SECONDS):
                    await kinds[name][1]()
            except TimeoutError:
                raise AssertionError(f"{name}: no answer within {SECONDS:g} s") from None

    # -------------------------------------------------------------- by the library

    async def _call(
        self, channel: grpc.aio.Channel, method: Method[Any, Any], messages: list[bytes], **kw: Any
    ) -> None:
        """Sends raw messages; reads what comes until the call ends or nothing more comes.

        It reads while it writes: what is not read keeps a status from being heard, and a call whose
        status is not heard keeps one of the few streams of the channel.
        """
        call: Any = channel.stream_stream(method.path)(**kw)
        reading = asyncio.create_task(_read(call))
        try:
            for message in messages:
                if reading.done():
                    break
                self.frames += 1
                await call.write(message)
            began = time.perf_counter()
            if not call.done() and method is not ATTEND:
                await call.done_writing()
            await asyncio.wait([reading], timeout=LISTEN if method is ATTEND else SECONDS / 2)
            if reading.done():
                self.seconds.append(time.perf_counter() - began)
                self.answers[reading.result()] += 1
            else:
                self.answers["open" if method is ATTEND else "silent"] += 1
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(SECONDS / 2):
                self.answers[await reading] += 1
        finally:
            reading.cancel()
            call.cancel()
            await asyncio.wait([reading])

    async def _attend(self, channel: grpc.aio.Channel, mutator: Mutator) -> None:
        rng = mutator.rng
        hello = pb.FromSite(hello=HELLO).SerializeToString()
        messages = [hello if rng.random() < 0.7 else mutator.mutated(hello)]
        for _ in range(rng.choice([0, 1, 2, 5])):
            said = mutator.said(self.parcel).SerializeToString()
            messages.append(said if rng.random() < 0.5 else mutator.mutated(said))
        if rng.random() < 0.1:
            rng.shuffle(messages)
        await self._call(channel, ATTEND, messages)

    async def _deliver(self, channel: grpc.aio.Channel, mutator: Mutator) -> None:
        rng, content = mutator.rng, self.parcel.content
        header = pb.DeliverPart(header=mutator.header(self.parcel)).SerializeToString()
        if rng.random() < 0.3:
            header = mutator.mutated(header)
        odd = bytes([content[0] ^ 1]) + content[1:]  # never the honest bytes
        data = [
            pb.DeliverPart(data=odd),
            pb.DeliverPart(data=odd[: rng.randrange(len(odd))]),
            pb.DeliverPart(data=odd + b"\0"),
            pb.DeliverPart(data=b""),
            pb.DeliverPart(header=self.parcel.header),
            pb.DeliverPart(data=mutator.junk(CHUNK if rng.random() < 0.02 else 100)),
        ]
        messages = [header]
        for _ in range(rng.choice([0, 1, 1, 2, 4])):
            part = rng.choice(data).SerializeToString()
            messages.append(part if rng.random() < 0.6 else mutator.mutated(part[:2000]))
        if rng.random() < 0.1:
            messages.pop(0)
        await self._call(channel, DELIVER, messages)

    async def _fetch(self, channel: grpc.aio.Channel, mutator: Mutator) -> None:
        rng = mutator.rng
        request = pb.FetchRequest(
            sha256=rng.choice([self.model, mutator.text()]),
            offset=rng.choice([0, 3, mutator.number(), 2**64 - 1]),
        ).SerializeToString()
        await self._call(
            channel, FETCH, [request if rng.random() < 0.5 else mutator.mutated(request)]
        )

    async def _renew(self, channel: grpc.aio.Channel, mutator: Mutator) -> None:
        request = pb.RenewRequest(csr_pem=self.csr).SerializeToString()
        inner = pb.RenewRequest(csr_pem=mutator.mutated(self.csr)).SerializeToString()
        chosen = inner if mutator.rng.random() < 0.7 else mutator.mutated(request)
        await self._call(channel, RENEW, [chosen])

    async def _enrol(self, channel: grpc.aio.Channel, mutator: Mutator) -> None:
        request = pb.EnrolRequest(token=mutator.junk(64), csr_pem=mutator.mutated(self.csr))
        sent = request.SerializeToString()
        await self._call(
            channel, ENROL, [sent if mutator.rng.random() < 0.5 else mutator.mutated(sent)]
        )

    async def _flood(self, channel: grpc.aio.Channel, mutator: Mutator) -> None:
        """More headers, or longer ones, than anybody needs."""
        rng = mutator.rng
        many = [(f"x-{number}", "y" * 50) for number in range(rng.choice([10, 100, 400]))]
        long = [("x-long", "y" * rng.choice([1000, 9000, 100_000]))]
        binary = [("x-bin", mutator.junk(5000))]
        methods: list[Method[Any, Any]] = [ATTEND, FETCH, DELIVER, RENEW]
        await self._call(
            channel,
            rng.choice(methods),
            [mutator.junk(50)],
            metadata=tuple(rng.choice([many, long, binary])),
        )

    # -------------------------------------------------------------- past the library

    async def _http2(self, mutator: Mutator) -> None:
        """Frames of HTTP/2 that make no sense, from a valid certificate."""
        rng = mutator.rng
        content = bytearray(PREFACE if rng.random() < 0.9 else mutator.mutated(PREFACE))
        content += _frame(4, 0, 0, b"")
        for _ in range(rng.randrange(1, 12)):
            kind, flags = rng.randrange(12), rng.getrandbits(8)
            stream = rng.choice([0, 1, 2, 3, 2**31 - 1])
            content += _frame(kind, flags, stream, mutator.junk(300))
            self.frames += 1
        if rng.random() < 0.3:
            content += b"\xff\xff\xff" + mutator.junk(100)  # a frame of 16 MiB that does not come
        await self._raw(bytes(content), _context(self.shown))

    async def _stranger(self, mutator: Mutator) -> None:
        """Bytes from somebody without a certificate, or without TLS."""
        rng = mutator.rng
        content = rng.choice(
            [
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                PREFACE + _frame(4, 0, 0, b""),
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + mutator.junk(500),
                b"\x16\x03\x01\xff\xff",
                mutator.junk(3000),
                b"",
            ]
        )
        self.frames += 1
        context: ssl.SSLContext | None = None
        if rng.random() < 0.3:
            context = ssl.create_default_context(cadata=self.shown.root_pem.decode())
            context.set_alpn_protocols(["h2"])
        await self._raw(content, context)

    async def _raw(self, content: bytes, context: ssl.SSLContext | None) -> None:
        host, _, port = self.address.rpartition(":")
        with contextlib.suppress(OSError, TimeoutError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            try:
                writer.write(content)
                await writer.drain()
                async with asyncio.timeout(4 * LISTEN):
                    while await reader.read(4096):
                        pass
            finally:
                writer.transport.abort()


async def _read(call: Any) -> str:
    """Reads a call to its end; the name of its status."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
        code: grpc.StatusCode = await call.code()
    except grpc.aio.AioRpcError as error:
        code = error.code()
    return code.name


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def resident_bytes() -> int:
    """Memory of this process."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  not a file of anybody's
        return int(file.read().split()[1]) * 4096
