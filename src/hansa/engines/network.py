"""The network engine: clients are sites that attend over mTLS and are pushed their work."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from hansa.coordinator.accumulator import DurableAccumulator
from hansa.coordinator.blobs import Blobs
from hansa.coordinator.buffers import Buffers
from hansa.coordinator.desk import Desk
from hansa.coordinator.intake import Intake
from hansa.coordinator.roster import Roster
from hansa.coordinator.shelf import Shelf
from hansa.coordinator.spare import Spare
from hansa.coordinator.store import Store
from hansa.core.contribute import RoundTask
from hansa.core.parts import Dropout, Partial
from hansa.core.round import Opening
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
    """

    job: str
    roster: Roster
    desk: Desk
    shelf: Shelf
    blobs: Blobs
    store: Store
    accumulator: DurableAccumulator
    buffers: Buffers
    spare: Spare = field(default_factory=Spare)

    @property
    def real(self) -> bool:
        """True: the clients are other parties."""
        return True

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Pushes the work, waits until the deadline, and yields the durable sum.

        A site that comes back before the deadline is pushed its work again.
        """
        opening = Opening(task.purpose, task.round, task.attempt, tuple(cohort), task.model)
        intake = Intake(
            self.job,
            task,
            opening,
            store=self.store,
            accumulator=self.accumulator,
            buffers=self.buffers,
            spare=self.spare,
        )
        await intake.load()
        seconds = task.plan.job.rounds.deadline
        ends = asyncio.get_running_loop().time() + seconds

        def push(site: str) -> None:
            if site in intake.awaited:
                left = ends - asyncio.get_running_loop().time()
                self.roster.push(site, pb.ToSite(work=self._work(task, left)))

        with (
            self.shelf.offering(task.model, self.blobs.path(task.model), frozenset(cohort)),
            self.desk.taking(intake),
            self.roster.watching(push),
        ):
            for site in cohort:
                push(site)
            partial, dropouts = await intake.complete(_goal(task, cohort), seconds)
        yield partial
        for dropout in dropouts:
            self.roster.push(dropout.client, pb.ToSite(withdraw=self._withdraw(task, dropout)))
            yield dropout

    def _round(self, task: RoundTask) -> pb.RoundId:
        return pb.RoundId(
            job=self.job, purpose=task.purpose.value, round=task.round, attempt=task.attempt
        )

    def _work(self, task: RoundTask, left: float) -> pb.Work:
        return pb.Work(
            round=self._round(task),
            plan_digest=task.plan.digest,
            model_sha256=task.model,
            model_size=task.params.nbytes,
            seconds=max(left, 0.0),
        )

    def _withdraw(self, task: RoundTask, dropout: Dropout) -> pb.Withdraw:
        return pb.Withdraw(job=self.job, round=self._round(task), reason=dropout.reason)


def _goal(task: RoundTask, cohort: Sequence[str]) -> int:
    """Updates that are enough: all, or the wanted number where more were asked."""
    if task.plan.job.cohort.over_selection > 1:
        return min(len(cohort), math.ceil(task.plan.parts.sampler.expected))
    return len(cohort)
