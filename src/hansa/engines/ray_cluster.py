"""A Ray cluster as the simulation holds it: connected to, and actors started, replaced, ended."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import re
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hansa
from hansa.core.vector import Vector
from hansa.engines.kept import KEPT_BYTES
from hansa.engines.ray_actor import Hello, ShareActor
from hansa.engines.workers_messages import Failed, Order, Report, Source
from hansa.errors import HansaError, MissingExtra, Unavailable, VersionMismatch

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reports its use to its makers otherwise
try:
    import ray
    from ray import exceptions as gone
except ImportError as error:
    raise MissingExtra("ray", "ray", "the engine ray") from error

START_SECONDS = 120.0
"""How long to wait for the first actor: another job may hold the cluster's processors."""

GRACE_SECONDS = 15.0
"""How much longer to wait for the others when the first one is there."""

MOST_FAILED_STARTS = 5
"""Actors that may end one after the other before one can work."""

_SECONDS_TO_ANSWER = 5.0
_SECONDS_TO_END = 2.0
_PLACE = re.compile(r"\[?([^\[\]/\s]+?)\]?:(\d{1,5})")
_LOST = (
    gone.RayActorError, gone.WorkerCrashedError, gone.NodeDiedError, gone.ObjectLostError,
    gone.OutOfMemoryError,
)  # fmt: skip


@dataclass(slots=True)
class Actor:
    """One actor.

    Attributes:
      number: of this actor, never given twice.
      handle: Ray's.
      greeting: its answer to hello; None once it was heard.
      hello: that answer.
      knows: the digest of the plan that it holds.
      busy: whether it has an order.
    """

    number: int
    handle: Any
    greeting: Future[Hello | Failed] | None = None
    hello: Hello | None = None
    knows: str = ""
    busy: bool = False


