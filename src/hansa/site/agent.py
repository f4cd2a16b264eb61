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
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio

from hansa import __version__
from hansa.core.contribute import Contribution, contribute
from hansa.core.plan import FORMAT
from hansa.errors import HansaError, IdentityError, StoreError, Unavailable, VersionMismatch
from hansa.identity import renewal
from hansa.identity.credentials import Credentials
from hansa.identity.documents import read_document
from hansa.identity.heads import sign_head
from hansa.identity.keys import install_credentials, load_credentials, make_site_keys
from hansa.identity.names import Role
from hansa.identity.trust import check_window
from hansa.site import config as site_config
from hansa.site.connection import Line, backoff, diagnose, dialled
from hansa.site.desk import Accepted, Offer, accept
from hansa.site.heads import Heads
from hansa.site.inbox import fetch
from hansa.site.logbook import Logbook
from hansa.site.rounds import Rounds, explained, log_failure, reason_of
from hansa.site.spending import Spending
from hansa.wire.limits import CALL_SECONDS, MAX_BUNDLE, PROTOCOL
from hansa.wire.methods import ATTEND, RENEW, call
from hansa.wire.status import of_status
from hansa.wire.v1 import sites_pb2 as pb

KEYS = "keys"
LOG = "left-the-building.jsonl"
ADDRESS = "coordinator.address"

BUNDLE_SECONDS = 300.0
"""How long the code of an offered job is fetched before the job is refused."""


