"""Runs jobs: offers them to sites, waits for their verdicts, trains, and goes on after a restart.

submitted ──► offered ──► running ──► done
    │            │           │  └───► failed
    └────────────┴───────────┴──────► cancelled, refused
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hansa.coordinator.accumulator import DurableAccumulator
from hansa.coordinator.blobs import Blobs
from hansa.coordinator.budget import JobBudget
from hansa.coordinator.buffers import Buffers
from hansa.coordinator.desk import Desk, RoundKey
from hansa.coordinator.heads import Heads
from hansa.coordinator.housekeeping import Housekeeping
from hansa.coordinator.journal import StoreJournal, remembered_standings, remembered_state
from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.members import Members
from hansa.coordinator.noise_keys import forget, noise_of
from hansa.coordinator.notices import Notices
from hansa.coordinator.roster import Roster
from hansa.coordinator.rows import Decision, JobRow, Status
from hansa.coordinator.shelf import Shelf
from hansa.coordinator.store import Store
from hansa.coordinator.submission import plan_of
from hansa.core.contribute import Purpose
from hansa.core.keys import Noise, NoiseSource, ReplayKey
from hansa.core.parts import Correlated
from hansa.core.plan import Plan
from hansa.core.round import TrainState, World
from hansa.core.train import initial_state, train
from hansa.defend.standings import Standings
from hansa.engines.network import NetworkEngine
from hansa.errors import (
    BudgetExceeded,
    HansaError,
    Refused,
    RoundVoid,
    StoreError,
    Unavailable,
)
from hansa.wire.v1 import sites_pb2 as pb

_TOO_LATE = "the job runs with other sites already"

PAUSES = (0.2, 1.0, 5.0, 20.0)
"""Seconds to wait for a store that failed, each time it fails again; the last one repeats."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Floor:
    """What all jobs of a coordinator share.

    Attributes:
      store: durable state.
      blobs: vectors and bundles.
      roster: attending sites.
      desk: where deliveries are directed.
      shelf: what sites may fetch.
      buffers: memory for updates on their way in.
      sums: the durable sums of a job.
      housekeeping: deletes what no job needs any more.
      secret: from which cohorts that must not be foreseen are drawn.
      members: enrolled sites.
      heads: the budgets' chain, as sites are shown it.
      clock: seconds since the epoch.
    """

    store: Store
    blobs: Blobs
    roster: Roster
    desk: Desk
    shelf: Shelf
    buffers: Buffers
    sums: Callable[[str], DurableAccumulator]
    housekeeping: Housekeeping
    secret: ReplayKey
    members: Members
    heads: Heads
    clock: Callable[[], float]


@dataclass(slots=True, eq=False)
class Open:
    """One job that has not ended.

    Attributes:
      row: the job as submitted.
      plan: its plan.
      bundle: the file with the task's code; None until the job is offered.
      verdicts: what sites said to it.
      population: the sites it runs with, once it runs; later ones come too late.
      changed: set with each verdict.
      budget: the privacy budgets that it holds, once it runs.
      closed: rounds that were closed by this process.
      task: the task that runs it.
    """

    row: JobRow
    plan: Plan
    bundle: Path | None = None
    verdicts: dict[str, bool] = field(default_factory=dict)
    population: tuple[str, ...] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    budget: JobBudget | None = None
    closed: int = 0
    task: asyncio.Task[None] | None = None


