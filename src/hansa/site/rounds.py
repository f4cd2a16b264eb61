"""The rounds that a site works in, each from its order to its receipt.

    order ──► accepted? ──► fetch ──► train ──► log ──► deliver ──► receipt
    └─ gone with its connection ─┘    └─ goes on, whatever happens to connections ─┘

An order whose work has not begun is brought again by the next connection. Training is not begun
twice, and an update that is on its way is delivered until it counts or is not wanted any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import numpy as np

from hansa.core.contribute import Contribution, Purpose, contribute
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.engines.masking import session_of
from hansa.errors import HansaError
from hansa.identity.credentials import Credentials
from hansa.identity.directory import Directory
from hansa.secagg.client import Member, client_flow
from hansa.secagg.faults import Fault, Misuse
from hansa.site.config import SiteConfig
from hansa.site.connection import Line
from hansa.site.desk import Accepted, Asked, check_hours, work
from hansa.site.heads import Heads
from hansa.site.inbox import fetch
from hansa.site.logbook import Logbook
from hansa.site.masking import Talk, no_part, take_part
from hansa.site.outbox import Package, deliver
from hansa.site.sessions import Sessions
from hansa.site.spending import Spending
from hansa.site.turns import Turns
from hansa.stages.mask import Mask, mask_of
from hansa.wire.v1 import sites_pb2 as pb

_log = logging.getLogger(__name__)
RoundKey = tuple[str, str, int, int]


class Rounds:
    """The rounds under way, each a task; at most one of a job is not on its way out yet.

    Args:
      config: the site's own rules and limits.
      federation: its name.
      site: the site's name in it.
      log: where it is written down what leaves.
      worker: where training runs.
      connected: waits for a connection.
      accepted: the job that an order is for, or an error.
      say: puts a message into the stream to the coordinator.
      credentials: the site's keys and certificates, as they are now.
      heads: what the site has seen of the budgets' chain.
      spending: what its own examples have cost.
      contribution: what the site does in a round; only who tests attacks does something else.
    """

    def __init__(
        self,
        config: SiteConfig,
        federation: str,
        site: str,
        *,
        log: Logbook,
        worker: ThreadPoolExecutor,
        connected: Callable[[], Awaitable[Line]],
        accepted: Callable[[pb.Work], Awaitable[Accepted]],
        say: Callable[[pb.FromSite], Awaitable[None]],
        credentials: Callable[[], Credentials],
        heads: Heads,
        spending: Spending,
        contribution: Contribution = contribute,
    ) -> None:
        self._config = config
        self._federation = federation
        self._site = site
        self._log = log
        self._worker = worker
        self._connected = connected
        self._accepted = accepted
        self._say = say
        self._tasks: dict[RoundKey, asyncio.Task[None]] = {}
        self._preparing: set[asyncio.Task[Any]] = set()
        self._leaving: set[RoundKey] = set()
        self._talks: dict[RoundKey, Talk] = {}
        self._nonces: dict[RoundKey, bytes] = {}
        self._saying: set[asyncio.Future[None]] = set()
        self._credentials = credentials
        self._heads = heads
        self._spending = spending
        self._contribution = contribution
        self._directory = Directory(credentials().root_pem, federation)
        self._sessions = Sessions(config.folder)
        self._turns = Turns(config.folder)
        self._sha256 = ""
        self._params: Vector = np.zeros(0, "<f4")

    def take(self, order: pb.Work) -> None:
        """Starts the work of a round, unless it is under way; older rounds of the job are over."""
        key = _key(order.round)
        self._nonces[key] = order.nonce
        for other in [k for k in self._tasks if k[0] == key[0] and k != key]:
            self._end(other)
        talk = self._talks.get(key)
        if talk is not None and talk.nonce != order.nonce:
            self._leaving.discard(key)  # a coordinator that was started again knows nothing of it
            self._end(key)
        if key in self._tasks:
            if talk is not None:
                talk.remind()
            return
        task = asyncio.create_task(self._work(key, order))
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._finished(key, done))

    def hear(self, ask: pb.SecAggAsk) -> None:
        """What the coordinator says in a masked round."""
        talk = self._talks.get(_key(ask.round))
        if talk is not None:
            talk.hear(ask)
        elif _key(ask.round) not in self._tasks:
            self._forgotten(ask.round)

    def _forgotten(self, round_id: pb.RoundId) -> None:
        saying = asyncio.ensure_future(self._say(no_part(round_id)))
        self._saying.add(saying)
        saying.add_done_callback(self._saying.discard)

    def withdraw(self, round_id: pb.RoundId) -> None:
        """The coordinator does not wait for this round any more."""
        self._end(_key(round_id))

    def withdraw_job(self, job: str) -> None:
        """The job is over."""
        for key in [key for key in self._tasks if key[0] == job]:
            self._end(key)

    def disconnected(self) -> None:
        """Forgets orders that are not begun: the next connection brings them again."""
        for task in self._preparing:
            task.cancel()

    def stop(self) -> None:
        """Ends everything."""
        for task in self._tasks.values():
            task.cancel()

    def _end(self, key: RoundKey) -> None:
        """Ends the work of a round. An update that is leaving gets its answer: it counts or not."""
        if key in self._tasks and key not in self._leaving:
            self._tasks.pop(key).cancel()

    def _finished(self, key: RoundKey, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if key not in self._tasks:
            self._nonces.pop(key, None)
            self._leaving.discard(key)
        if not task.cancelled() and task.exception() is not None:
            _log.error("round %s failed", key, exc_info=task.exception())

    # -------------------------------------------------------------- one round

    async def _work(self, key: RoundKey, order: pb.Work) -> None:
        try:
            accepted, vector = await self._trained(key, order)
            mask = mask_of(accepted.plan)
            if mask is None:
                self._leaving.add(key)  # what is written down as left is sent, whatever comes now
                package = await asyncio.to_thread(self._packed, accepted, order, vector)
                del vector
                why_not = await self._deliver(key, package)
            else:
                why_not = await self._hidden(key, order, accepted, mask, vector)
        except Exception as error:  # noqa: BLE001  whatever is wrong, the others need not wait
            log_failure(f"round {key[2]} of {key[0]} declined", error)
            declined = pb.Declined(round=order.round, reason=reason_of(error))
            await self._say(pb.FromSite(declined=declined))
            return
        self._log.write(
            "dropped" if why_not else "received",
            time.time(),
            job=key[0],
            purpose=key[1],
            round=key[2],
            attempt=key[3],
            reason=why_not,
        )

    async def _deliver(self, key: RoundKey, package: Package) -> str:
        """Why the update does not count, or an empty text.

        From here on a withdrawal does not end the work: it is over when the answer is written down.
        """
        self._leaving.add(key)
        return await deliver(package, self._connected)

    async def _hidden(
        self, key: RoundKey, order: pb.Work, accepted: Accepted, mask: Mask, vector: Vector
    ) -> str:
        """Takes part in a masked sum."""
        credentials, nonce = self._credentials(), self._nonces[key]
        member = Member(
            self._site,
            credentials.signing_key().sign,
            credentials.document,
            self._directory,
            self._config.secure_aggregation.floor,
            self._sessions,
        )
        session = session_of(
            accepted.plan,
            mask,
            Purpose(key[1]),
            key[2:],
            order.model_sha256,
            federation=self._federation,
            job=key[0],
            nonce=nonce,
            clip=clip_of(order),
        )

        async def leave(words: Vector) -> str:
            package = await asyncio.to_thread(self._packed, accepted, order, words)
            return await self._deliver(key, package)

        talk = self._talks[key] = Talk(nonce)
        flow = client_flow(session, member, vector)
        del vector
        try:
            return await take_part(flow, talk, order.round, self._directory, self._say, leave)
        finally:
            if self._talks.get(key) is talk:
                del self._talks[key]

    async def _trained(self, key: RoundKey, order: pb.Work) -> tuple[Accepted, Vector]:
        """The job, and what this site contributes."""
        with self._bound_to_its_connection():
            accepted = await self._accepted(order)
            check_hours(self._config, datetime.now())
            self._turns.check(accepted.plan, *key[:3])
            await asyncio.to_thread(self._spending.check, accepted.plan, len(accepted.split.train))
            if accepted.plan.private:
                self._heads.check(order.ledger_seq)
            if mask_of(accepted.plan) is not None:
                self._check_new(key)
            params = await self._parameters(accepted.plan, order)
        asked = Asked(Purpose(key[1]), key[2], key[3], params, order.model_sha256, clip_of(order))

        def train() -> Vector:
            return work(accepted, self._site, asked, self._contribution)

        try:
            async with asyncio.timeout(self._config.limits.round_seconds):
                vector = await asyncio.get_running_loop().run_in_executor(self._worker, train)
        except TimeoutError:
            raise HansaError(
                f"the work took longer than {self._config.limits.round_seconds:g} s",
                fix="raise limits.round_seconds in site.toml or do less in a round",
            ) from None
        return accepted, vector

    def _check_new(self, key: RoundKey) -> None:
        """Before it trains in vain: an attempt that was begun is never begun again."""
        if self._sessions.begun(key[0], key[1], key[2:]):
            raise Misuse(Fault.REPEATED, f"attempt {key[3]} of round {key[2]} was begun")

    @contextlib.contextmanager
    def _bound_to_its_connection(self) -> Iterator[None]:
        """Ends the current task if the connection is lost meanwhile.

        A coordinator that was started again offers parameters a moment after it listens. Whoever
        asked in that moment would be refused, and would decline a round that waits for it.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("work is done in a task of its own")
        self._preparing.add(task)
        try:
            yield
        finally:
            self._preparing.discard(task)

    async def _parameters(self, plan: Plan, order: pb.Work) -> Vector:
        """The parameters to start from; those that were fetched last are kept."""
        if order.model_size != 4 * plan.task.schema.size:
            raise HansaError(
                f"parameters of {order.model_size:,} bytes are not those of the plan",
                fix="let the coordinator's administrator look at the job",
            )
        if self._sha256 != order.model_sha256:
            content = await fetch(
                order.model_sha256, order.model_size, self._connected, order.seconds
            )
            content.flags.writeable = False
            self._params, self._sha256 = content.view("<f4"), order.model_sha256
        return self._params

    def _packed(self, accepted: Accepted, order: pb.Work, vector: Vector) -> Package:
        """Encodes an update and writes down that it leaves and what it costs, before it does."""
        name, plan, examples = order.round, accepted.plan, len(accepted.split.train)
        self._turns.take(plan, name.job, name.purpose, name.round)
        self._spending.take(plan, examples, name.job, name.purpose, name.round)
        package = Package.of(self._federation, self._site, plan, order, vector)
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
            masked=mask_of(plan) is not None,
            guarantees=list(plan.claims),
        )
        return package


def clip_of(order: pb.Work) -> float | None:
    """The norm bound that an order names, where it adapts."""
    return order.clip if order.HasField("clip") else None


def reason_of(error: Exception) -> str:
    """Why not, for the coordinator; what an unknown error says may quote data and stays here."""
    return str(error) if isinstance(error, HansaError) else f"a defect: {type(error).__name__}"


def explained(error: Exception) -> bool:
    """Whether an error says all there is to know: a refusal does, a task that raised does not."""
    return isinstance(error, HansaError) and error.__cause__ is None


def log_failure(what: str, error: Exception) -> None:
    """Writes an error into the agent's own log, with a traceback unless it explains itself."""
    _log.error("%s: %s", what, error, exc_info=None if explained(error) else error)


def _key(round_id: pb.RoundId) -> RoundKey:
    return round_id.job, round_id.purpose, round_id.round, round_id.attempt
