"""Masked rounds in a test: jobs, and a site that follows the protocol by hand, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Cohort, Job, Quantization, Rounds, SecureAggregation
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.engines.masking import session_of
from hansa.identity.directory import Directory
from hansa.secagg.client import Member, client_flow
from hansa.secagg.messages import Masked, ToServer
from hansa.secagg.session import Session
from hansa.site.agent import Agent
from hansa.site.desk import Asked, work
from hansa.site.masking import Flow
from hansa.site.outbox import Package
from hansa.site.rounds import clip_of
from hansa.site.sessions import Sessions
from hansa.stages.mask import mask_of
from hansa.wire.secagg import read_ask, write_reply
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Federation, Place, job, running
from tests.support.rawsite import Parcel, RawSite, raw_site
from tests.support.sitejob.task import SITES

FOUR = SITES[:4]
"""A cohort of four has a threshold of three, and so is the quorum."""

SOON = 0.3
"""Seconds in which a test lets an absent site be missed."""

RING: dict[int, dict[str, Any]] = {
    32: {"clip": 1.0, "max_weight": 40.0, "step": 1e-4},
    24: {"clip": 1.0, "max_weight": 20.0, "step": 1e-2},
    16: {"clip": 1.0, "max_weight": 4.0, "step": 1e-2},
}


def masked_job(task: str = "Small", *, bits: int = 32, masks: bool = True, **words: Any) -> Job:
    """A job for four sites: one round and a measurement."""
    ring = RING[bits]
    usual: dict[str, Any] = {
        "name": "masked",
        "cohort": Cohort(population=len(FOUR)),
        "rounds": Rounds(count=1, deadline=LONG),
        "aggregation": Aggregation(clip=ring["clip"], max_weight=ring["max_weight"]),
        "quantization": Quantization(step=ring["step"], bits=bits),
        "secure_aggregation": SecureAggregation(enabled=masks),
    }
    return job(task, **{**usual, **words})


# ------------------------------------------------------------------ a site by hand


@dataclass
class Player:
    """One masked round of one site, step by step.

    Attributes:
      raw: its connection.
      order: the work that it was pushed.
      session: what the round is about.
      flow: the honest client.
      last: what the client made last.
      asked: what the coordinator said before that.
      update: what the site contributes, before masks.
    """

    raw: RawSite
    order: pb.Work
    session: Session
    flow: Flow = field(repr=False)
    update: Vector = field(repr=False)
    last: ToServer | None = field(default=None, repr=False)
    asked: pb.SecAggAsk = field(default_factory=pb.SecAggAsk, repr=False)

    async def make(self) -> ToServer:
        """The next message: the first at once, others in answer to the coordinator's next one."""
        if self.last is None:
            self.last = await asyncio.to_thread(next, self.flow)
        else:
            self.asked = await self.hear()
            self.last = await asyncio.to_thread(self.flow.send, read_ask(self.asked))
        return self.last

    async def hear(self) -> pb.SecAggAsk:
        """The coordinator's next message; what is left of rounds before is passed over."""
        while True:
            ask: pb.SecAggAsk = await self.raw.hear("secagg")
            if ask.nonce == self.order.nonce:
                return ask

    async def send(self, message: ToServer) -> asyncio.Task[Any] | None:
        """Says a message; a masked update is delivered by a task, as its receipt comes late."""
        if isinstance(message, Masked):
            return asyncio.create_task(self.raw.deliver(self.parcel(message.vector)))
        await self.say(write_reply(self.order.round, self.order.nonce, message).secagg)
        return None

    async def say(self, reply: pb.SecAggReply) -> None:
        await self.raw.say(secagg=reply)

    def parcel(self, words: Vector) -> Parcel:
        """A masked update, ready to be delivered."""
        plan = self.raw.jobs[self.order.round.job].plan
        package = Package.of(
            self.raw.credentials.federation, self.raw.name, plan, self.order, words
        )
        return Parcel(package.header, bytes(package.content), package.receipt)

    async def steps(
        self,
        count: int,
        change: Callable[[ToServer], ToServer] | None = None,
    ) -> asyncio.Task[Any] | None:
        """Takes part in so many steps; `change` is what is done to the last message.

        Returns:
          The delivery, if a masked update was among them.
        """
        delivery = None
        for step in range(1, count + 1):
            message = await self.make()
            if step == count and change is not None:
                message = change(message)
            delivery = await self.send(message) or delivery
        return delivery


def session_for(raw: RawSite, order: pb.Work) -> Session:
    """What the round of an order is about, as the site computes it."""
    plan, name = raw.jobs[order.round.job].plan, order.round
    mask = mask_of(plan)
    assert mask is not None
    return session_of(
        plan,
        mask,
        Purpose(name.purpose),
        (name.round, name.attempt),
        order.model_sha256,
        federation=raw.credentials.federation,
        job=name.job,
        nonce=order.nonce,
        clip=clip_of(order),
    )


def member_of(raw: RawSite, place: Place) -> Member:
    """The site as a member, with its own floor and memory."""
    return Member(
        raw.name,
        raw.credentials.signing_key().sign,
        raw.credentials.document,
        Directory(raw.credentials.root_pem, raw.credentials.federation),
        raw.config.secure_aggregation.floor,
        Sessions(place.site(raw.name)),
    )


async def play(raw: RawSite, place: Place, order: pb.Work | None = None) -> Player:
    """Waits for work, does it, and begins the protocol by hand."""
    order = order or await raw.hear("work")
    params = np.frombuffer(await raw.fetch(order.model_sha256), "<f4")
    accepted, name = raw.jobs[order.round.job], order.round
    asked = Asked(
        Purpose(name.purpose),
        name.round,
        name.attempt,
        params,
        order.model_sha256,
        clip_of(order),
    )
    vector = await asyncio.to_thread(work, accepted, raw.name, asked)
    session = session_for(raw, order)
    return Player(raw, order, session, client_flow(session, member_of(raw, place), vector), vector)


async def hang_up(raw: RawSite) -> None:
    """Is gone from one moment to the next."""
    raw.stream.cancel()
    with suppress(asyncio.CancelledError):
        await raw.stream.code()


@asynccontextmanager
async def scripted(
    place: Place, *names: str, sites: tuple[str, ...] = FOUR
) -> AsyncIterator[tuple[Federation, list[RawSite]]]:
    """A running federation in which some sites are led by hand and the others by agents."""
    async with running(place) as federation, AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(raw_site(place, name)) for name in names]
        for raw in raws:
            await raw.attend()
        await federation.agents(*(site for site in sites if site not in names))
        yield federation, raws


async def offered(federation: Federation, raws: list[RawSite], wanted: Job) -> tuple[str, Plan]:
    """Submits a job that the sites led by hand accept."""
    job_id, plan = await federation.submit(wanted)
    for raw in raws:
        await raw.take_offer()
    return job_id, plan


class Overheard(Agent):
    """An agent that remembers what it said."""

    said: list[pb.FromSite]

    async def _say(self, message: pb.FromSite) -> None:
        self.__dict__.setdefault("said", []).append(message)
        await super()._say(message)


def round_of(message: pb.FromSite) -> int:
    """The training round that a message is about; -1 for all others."""
    body = getattr(message, message.WhichOneof("body") or "")
    return body.round.round if hasattr(body, "round") and body.round.purpose == "train" else -1
