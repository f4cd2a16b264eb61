"""A running coordinator: three doors, one event loop, one folder.

sites' door  (mTLS, gRPC)  ─┐
enrolment    (TLS, gRPC)   ─┼── members, roster, desk, shelf, runner ── store, blobs, sums
people's door (HTTPS)      ─┘
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvicorn

from hansa.coordinator import config
from hansa.coordinator.accumulator import DurableAccumulator
from hansa.coordinator.blobs import Blobs
from hansa.coordinator.buffers import Buffers
from hansa.coordinator.bulletin import Bulletin
from hansa.coordinator.desk import Desk
from hansa.coordinator.door import Context, Door, answering
from hansa.coordinator.heads import Heads
from hansa.coordinator.housekeeping import Housekeeping
from hansa.coordinator.keyring import Keyring
from hansa.coordinator.members import Members
from hansa.coordinator.people import PeopleDoor
from hansa.coordinator.roster import Roster
from hansa.coordinator.runner import Floor, Runner
from hansa.coordinator.shelf import Shelf
from hansa.coordinator.store import Store
from hansa.core.keys import ReplayKey
from hansa.errors import Unavailable
from hansa.identity.authority import Authority
from hansa.memory import give_memory_back
from hansa.wire.limits import SERVER_OPTIONS
from hansa.wire.methods import ENROL, parse, serve
from hansa.wire.v1 import sites_pb2 as pb

RECEIVE_BUFFERS = 1
"""Updates on their way in at once: one keeps memory at a few models and the network busy."""

STOP_SECONDS = 2
"""Time in which calls of people may come to their end when the coordinator stops."""

LEASE_SECONDS = 30.0
"""How long a coordinator that stopped without a word keeps others from its store, at most."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The parts of a running coordinator.

    Attributes:
      settings: what `coordinator.toml` says.
      store: durable state.
      runner: open jobs.
      members: enrolled sites.
      roster: attending sites.
      door: the sites' door.
      people: the people's door.
      keyring: certificate and receipt key.
    """

    settings: config.Settings
    store: Store
    runner: Runner
    members: Members
    roster: Roster
    door: Door
    people: PeopleDoor
    keyring: Keyring


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Coordinator]:
    """Opens the store and all doors, takes up open jobs, and closes everything at the end.

    Raises:
      HansaError: the folder, the store or a port cannot be used.
    """
    settings, authority = config.load(folder), Authority.open(folder / "ca", config.utc_now())
    store = Store.open(config.store_url(folder, settings))
    try:
        store.acquire_lease(f"coordinator of {settings.federation}", LEASE_SECONDS)
        coordinator = _assemble(folder, settings, authority, store)
        async with _open_doors(coordinator):
            await coordinator.runner.resume()
            try:
                yield coordinator
            finally:
                await coordinator.runner.close()
                await coordinator.door.heads.close()
    finally:
        store.close()


async def serve_until_signalled(folder: Path, on_ready: Callable[[Coordinator], None]) -> None:
    """Runs a coordinator until SIGTERM or SIGINT, then stops in order."""
    give_memory_back()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(folder) as coordinator:
        on_ready(coordinator)
        await stop.wait()


def _assemble(
    folder: Path, settings: config.Settings, authority: Authority, store: Store
) -> Coordinator:
    token_hash = hashlib.sha256(config.operator_token(folder).encode("utf-8")).hexdigest()
    if store.operator(token_hash) is None:
        store.add_operator("operator", "admin", token_hash)
    keyring = Keyring(folder, settings, authority, config.utc_now)
    blobs, bulletin, roster = Blobs(folder / "blobs"), Bulletin(), Roster()
    members = Members(authority, keyring, store, time.time)
    desk, shelf = Desk(store), Shelf()
    housekeeping = Housekeeping(store, blobs, time.time)
    heads = Heads(
        store.budgets, settings.federation, roster, members.directory, keyring.current, time.time
    )
    floor = Floor(
        store=store,
        blobs=blobs,
        roster=roster,
        desk=desk,
        shelf=shelf,
        buffers=Buffers(RECEIVE_BUFFERS),
        sums=lambda job: DurableAccumulator(folder / "sums", job),
        housekeeping=housekeeping,
        secret=ReplayKey((folder / "secret.key").read_bytes()),
        members=members,
        heads=heads,
        clock=time.time,
    )
    runner = Runner(floor, bulletin.post)
    door = Door(members, roster, desk, shelf, runner, heads)
    people = PeopleDoor(
        store=store,
        blobs=blobs,
        housekeeping=housekeeping,
        members=members,
        roster=roster,
        runner=runner,
        bulletin=bulletin,
        clock=time.time,
    )
    return Coordinator(settings, store, runner, members, roster, door, people, keyring)


@asynccontextmanager
async def _open_doors(coordinator: Coordinator) -> AsyncIterator[None]:
    settings, keyring = coordinator.settings, coordinator.keyring
    sites = _grpc_server(
        coordinator.door.handler(),
        f"{settings.listen}:{settings.sites_port}",
        keyring.server_credentials(mutual=True),
    )
    enrolment = _grpc_server(
        _enrolment(coordinator.members),
        f"{settings.listen}:{settings.enrol_port}",
        keyring.server_credentials(mutual=False),
    )
    people, listener = _people_server(coordinator)
    await sites.start()
    await enrolment.start()
    running = asyncio.create_task(people.serve([listener]))
    try:
        yield
    finally:
        coordinator.people.bulletin.close()  # streams of news have no end of their own
        people.should_exit = True
        await asyncio.gather(sites.stop(0.5), enrolment.stop(0.5), running)


def _grpc_server(
    handler: grpc.GenericRpcHandler, address: str, credentials: grpc.ServerCredentials
) -> grpc.aio.Server:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((handler,))
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _taken(address) from error
    return server


def _enrolment(members: Members) -> grpc.GenericRpcHandler:
    async def enrol(request: bytes, context: Context) -> pb.EnrolReply:
        del context  # nobody has a certificate yet; the token is what counts
        return await members.enrol(parse(pb.EnrolRequest, request))

    return serve(ENROL.service, {ENROL: answering(enrol)})


class _People(uvicorn.Server):
    """A web server that leaves signals to the coordinator."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


def _people_server(coordinator: Coordinator) -> tuple[uvicorn.Server, socket.socket]:
    settings = coordinator.settings
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.listen, settings.people_port))
    except OSError as error:
        listener.close()
        raise _taken(f"{settings.listen}:{settings.people_port}") from error
    web = uvicorn.Config(
        coordinator.people.app(),
        log_config=None,
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    web.load()
    web.ssl = coordinator.keyring.https_context()
    return _People(web), listener


def _taken(address: str) -> Unavailable:
    return Unavailable(
        f"cannot listen on {address}",
        fix="end what uses the port (an earlier coordinator?) or change coordinator.toml",
    )