class Agent:
    """One site's agent.

    Args:
      folder: the site's folder: `site.toml`, keys, log.
      on_status: told in a few words what the agent is doing.
      contribution: what it does in a round; only who tests attacks does something else.
    """

    def __init__(
        self,
        folder: Path,
        on_status: Callable[[str], None],
        contribution: Contribution = contribute,
    ) -> None:
        self._config = site_config.load(folder)
        self._address = (folder / ADDRESS).read_text("utf-8").strip()
        self._credentials = load_credentials(folder / KEYS)
        self._log = Logbook(folder / LOG)
        self._on_status = on_status
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="task")
        self._jobs: dict[str, Accepted] = {}
        self._judging: dict[str, asyncio.Task[None]] = {}
        self._standings: dict[str, tuple[str, str]] = {}
        self._welcome = False
        self._line: asyncio.Future[Line] | None = None
        self._outgoing: asyncio.Queue[pb.FromSite] = asyncio.Queue()
        self._heads = Heads(folder, self._credentials.federation)
        self._spending = Spending(folder, self._config.budget)
        self._rounds = Rounds(
            self._config,
            self._credentials.federation,
            self._credentials.name,
            log=self._log,
            worker=self._worker,
            connected=self._connected,
            accepted=self._accepted,
            say=self._say,
            credentials=lambda: self._credentials,
            heads=self._heads,
            spending=self._spending,
            contribution=contribution,
        )

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
                self._welcome = False
                try:
                    await self._attend()
                except (IdentityError, VersionMismatch):
                    raise
                except HansaError as error:
                    failures = 1 if self._welcome else failures + 1
                    self._on_status(f"not connected: {error.message}")
                    await asyncio.sleep(backoff(failures))
        finally:
            self._rounds.stop()
            for task in self._judging.values():
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
        stream = call(channel, ATTEND)()
        talking = asyncio.create_task(self._talk(stream, self._outgoing))
        listening = asyncio.create_task(self._listen(stream, channel))
        renewing = asyncio.create_task(self._renew_in_time(channel, credentials))
        try:
            await asyncio.wait([listening, renewing], return_when=asyncio.FIRST_COMPLETED)
            for task in (listening, renewing):
                if task.done():
                    task.result()
        finally:
            stream.cancel()
            for task in (talking, listening, renewing):
                task.cancel()
            await asyncio.gather(talking, listening, renewing, return_exceptions=True)

    async def _listen(self, stream: Any, channel: grpc.aio.Channel) -> None:
        while (message := await stream.read()) is not grpc.aio.EOF:
            self._hear(message, channel)
        raise Unavailable("the coordinator hung up", fix="it is dialled again")

    async def _talk(self, stream: Any, outgoing: asyncio.Queue[pb.FromSite]) -> None:
        """Says hello, then whatever there is to say; how the stream ends is heard by listening."""
        hello = pb.Hello(
            protocol=PROTOCOL,
            plan_format=FORMAT,
            software=f"hansa {__version__}",
            ledger_seq=self._heads.seen.seq,
        )
        await stream.write(pb.FromSite(hello=hello))
        while not stream.done():
            await stream.write(await outgoing.get())

    def _hear(self, message: pb.ToSite, channel: grpc.aio.Channel) -> None:
        match message.WhichOneof("body"):
            case "welcome":
                self._welcomed(message.welcome, channel)
            case "offer":
                self._consider(message.offer)
            case "work":
                self._rounds.take(message.work)
            case "withdraw":
                self._withdraw(message.withdraw)
            case "secagg":
                self._rounds.hear(message.secagg)
            case "ledger":
                self._look_at(message.ledger)
            case "standing":
                self._stand(message.standing)

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
        self._welcome = True
        self._on_status(f"attending {self._address} as {welcome.site}")

    def _disconnected(self) -> None:
        self._rounds.disconnected()
        if self._line is not None and self._line.done():
            self._line = asyncio.get_running_loop().create_future()

    async def _connected(self) -> Line:
        """The current connection, or the next one."""
        if self._line is None:
            raise Unavailable("the agent does not run", fix="run it")
        return await asyncio.shield(self._line)

    async def _say(self, message: pb.FromSite) -> None:
        await self._outgoing.put(message)

    async def _in_worker(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    # -------------------------------------------------------------- budgets

    def _look_at(self, shown: pb.LedgerHead) -> None:
        """Signs a head of the budgets' chain that extends what this site has seen."""
        line = self._line.result() if self._line is not None and self._line.done() else None
        if line is None:
            return  # a head before the welcome is signed by nobody who is known yet
        try:
            head = self._heads.hear(shown, line.receipt_key)
        except HansaError as error:
            self._on_status(f"the privacy ledger is not believed: {error.message}")
            return
        if head is None or not head.seq:
            return
        seen = pb.HeadSeen(
            seq=head.seq,
            hash=head.hash,
            signature=sign_head(head, self._credentials.signing_key()),
            document=self._credentials.document,
        )
        self._outgoing.put_nowait(pb.FromSite(ledger=seen))

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
            if not explained(error):
                log_failure(f"job {offer.job} refused", error)
            self._jobs.pop(offer.job, None)
            verdict.accepted, verdict.reason = False, reason_of(error)
            with contextlib.suppress(StoreError):
                self._log_verdict(verdict)
        self._on_status(
            f"job {offer.job}: "
            + ("accepted" if verdict.accepted else f"refused: {verdict.reason}")
        )
        await self._say(pb.FromSite(verdict=verdict))

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
            lambda: accept(
                prepared, self.site, self._credentials.federation, self._config, self._spending
            )
        )

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

    def _withdraw(self, withdraw: pb.Withdraw) -> None:
        if withdraw.HasField("round"):
            self._rounds.withdraw(withdraw.round)
            return
        self._jobs.pop(withdraw.job, None)
        judging = self._judging.pop(withdraw.job, None)
        if judging is not None:
            judging.cancel()
        self._rounds.withdraw_job(withdraw.job)

    def _stand(self, notice: pb.Standing) -> None:
        """Where this site stands in a job, as the coordinator decided; said and kept once."""
        if self._standings.get(notice.job, ("trusted", "")) == (notice.state, notice.reason):
            return
        self._standings[notice.job] = notice.state, notice.reason
        with contextlib.suppress(StoreError):
            self._log.write(
                "standing",
                time.time(),
                job=notice.job,
                state=notice.state,
                weight=notice.weight,
                reason=notice.reason,
            )
        self._on_status(
            f"job {notice.job}: this site is {notice.state} and counts {notice.weight:g}: "
            f"{notice.reason}"
        )

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