class Runner:
    """The open jobs, each a task in the event loop; `notices` tells sites where they stand."""

    def __init__(self, floor: Floor, on_event: Callable[[], None]) -> None:
        self._floor = floor
        self._on_event = on_event
        self._open: dict[str, Open] = {}
        self.notices = Notices(floor.roster)

    async def resume(self) -> None:
        """Takes up every job that an earlier process left open."""
        for row in await asyncio.to_thread(self._floor.store.jobs):
            if not row.status.final:
                try:
                    self.start(row, await asyncio.to_thread(plan_of, row))
                except HansaError as error:
                    await self._set(row.id, Status.FAILED, str(error))

    def start(self, row: JobRow, plan: Plan) -> None:
        """Runs a submitted job in the background."""
        job = self._open[row.id] = Open(row, plan)
        job.task = asyncio.create_task(self._run(job), name=f"job {row.id}")

    async def cancel(self, job_id: str, reason: str) -> None:
        """Ends a job on request; the model stays at its last closed round.

        Raises:
          HansaError: there is no such open job.
        """
        job = self._open.get(job_id)
        if job is None or job.task is None:
            raise HansaError(f"job '{job_id}' is not open", fix="see `hansa jobs`")
        job.task.cancel(reason)
        await asyncio.wait([job.task])

    async def close(self) -> None:
        """Stops all jobs where they stand; a restart goes on from there."""
        tasks = [job.task for job in self._open.values() if job.task is not None]
        self._open.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -------------------------------------------------------------- what sites do

    def entered(self, site: str) -> None:
        """A site attends: it is offered every open job."""
        for job in self._open.values():
            if job.bundle is not None:
                self._offer(job, site)
        self.notices.entered(site)

    async def decided(self, site: str, verdict: pb.Verdict) -> None:
        """A site's verdict on an offer; the last one counts."""
        job = self._open.get(verdict.job)
        if job is None:
            return
        accepted, reason = _judged(job, site, verdict)
        decision = Decision(
            job=verdict.job,
            site=site,
            accepted=accepted,
            reason=reason,
            digest=verdict.plan_digest[:64],
            now=self._floor.clock(),
        )
        await self._decide(job, decision)
        if accepted and job.population is not None and site not in job.population:
            await self._decide(job, replace(decision, accepted=False, reason=_TOO_LATE))

    async def _decide(self, job: Open, decision: Decision) -> None:
        await asyncio.to_thread(self._floor.store.decide, decision)
        job.verdicts[decision.site] = decision.accepted
        job.changed.set()
        self._on_event()

    def _offer(self, job: Open, site: str) -> None:
        row = job.row
        offer = pb.Offer(
            job=row.id,
            words=row.words_json,
            facts=row.facts_json,
            plan_digest=row.plan_digest,
            bundle_sha256=row.bundle_sha256,
            bundle_size=self._floor.blobs.size(row.bundle_sha256),
            bundle_signature=row.bundle_signature,
        )
        self._floor.roster.push(site, pb.ToSite(offer=offer))

    # -------------------------------------------------------------- one job

    async def _run(self, job: Open) -> None:
        """Runs a job to its end and writes down how it ended."""
        job_id = job.row.id
        try:
            code = job.row.bundle_sha256
            job.bundle = await asyncio.to_thread(self._floor.blobs.path, code)
            with self._floor.shelf.offering(code, job.bundle):
                await self._prepare(job)
                await self._train_to_the_end(job)
            await self._end(job_id, Status.DONE, "")
        except Refused as error:
            # Without room for the whole job nothing was begun; later, rounds may have been.
            spent = isinstance(error, BudgetExceeded) and job.budget is not None
            await self._end(job_id, Status.FAILED if spent else Status.REFUSED, str(error))
        except HansaError as error:
            await self._end(job_id, Status.FAILED, str(error))
        except asyncio.CancelledError as cancelled:
            if job_id in self._open:  # asked for; a shutdown leaves the job open
                await self._end(job_id, Status.CANCELLED, str(cancelled))
        except Exception as error:  # noqa: BLE001  # one job's defect must not end the others
            _log.exception("job %s ended by a defect", job_id)
            await self._end(job_id, Status.FAILED, f"a defect in Hansa: {type(error).__name__}")
        finally:
            self._open.pop(job_id, None)
            self.notices.forget(job_id)

    async def _end(self, job_id: str, status: Status, reason: str) -> None:
        """Writes down how a job ended, and tells everybody who waits for it."""
        floor, ended = self._floor, RoundVoid("the job has ended", fix="drop the update")
        try:
            await self._set(job_id, status, reason)
        except StoreError as error:
            # Its sites keep what they have: the next start takes the job up where the store has it.
            _log.error("that job %s is %s cannot be written down: %s", job_id, status.value, error)
            floor.desk.abandon(job_id, _interrupted())
            return
        floor.desk.abandon(job_id, ended)
        for site in floor.roster.present:
            floor.roster.push(site, pb.ToSite(withdraw=pb.Withdraw(job=job_id)))

    async def _prepare(self, job: Open) -> None:
        """Offers the job and returns once enough sites have accepted the plan."""
        row, floor = job.row, self._floor
        for decision in await asyncio.to_thread(floor.store.decisions, row.id):
            job.verdicts.setdefault(decision.site, decision.accepted)
        if row.status is Status.SUBMITTED:
            await self._set(row.id, Status.OFFERED, "")
        for site in floor.roster.present:
            self._offer(job, site)
        if row.status is not Status.RUNNING:
            await self._accepted(job)
            await self._set(row.id, Status.RUNNING, "")
        await self._settle_population(job)
        await self._hold(job)

    async def _hold(self, job: Open) -> None:
        """Sets aside all that the job declares, before the first client is contacted.

        Raises:
          BudgetExceeded: a privacy budget lacks room for it.
          Refused: a privacy budget covers the job and cannot count it.
        """
        job.budget = await asyncio.to_thread(
            self._floor.store.budgets.decide,
            job.row.id,
            job.plan,
            self._floor.members.federation,
            job.population or (),
            self._floor.clock(),
        )
        self._on_event()

    async def _settle_population(self, job: Open) -> None:
        """Fixes who takes part: of those who accepted, no more than the plan was made for.

        Who accepted and is left out is written down, so that a restart settles the same.
        """
        known, size = self._floor.store.decisions, job.plan.job.cohort.population
        accepted = [d.site for d in await asyncio.to_thread(known, job.row.id) if d.accepted]
        job.population = tuple(sorted(accepted)[:size])
        for decision in await asyncio.to_thread(known, job.row.id):  # also of a moment ago
            if decision.accepted and decision.site not in job.population:
                await self._decide(job, replace(decision, accepted=False, reason=_TOO_LATE))

    def _state(self, job: Open, standings: Standings | None) -> TrainState:
        """The state to start from: the first, or what an earlier process wrote down."""
        store, blobs = self._floor.store, self._floor.blobs
        row = store.state(job.row.id)
        if row is not None:
            return remembered_state(row, job.plan, blobs, standings)
        name = job.row.initial_sha256
        return initial_state(job.plan, blobs.mapped(name, np.dtype("<f4")), name)

    async def _accepted(self, job: Open) -> None:
        """Waits for the whole population, or after the deadline of a round for the quorum.

        Raises:
          Refused: so many sites refused that the quorum cannot be reached.
        """
        plan, now = job.plan, asyncio.get_running_loop().time
        wanted, ends = plan.job.cohort.population, now() + plan.job.rounds.deadline
        while True:
            yes = sum(job.verdicts.values())
            no, left = len(job.verdicts) - yes, ends - now()
            if yes >= wanted or (left <= 0 and yes >= plan.quorum):
                return
            undecided = len(self._floor.roster.present - job.verdicts.keys())
            most = max(wanted - no, yes + undecided)
            if most < plan.quorum:
                raise Refused(
                    f"{no} site{'s' * (no != 1)} refused the plan: at most {most} of the "
                    f"{plan.quorum} that a round needs can take part",
                    fix="see the sites' reasons with `hansa jobs JOB`, change the job, submit it "
                    "again",
                )
            job.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left if left > 0 else None):
                    await job.changed.wait()

    async def _train_to_the_end(self, job: Open) -> None:
        """Trains; where the store fails, goes on from what it holds, as after a restart.

        Raises:
          StoreError: it has failed for as long as a round may take, and no round was closed
            meanwhile.
        """
        now, failures, since = asyncio.get_running_loop().time, 0, 0.0
        longest = max(job.plan.job.rounds.deadline, sum(PAUSES))
        while True:
            closed = job.closed
            try:
                return await self._train(job)
            except StoreError as error:
                if not failures or job.closed > closed:
                    failures, since = 0, now()
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                if now() + pause > since + longest:
                    raise
                _log.error("job %s goes on in a moment: %s", job.row.id, error)
                self._floor.desk.abandon(job.row.id, _interrupted())
            failures += 1
            await asyncio.sleep(pause)

    async def _train(self, job: Open) -> None:
        row, plan, floor = job.row, job.plan, self._floor
        sums = await asyncio.to_thread(floor.sums, row.id)
        engine = NetworkEngine(
            job=row.id,
            roster=floor.roster,
            desk=floor.desk,
            shelf=floor.shelf,
            blobs=floor.blobs,
            store=floor.store,
            accumulator=sums,
            buffers=floor.buffers,
            federation=floor.members.federation,
            directory=floor.members.directory,
            revocations=floor.members.revocation_list,
            heads=floor.heads,
        )
        world = World(
            job=row.id,
            engine=engine,
            ledger=StoreLedger(floor.store, row.id, plan.charges, floor.clock, job.budget),
            journal=StoreJournal(
                job=row.id,
                store=floor.store,
                blobs=floor.blobs,
                clock=floor.clock,
                receipts=floor.desk.receipts,
                on_close=self._closed,
                on_standing=lambda standings: self.notices.know(row.id, standings),
                patience=plan.job.rounds.deadline,
            ),
            noise=await asyncio.to_thread(self._noise, job),
            key=ReplayKey.of_seed(plan.job.seed),
            population=job.population or (),
            sampling=floor.secret.derive("sampling", row.id) if plan.private else None,
        )
        last = await asyncio.to_thread(floor.store.last_record, row.id)
        if last is not None and last.purpose is Purpose.EVALUATE:
            return  # an earlier process came to the end of the job, and died before it said so
        standings = await asyncio.to_thread(remembered_standings, floor.store, row.id, plan)
        self.notices.know(row.id, standings)
        # Handed over, not kept: each name for the state would keep a model in memory.
        with engine.streaming(plan) as streaming:
            world = replace(world, engine=streaming)
            await train(plan, await asyncio.to_thread(self._state, job, standings), world)

    def _noise(self, job: Open) -> Noise:
        """Fresh noise, or the job's own key where rounds must know the noise of others."""
        if not isinstance(job.plan.parts.mechanism, Correlated):
            return NoiseSource()
        state = self._floor.store.state(job.row.id)
        begun = state is not None and state.round > 0
        return noise_of(self._floor.store.database, job.row.id, begun=begun)

    def _closed(self, key: RoundKey) -> None:
        job = self._open.get(key.job)
        if job is not None:  # else the coordinator is going down
            job.closed += 1
        self._floor.desk.answer(key)
        self._on_event()
        asyncio.get_running_loop().run_in_executor(None, self._floor.housekeeping.sweep)

    async def _set(self, job_id: str, status: Status, reason: str) -> None:
        _log.info("job %s is %s%s", job_id, status.value, f": {reason}" if reason else "")
        if status.final:
            # A sum before its noise is private. First, so that a restart would see to it again.
            await asyncio.to_thread(self._floor.sums(job_id).remove)
            await asyncio.to_thread(forget, self._floor.store.database, job_id)
        await asyncio.to_thread(
            self._floor.store.set_status, job_id, status, reason, self._floor.clock()
        )
        self._on_event()


def _judged(job: Open, site: str, verdict: pb.Verdict) -> tuple[bool, str]:
    """Whether a verdict makes the site a participant, and why not."""
    if not verdict.accepted:
        return False, verdict.reason[:2000]
    if verdict.plan_digest != job.plan.digest:
        return False, "the site compiled another plan from the same job"
    if job.population is not None and site not in job.population:
        return False, _TOO_LATE
    return True, ""


def _interrupted() -> Unavailable:
    """What sites are told while the store fails; where it lies is not for them."""
    return Unavailable(
        "the coordinator cannot make the round durable now", fix="deliver the update again later"
    )
