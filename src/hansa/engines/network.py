"""The network engine: clients are sites that attend over mTLS and are pushed their work."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hansa.coordinator.accumulator import DurableAccumulator
from hansa.coordinator.blobs import Blobs
from hansa.coordinator.buffers import Buffers
from hansa.coordinator.conversation import Conversation
from hansa.coordinator.desk import Desk, RoundKey
from hansa.coordinator.heads import Heads
from hansa.coordinator.intake import Intake
from hansa.coordinator.masked import MaskedFold, Steps, together
from hansa.coordinator.roster import Roster
from hansa.coordinator.shelf import Shelf
from hansa.coordinator.spare import Spare
from hansa.coordinator.store import Store
from hansa.coordinator.stream import Stream
from hansa.core.arrival import Buffer
from hansa.core.contribute import Purpose, RoundTask
from hansa.core.parts import Course, Dropout, Partial
from hansa.core.plan import Plan
from hansa.core.round import Opening
from hansa.engines.goal import goal_of
from hansa.engines.masking import groups_of, revealed, session_of
from hansa.errors import RoundVoid
from hansa.identity.directory import Directory
from hansa.secagg.server import Ask, Sum, server_flow
from hansa.stages.mask import Mask, mask_of
from hansa.wire.secagg import write_ask
from hansa.wire.v1 import sites_pb2 as pb


@dataclass(frozen=True, slots=True)
class NetworkEngine:
    """Runs the rounds of one job on attending sites.

    Attributes:
      job: identifier of the job.
      roster: who attends.
      desk: where deliveries are directed.
      shelf: what sites may fetch.
      blobs: where the parameters of each round are.
      store: durable state.
      accumulator: durable sums of this job.
      buffers: memory for updates on their way in.
      spare: memory for the sums of one round after the other.
      federation: its name.
      directory: checks what sites sign.
      revocations: the authority's list of revoked sites, as it is now.
      heads: the budgets' chain, shown to each site before its work.
      stream: who is at work, where updates count in whichever round they arrive.
    """

    job: str
    roster: Roster
    desk: Desk
    shelf: Shelf
    blobs: Blobs
    store: Store
    accumulator: DurableAccumulator
    buffers: Buffers
    federation: str
    directory: Directory
    revocations: Callable[[], str]
    heads: Heads
    spare: Spare = field(default_factory=Spare)
    stream: Stream | None = None

    @property
    def real(self) -> bool:
        """True: the clients are other parties."""
        return True

    @contextmanager
    def streaming(self, plan: Plan) -> Iterator[NetworkEngine]:
        """The engine from the first round to the last; with a stream if updates come late."""
        buffer = Buffer.of(plan.job)
        if buffer is None:
            yield self
            return
        stream = Stream(
            self.job,
            buffer,
            roster=self.roster,
            shelf=self.shelf,
            blobs=self.blobs,
            store=self.store,
            memory=self.buffers,
            ask=self._push,
            withdraw=self._take_back,
        )
        with self.desk.streaming(stream), stream.running():
            yield replace(self, stream=stream)

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout | Course]:
        """Pushes the work, waits until the deadline, and yields the durable sum.

        A site that comes back before the deadline is pushed its work again.
        """
        await self.heads.refresh()
        if self.stream is not None and task.purpose is Purpose.TRAIN:
            async for each in self._arriving(self.stream, task, cohort):
                yield each
            return
        if self.stream is not None:
            self.stream.end()
        mask = mask_of(task.plan)
        going = self._plain(task, cohort) if mask is None else self._masked(task, cohort, mask)
        async for item in going:
            if isinstance(item, Dropout):
                self._take_back(item.client, task, item.reason)
            yield item

    async def _arriving(
        self, stream: Stream, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout | Course]:
        """The updates that come first, also of who was asked in an earlier round."""
        buffer = task.plan.parts.sampler.cap
        intake = self._intake(task, cohort, limit=buffer)
        await intake.load()
        with self.desk.taking(intake):
            async for item in stream.fill(intake, task):
                yield item

    async def _plain(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Updates that the coordinator can read, folded as they come."""
        intake = self._intake(task, cohort)
        await intake.load()
        seconds = task.plan.job.rounds.deadline
        ends = asyncio.get_running_loop().time() + seconds

        def push(site: str) -> None:
            if site in intake.awaited:
                left = ends - asyncio.get_running_loop().time()
                self._push(site, task, left)

        with (
            self.shelf.offering(task.model, self.blobs.path(task.model), frozenset(cohort)),
            self.desk.taking(intake),
            self.roster.watching(push),
        ):
            for site in cohort:
                push(site)
            partial, dropouts = await intake.complete(goal_of(task, cohort), seconds)
        yield partial
        for dropout in dropouts:
            yield dropout

    async def _masked(
        self, task: RoundTask, cohort: Sequence[str], mask: Mask
    ) -> AsyncIterator[Partial | Dropout]:
        """Updates that only their sum tells anything of, or the sums of random groups."""
        groups = groups_of(task, mask, cohort)
        revoked = self.revocations()
        self.directory.revoke(revoked)
        with self.shelf.offering(task.model, self.blobs.path(task.model), frozenset(cohort)):
            sums = await together([self._summed(task, each, mask, revoked) for each in groups])
        for total, _ in sums:
            if total is not None:
                yield revealed(task.plan, total.vector, total.members)
        for _, dropouts in sums:
            for dropout in dropouts:
                yield dropout

    async def _summed(
        self, task: RoundTask, group: Sequence[str], mask: Mask, revoked: str
    ) -> tuple[Sum | None, list[Dropout]]:
        """One masked sum, and who is not in it."""
        nonce, seconds = secrets.token_bytes(32), task.plan.job.rounds.deadline
        session = session_of(
            task.plan,
            mask,
            task.purpose,
            (task.round, task.attempt),
            task.model,
            federation=self.federation,
            job=self.job,
            nonce=nonce,
            clip=task.clip,
        )
        talk = Conversation(nonce, lambda: self.roster.present, frozenset(group))
        ends = asyncio.get_running_loop().time() + seconds

        def push(site: str) -> None:
            left = ends - asyncio.get_running_loop().time()
            self._push(site, task, left, nonce)

        def say(ask: Ask[Any], site: str) -> None:
            message = ask.messages[site]
            if message is not None:
                self.roster.push(site, write_ask(self._round(task), nonce, message, revoked))

        steps = Steps(
            server_flow(session, group, self.directory),
            talk,
            say,
            lambda sites, ask: self._intake(task, sites, MaskedFold(ask, session.bits)),
            self.desk.taking,
            seconds,
        )
        key = RoundKey(self.job, task.purpose, task.round, task.attempt)
        total, why = None, "took no part in the sum"
        with self.desk.talking(key, talk), self.roster.watching(talk.entered):
            try:
                total = await steps.lead(push, goal_of(task, group))
            except RoundVoid as error:
                self.desk.spoil(key, frozenset(group), error)
                why = error.message
        members = frozenset(total.members if total is not None else ())
        return total, [
            Dropout(site, talk.gone.get(site, why)) for site in sorted(set(group) - members)
        ]

    def _intake(
        self,
        task: RoundTask,
        cohort: Sequence[str],
        fold: MaskedFold | None = None,
        limit: int = 0,
    ) -> Intake:
        opening = Opening(task.purpose, task.round, task.attempt, tuple(cohort), task.model)
        return Intake(
            self.job,
            task,
            opening,
            store=self.store,
            accumulator=self.accumulator,
            buffers=self.buffers,
            spare=self.spare,
            fold=fold,
            limit=limit,
        )

    def _round(self, task: RoundTask) -> pb.RoundId:
        return pb.RoundId(
            job=self.job, purpose=task.purpose.value, round=task.round, attempt=task.attempt
        )

    def _push(self, site: str, task: RoundTask, left: float, nonce: bytes = b"") -> None:
        """The work of a round, after the head that it is charged under."""
        work = self._work(task, left, nonce)
        work.ledger_seq = self.heads.show(site)
        self.roster.push(site, pb.ToSite(work=work))

    def _work(self, task: RoundTask, left: float, nonce: bytes) -> pb.Work:
        return pb.Work(
            round=self._round(task),
            plan_digest=task.plan.digest,
            model_sha256=task.model,
            model_size=task.params.nbytes,
            seconds=max(left, 0.0),
            nonce=nonce,
            clip=task.clip,
        )

    def _take_back(self, site: str, task: RoundTask, reason: str) -> None:
        withdraw = pb.Withdraw(job=self.job, round=self._round(task), reason=reason)
        self.roster.push(site, pb.ToSite(withdraw=withdraw))