class Cluster:
    """A connection to a cluster, and the actors that work for one simulation.

    Args:
      source: how an actor gets the model and the clients' examples.
      address: of the cluster, HOST:PORT or auto.
      number: how many actors; None for as many as the cluster has room for.
      cores: processor cores that each takes.

    Raises:
      Unavailable: there is no cluster at this address.
      HansaError: the address is none, or this process is connected to another cluster.
    """

    def __init__(self, source: Source, address: str, number: int | None, cores: float) -> None:
        self._connected = connect(address)
        self._number, self._cores = number, cores
        self._source = ray.put(pickle.dumps(source))
        self._kind = ray.remote(ShareActor)
        self._made = 0
        self.actors: list[Actor] = []
        self._start_missing()  # they load the task while the simulation does

    def put(self, params: Vector) -> Any:
        """The (d,) parameters in Ray's object store.

        Raises:
          HansaError: there is no room for them.
        """
        try:
            return ray.put(params)
        except (gone.ObjectStoreFullError, gone.OutOfDiskError) as error:
            raise _no_room(params) from error

    def room(self) -> int:
        """How many actors there should be."""
        if self._number is not None:
            return self._number
        return max(1, int(ray.cluster_resources().get("CPU", 0.0) / self._cores))

    async def fill(self) -> list[Actor]:
        """Starts the actors that are missing and returns those that can work.

        Where some can work already, those that start meanwhile are not waited for: they may be
        waiting themselves, for a node that is gone.

        Raises:
          HansaError: no actor can be started, or none can load the task.
        """
        begun, failures, first = time.monotonic(), 0, None
        patience = 0.0 if any(actor.hello for actor in self.actors) else GRACE_SECONDS
        while True:
            self._start_missing()
            failures += self._hear()
            ready = [actor for actor in self.actors if actor.hello]
            waiting = [actor.greeting for actor in self.actors if actor.greeting is not None]
            now = time.monotonic()
            first = now if ready and first is None else first
            left = START_SECONDS + begun - now if first is None else patience + first - now
            enough = left <= 0 or failures >= MOST_FAILED_STARTS
            if ready and (enough or not waiting):
                return ready
            if enough:
                raise _no_actor(failures)
            if waiting:
                await _first(waiting, left)

    async def work(
        self, orders: Mapping[int, Order], digest: str, params: Any
    ) -> AsyncIterator[tuple[Actor, Report | str]]:
        """Orders, and each actor with its report, whoever is first; or how it was lost.

        Args:
          orders: what to do, by the actor's number, each with the plan.
          digest: of the plan.
          params: what `put` gave.

        Raises:
          HansaError: an actor says why it cannot go on.
        """
        waiting: dict[Future[Report | Failed], Actor] = {}
        for actor in self.actors:
            if actor.number in orders:
                order = orders[actor.number]
                if actor.knows == digest:
                    order = replace(order, plan=None)
                actor.knows, actor.busy = digest, True
                waiting[actor.handle.work.remote(order, params).future()] = actor
        while waiting:
            await _first(waiting)
            for future in [future for future in waiting if future.done()]:
                actor = waiting.pop(future)
                actor.busy = False
                yield actor, self._outcome(actor, future)

    def close(self) -> None:
        """Ends the actors, and the connection if it was made here."""
        if not ray.is_initialized():
            return
        idle = [actor for actor in self.actors if actor.hello and not actor.busy]
        ended = [actor.handle.__ray_terminate__.remote() for actor in idle]
        if ended:  # so that they can tidy up
            ray.wait(ended, num_returns=len(ended), timeout=_SECONDS_TO_END)
        for actor in self.actors:
            ray.kill(actor.handle)
        self.actors.clear()
        if self._connected:
            ray.shutdown()

    def _start_missing(self) -> None:
        room = self.room()
        kept = KEPT_BYTES // room
        options = {"num_cpus": self._cores, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        while len(self.actors) < room:
            handle = self._kind.options(**options).remote(self._source, kept)
            self._made += 1
            self.actors.append(Actor(self._made, handle, handle.hello.remote().future()))

    def _hear(self) -> int:
        """Takes the answers that are there; how many actors ended before they could answer."""
        failures = 0
        for actor in list(self.actors):
            if actor.greeting is None or not actor.greeting.done():
                continue
            try:
                said = actor.greeting.result()
            except _LOST:
                self._remove(actor)
                failures += 1
                continue
            except Exception as error:
                raise _cannot_start(error) from error
            if isinstance(said, Failed):
                raise HansaError(f"an actor cannot work: {said.message}", fix=said.fix)
            if said.version != hansa.__version__:
                raise VersionMismatch(
                    f"a node has Hansa {said.version}, this machine has {hansa.__version__}",
                    fix="install the same version of Hansa on all nodes of the cluster",
                )
            actor.hello, actor.greeting = said, None
        return failures

    def _outcome(self, actor: Actor, future: Future[Report | Failed]) -> Report | str:
        try:
            said = future.result()
        except _LOST as error:
            self._remove(actor)
            return self._how(actor, error)
        except gone.RayError as error:
            raise HansaError(
                f"Ray cannot bring an actor's sum: {type(error).__name__}",
                fix="look into Ray's logs on the nodes, and at the size of their object stores",
            ) from error
        if isinstance(said, Failed):
            raise HansaError(f"an actor cannot go on: {said.message}", fix=said.fix)
        return deepcopy(said)  # what lies in an object store cannot be added to

    def _how(self, actor: Actor, error: Exception) -> str:
        """How an actor ended, in words."""
        if isinstance(error, gone.OutOfMemoryError):
            return "was ended by Ray, because memory ran out on its node"
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if actor.hello is not None and actor.hello.node not in alive:
            return "is gone with its node"
        return "is gone, though its node is there"

    def _remove(self, actor: Actor) -> None:
        self.actors.remove(actor)
        with suppress(gone.RayError, ValueError):
            ray.kill(actor.handle)


def connect(address: str) -> bool:
    """Connects this process to a cluster; False if it was connected already.

    Raises:
      Unavailable: there is no cluster at this address.
      HansaError: the address is none, or this process is connected to another cluster.
    """
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in ("auto", here):
            raise HansaError(
                f"this process is connected to the Ray cluster {here} already, not to {address}",
                fix="leave the address out, or call ray.shutdown() before",
            )
        return False
    place = _noted() if address == "auto" else address
    if place != "auto":
        _look(place)
    try:
        ray.init(address=place, logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError as error:
        raise _nobody(address, "no Ray cluster was found") from error
    except Exception as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _nobody(address, f"the Ray cluster cannot be used: {said}") from error
    return True


def _noted() -> str:
    """The address that `ray start` left on this machine; auto if it left none.

    Left to itself, Ray would prefer any other cluster that it finds among the processes.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named:
        return named
    folders = (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp")  # noqa: S108
    folder = next(folder for folder in folders if folder)
    try:
        return (Path(folder) / "ray" / "ray_current_cluster").read_text().strip() or "auto"
    except OSError:
        return "auto"


def _look(address: str) -> None:
    """Knocks at the address first: Ray itself would knock for minutes."""
    found = _PLACE.fullmatch(address)
    if found is None:
        raise HansaError(
            f"'{address}' is not the address of a Ray cluster",
            fix="write HOST:PORT, as `ray start` said it, or auto; a ray:// address does not "
            "do: run the simulation on a machine of the cluster, or by ray job submit",
        )
    host, port = found[1], int(found[2])
    if host in ("localhost", "127.0.0.1", "::1"):
        host = ray.util.get_node_ip_address()  # as Ray does
    try:
        with socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER):
            pass
    except (OSError, OverflowError) as error:
        raise _nobody(f"{host}:{port}", "nobody answers") from error


def _nobody(address: str, what: str) -> Unavailable:
    where = "on this machine" if address == "auto" else f"at {address}"
    return Unavailable(
        f"{what} {where}",
        fix="run `ray start --head --include-dashboard=false` here, or name a cluster that this "
        'machine is a node of: --address HOST:PORT; on one machine the engine "workers" needs none',
    )


async def _first(futures: Iterable[Future[Any]], seconds: float | None = None) -> None:
    """Waits until one of them is done, or for so long; what they hold is not looked at."""
    loop, there = asyncio.get_running_loop(), asyncio.Event()

    def ring(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(there.set)

    for future in futures:
        future.add_done_callback(ring)
    with suppress(TimeoutError):
        await asyncio.wait_for(there.wait(), seconds)


def _no_room(params: Vector) -> HansaError:
    return HansaError(
        f"Ray's object store has no room for {params.nbytes / 1e6:,.0f} MB of parameters",
        fix="start this node with more: ray start --object-store-memory BYTES",
    )


def _no_actor(failures: int) -> HansaError:
    if failures:
        return HansaError(
            f"{failures} actors ended while they loaded the task",
            fix="look at what the task does by the engine inline, and at the nodes' memory",
        )
    return Unavailable(
        f"no actor could be started in {START_SECONDS:.0f} s",
        fix="see by `ray status` whether the cluster has free processors",
    )


def _cannot_start(error: Exception) -> HansaError:
    """An actor's process cannot import Hansa, or not this one; Ray's words hold a traceback."""
    lines = [line for line in str(error).splitlines() if "Error:" in line]
    said = lines[-1].strip() if lines else type(error).__name__
    return HansaError(
        f"a node cannot start an actor: {said}",
        fix="install Hansa, with what the task needs, on all nodes: pip install 'hansa[ray]'",
    )
