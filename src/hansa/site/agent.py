"""The agent: one process per site that attends, works when it is pushed work, and reconnects.

    dial out ──► hello ──► welcome ──► offers, work, withdrawals are pushed
       ▲                                  │
       └── jittered back-off ◄── lost ◄───┘     work: fetch ─► train ─► log ─► deliver ─► receipt

No inbound port, nothing polls, no process is started per round: the task and its data stay loaded
in a worker thread. Refusals of identity or version end the agent: trying again would not help.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio

from hansa import __version__
from hansa.core.contribute import Purpose
from hansa.core.plan import FORMAT, Plan
from hansa.core.vector import Vector
from hansa.errors import HansaError, IdentityError, StoreError, Unavailable, VersionMismatch
from hansa.identity import renewal
from hansa.identity.credentials import Credentials
from hansa.identity.documents import read_document
from hansa.identity.keys import install_credentials, load_credentials, make_site_keys
from hansa.identity.names import Role
from hansa.identity.trust import check_window
from hansa.site import config as site_config
from hansa.site.connection import Line, backoff, diagnose, dialled
from hansa.site.desk import Accepted, Offer, accept, check_hours, work
from hansa.site.inbox import fetch
from hansa.site.logbook import Logbook
from hansa.site.outbox import Package, deliver
from hansa.wire.limits import CALL_SECONDS, MAX_BUNDLE, PROTOCOL
from hansa.wire.methods import ATTEND, RENEW, call
from hansa.wire.status import of_status
from hansa.wire.v1 import sites_pb2 as pb

KEYS = "keys"
LOG = "left-the-building.jsonl"
ADDRESS = "coordinator.address"

BUNDLE_SECONDS = 300.0
"""How long the code of an offered job is fetched before the job is refused."""

_log = logging.getLogger(__name__)
RoundKey = tuple[str, str, int, int]


@dataclass(slots=True)
class Model:
    """The parameters that were fetched last."""

    sha256: str
    params: Vector


class Agent:
    """One site's agent.

    Args:
      folder: the site's folder: `site.toml`, keys, log.
      on_status: told in a few words what the agent is doing.
    """

    def __init__(self, folder: Path, on_status: Callable[[str], None]) -> None:
        self._config = site_config.load(folder)
        self._address = (folder / ADDRESS).read_text("utf-8").strip()
        self._credentials = load_credentials(folder / KEYS)
        self._log = Logbook(folder / LOG)
        self._on_status = on_status
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="task")
        self._jobs: dict[str, Accepted] = {}
        self._rounds: dict[RoundKey, asyncio.Task[None]] = {}
        self._judging: dict[str, asyncio.Task[None]] = {}
        self._model: Model | None = None
        self._line: asyncio.Future[Line] | None = None
        self._outgoing: asyncio.Queue[pb.FromSite] = asyncio.Queue()

    @property
    def site(self) -> str:
        """The site's name in the federation."""
        return self._credentials.name

    async def run(self) -> None:
        """Attends until it is cancelled.

        Raises:
          IdentityError: the certificate expired, was revoked, or is of another federation.
          VersionMismatch: this agent and the coordinator speak different versions.
        """
        self._line = asyncio.get_running_loop().create_future()
        failures = 0
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._attend()
                except (IdentityError, VersionMismatch):
                    raise
                except HansaError as error:
                    if time.monotonic() - began > 10:
                        failures = 0
                    failures += 1
                    self._on_status(f"not connected: {error.message}")
                    await asyncio.sleep(backoff(failures))
        finally:
            for task in (*self._rounds.values(), *self._judging.values()):
                task.cancel()
            self._worker.shutdown(wait=False, cancel_futures=True)

    # -------------------------------------------------------------- one connection

    async def _attend(self) -> None:
        """One connection, from the dial to its loss."""
        credentials = self._credentials
        check_window(
            "this site's certificate",
            credentials.not_before,
            credentials.not_after,
            datetime.now(UTC),
        )
        async with dialled(self._address, credentials) as channel:
            try:
                await self._converse(channel, credentials)
            except grpc.aio.AioRpcError as error:
                told = of_status(error, self._address)
                if isinstance(told, Unavailable) and error.code() is grpc.StatusCode.UNAVAILABLE:
                    told = await diagnose(self._address, credentials)
                raise told from error
            finally:
                self._disconnected()

    async def _converse(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        """Listens until the connection is lost, or until a new certificate wants a new one."""
        self._outgoing = asyncio.Queue()  # what a lost connection did not say is said anew
        stream = call(channel, ATTEND)(self._sayings(self._outgoing))
        listening = asyncio.create_task(self._listen(stream, channel))
        renewing = asyncio.create_task(self._renew_in_time(channel, credentials))
        try:
            await asyncio.wait([listening, renewing], return_when=asyncio.FIRST_COMPLETED)
            for task in (listening, renewing):
                if task.done():
                    task.result()
        finally:
            stream.cancel()
            listening.cancel()
            renewing.cancel()
            await asyncio.wait([listening, renewing])

    async def _listen(self, stream: Any, channel: grpc.aio.Channel) -> None:
        async for message in stream:
            self._hear(message, channel)
        raise Unavailable("the coordinator hung up", fix="it is dialled again")

    async def _sayings(self, outgoing: asyncio.Queue[pb.FromSite]) -> AsyncIterator[pb.FromSite]:
        yield pb.FromSite(
            hello=pb.Hello(protocol=PROTOCOL, plan_format=FORMAT, software=f"hansa {__version__}")
        )
        while True:
            yield await outgoing.get()

    def _hear(self, message: pb.ToSite, channel: grpc.aio.Channel) -> None:
        match message.WhichOneof("body"):
            case "welcome":
                self._welcomed(message.welcome, channel)
            case "offer":
                self._consider(message.offer)
            case "work":
                self._take(message.work)
            case "withdraw":
                self._withdraw(message.withdraw)

    def _welcomed(self, welcome: pb.Welcome, channel: grpc.aio.Channel) -> None:
        credentials = self._credentials
        document = read_document(
            welcome.coordinator_document,
            credentials.root_pem,
            credentials.federation,
            datetime.now(UTC),
            Role.COORDINATOR,
        )
        line = Line(channel, self._address, document.public_key)
        if self._line is None or self._line.done():
            self._line = asyncio.get_running_loop().create_future()
        self._line.set_result(line)
        self._on_status(f"attending {self._address} as {welcome.site}")

    def _disconnected(self) -> None:
        if self._line is not None and self._line.done():
            self._line = asyncio.get_running_loop().create_future()

    async def _connected(self) -> Line:
        """The current connection, or the next one."""
        if self._line is None:
            raise Unavailable("the agent does not run", fix="run it")
        return await asyncio.shield(self._line)

    async def _in_worker(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    # -------------------------------------------------------------- offers

    def _consider(self, offer: pb.Offer) -> None:
        """Judges an offer; a newer one of the same job replaces it."""
        older = self._judging.pop(offer.job, None)
        if older is not None:
            older.cancel()
        self._judging[offer.job] = asyncio.create_task(self._judge(offer))

    async def _judge(self, offer: pb.Offer) -> None:
        verdict = pb.Verdict(job=offer.job, plan_digest=offer.plan_digest, accepted=True)
        known = self._jobs.get(offer.job)
        try:
            if known is None or known.plan.digest != offer.plan_digest:
                await self._prepare(offer)
            self._log_verdict(verdict)
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, it does not run
            _log.exception("job %s refused", offer.job)
            self._jobs.pop(offer.job, None)
            verdict.accepted, verdict.reason = False, _why(error)
            with contextlib.suppress(StoreError):
                self._log_verdict(verdict)
        self._on_status(
            f"job {offer.job}: "
            + ("accepted" if verdict.accepted else f"refused: {verdict.reason}")
        )
        await self._outgoing.put(pb.FromSite(verdict=verdict))

    def _log_verdict(self, verdict: pb.Verdict) -> None:
        self._log.write(
            "verdict",
            time.time(),
            job=verdict.job,
            plan=verdict.plan_digest,
            accepted=verdict.accepted,
            reason=verdict.reason,
        )

    async def _prepare(self, offer: pb.Offer) -> None:
        if offer.bundle_size > MAX_BUNDLE:
            raise HansaError(
                f"a bundle of {offer.bundle_size:,} bytes is larger than {MAX_BUNDLE:,}",
                fix="keep data and models out of the job's folder",
            )
        content = await fetch(
            offer.bundle_sha256, offer.bundle_size, self._connected, BUNDLE_SECONDS
        )
        bundle = content.tobytes()
        prepared = Offer(
            job=offer.job,
            words=offer.words,
            facts=offer.facts,
            plan_digest=offer.plan_digest,
            bundle=bundle,
            signature=offer.bundle_signature,
        )
        self._jobs[offer.job] = await self._in_worker(
            lambda: accept(prepared, self.site, self._credentials.federation, self._config)
        )

    # -------------------------------------------------------------- rounds

    def _take(self, order: pb.Work) -> None:
        """Starts the work of a round, unless it is under way; older rounds of the job are over."""
        key = _key(order.round)
        for other in [k for k in self._rounds if k[0] == key[0] and k != key]:
            self._rounds.pop(other).cancel()
        if key in self._rounds:
            return
        task = asyncio.create_task(self._work(key, order))
        self._rounds[key] = task
        task.add_done_callback(lambda done: self._finished(key, done))

    def _finished(self, key: RoundKey, task: asyncio.Task[None]) -> None:
        if self._rounds.get(key) is task:
            del self._rounds[key]
        if not task.cancelled() and task.exception() is not None:
            _log.error("round %s failed", key, exc_info=task.exception())

    def _withdraw(self, withdraw: pb.Withdraw) -> None:
        if withdraw.HasField("round"):
            task = self._rounds.pop(_key(withdraw.round), None)
            if task is not None:
                task.cancel()
            return
        self._jobs.pop(withdraw.job, None)
        judging = self._judging.pop(withdraw.job, None)
        if judging is not None:
            judging.cancel()
        for key in [k for k in self._rounds if k[0] == withdraw.job]:
            self._rounds.pop(key).cancel()

    async def _work(self, key: RoundKey, order: pb.Work) -> None:
        try:
            package = await self._prepared_update(key, order)
        except Exception as error:  # noqa: BLE001  whatever is wrong, the others need not wait
            _log.exception("round %s declined", key)
            declined = pb.Declined(round=order.round, reason=_why(error))
            await self._outgoing.put(pb.FromSite(declined=declined))
            return
        why_not = await deliver(package, self._connected)
        self._log.write(
            "dropped" if why_not else "received",
            time.time(),
            job=key[0],
            purpose=key[1],
            round=key[2],
            attempt=key[3],
            reason=why_not,
        )

    async def _prepared_update(self, key: RoundKey, order: pb.Work) -> Package:
        accepted = await self._accepted(order)
        check_hours(self._config, datetime.now())
        params = await self._params(accepted.plan, order)
        purpose = Purpose(key[1])
        try:
            async with asyncio.timeout(self._config.limits.round_seconds):
                vector = await self._in_worker(
                    lambda: work(
                        accepted, self.site, purpose, key[2], key[3], params, order.model_sha256
                    )
                )
        except TimeoutError:
            raise HansaError(
                f"the work took longer than {self._config.limits.round_seconds:g} s",
                fix="raise limits.round_seconds in site.toml or do less in a round",
            ) from None
        return await asyncio.to_thread(self._packed, accepted, order, vector)

    async def _accepted(self, order: pb.Work) -> Accepted:
        """The job that work is for; after a restart its offer may still be judged."""
        job = order.round.job
        while (judging := self._judging.get(job)) is not None and not judging.done():
            await asyncio.wait([judging])
        accepted = self._jobs.get(job)
        if accepted is None or accepted.plan.digest != order.plan_digest:
            raise HansaError(
                "this site has not accepted the plan that the work is for",
                fix="offer the job again",
            )
        return accepted

    async def _params(self, plan: Plan, order: pb.Work) -> Vector:
        if order.model_size != 4 * plan.task.schema.size:
            raise HansaError(
                f"parameters of {order.model_size:,} bytes are not those of the plan",
                fix="let the coordinator's administrator look at the job",
            )
        if self._model is None or self._model.sha256 != order.model_sha256:
            content = await fetch(
                order.model_sha256, order.model_size, self._connected, order.seconds
            )
            params = content.view("<f4")
            params.flags.writeable = False
            self._model = Model(order.model_sha256, params)
        return self._model.params

    def _packed(self, accepted: Accepted, order: pb.Work, vector: Vector) -> Package:
        """Encodes an update and writes down that it leaves, before it does."""
        plan, name = accepted.plan, order.round
        package = Package.of(self._credentials.federation, self.site, plan, order, vector)
        self._log.write(
            "left",
            time.time(),
            job=name.job,
            purpose=name.purpose,
            round=name.round,
            attempt=name.attempt,
            plan=plan.digest,
            model=order.model_sha256,
            bytes=package.header.size,
            sha256=package.header.sha256,
            segments={segment.name: segment.size for segment in package.layout.segments},
            guarantees=list(plan.claims),
        )
        return package

    # -------------------------------------------------------------- renewal

    async def _renew_in_time(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        """Sleeps to two thirds of the certificate's life, then gets a new one for a new key."""
        due = renewal.renew_at(credentials.not_before, credentials.not_after, credentials.serial)
        await asyncio.sleep(max((due - datetime.now(UTC)).total_seconds(), 0.0))
        folder = self._config.folder / KEYS
        request = make_site_keys(folder, credentials.name, credentials.federation)
        reply = await call(channel, RENEW)(
            pb.RenewRequest(csr_pem=request.csr_pem), timeout=CALL_SECONDS
        )
        self._credentials = install_credentials(
            folder, reply.chain_pem, credentials.root_pem, reply.node_document
        )
        self._on_status("certificate renewed")


def _why(error: Exception) -> str:
    """Why not, for the coordinator; what an unknown error says may quote data and stays here."""
    return str(error) if isinstance(error, HansaError) else f"a defect: {type(error).__name__}"


def _key(round_id: pb.RoundId) -> RoundKey:
    return round_id.job, round_id.purpose, round_id.round, round_id.attempt
