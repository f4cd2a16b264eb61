"""The processes of the workers engine, as the simulation holds them: started, replaced, ended."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
import weakref
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from hansa.engines.kept import KEPT_BYTES
from hansa.engines.workers_messages import (
    MOST_WORKERS,
    Failed,
    Memory,
    Order,
    Report,
    Source,
    Wire,
    put_places,
    take_place,
)
from hansa.errors import HansaError
from hansa.work.threads import environment

_SECONDS_TO_END = 5.0


@dataclass(slots=True)
class Worker:
    """One worker process.

    Attributes:
      slot: its place in the shared memory.
      pid: its process.
      wire: the socket to it.
      knows: the digest of the plan that it holds.
    """

    slot: int
    pid: int
    wire: Wire
    knows: str = ""


class Pool:
    """A nursery and its workers; see `hansa.engines.workers_process`.

    Nothing of it has a name in the system: when this process ends, however it does, the kernel
    closes a pipe, and every worker ends with it.
    """

    def __init__(self, source: Source, number: int) -> None:
        if not 1 <= number <= MOST_WORKERS:
            raise HansaError(
                f"there cannot be {number} workers", fix=f"use from 1 to {MOST_WORKERS}"
            )
        self.number = number
        self.workers: list[Worker] = []
        self._source = source
        self._late = False
        self._held = ExitStack()
        self._end = weakref.finalize(self, self._held.close)
        self.memory = Memory.new()
        self._held.callback(self.memory.close)
        self._take, self._put = self._pipe()
        os.set_blocking(self._take, False)
        with suppress(OSError, AttributeError):  # Linux has 64 KiB anyway
            fcntl.fcntl(self._put, fcntl.F_SETPIPE_SZ, 2**16)
        self._lifeline, _ = self._pipe()
        self._nursery = _Nursery.start(self._held, source, self._shared, late=False)
        self._ready = False

    async def fill(self) -> None:
        """Waits for the nursery and forks the workers that are missing.

        Raises:
          HansaError: a worker cannot load the task.
        """
        await self._wait_for_nursery()
        have = {worker.slot for worker in self.workers}
        for slot in range(self.number):
            if slot not in have:
                self.workers.append(self._fork(slot))

    def ready(self) -> bool:
        """Whether the nursery has loaded the task, or failed to."""
        return self._ready or self._nursery.wire.poll()

    def order(self, order: Order, digest: str) -> None:
        """Sends an order to every worker, after the places that they take."""
        while take_place(self._take) is not None:
            pass  # the places of an order whose workers all died
        put_places(self._put, -(-len(order.clients) // order.piece))
        without = _without_plan(order)
        for worker in self.workers:
            with suppress(OSError):  # its end is seen when its report is waited for
                worker.wire.send(without if worker.knows == digest else order)
                worker.knows = digest

    async def report_of(self, worker: Worker) -> Report | None:
        """What a worker made of the order; None if it did not survive it.

        Raises:
          HansaError: the worker says why it cannot go on.
        """
        await _readable(worker.wire)
        try:
            said: Report | Failed = worker.wire.recv()
        except (EOFError, OSError):
            return None
        if isinstance(said, Failed):
            raise _cannot(said)
        return said

    def remove(self, worker: Worker) -> str:
        """Lets go of a worker that is gone, and says how it ended."""
        worker.wire.close()
        self.workers.remove(worker)
        try:
            return str(self._nursery.ask(worker.pid))
        except (EOFError, OSError):
            self._held.callback(_end, self._nursery)
            self._nursery = _Nursery.start(self._held, self._source, self._shared, self._late)
            self._ready = False
            return "is gone, and so is the process that started it"

    def close(self) -> None:
        """Ends all processes and waits until they are gone."""
        for worker in self.workers:
            worker.wire.close()
        self.workers.clear()
        if not self._ready:  # it has no workers yet, and would load its libraries to the end
            self._nursery.process.kill()
        self._end()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._end.alive

    def pids(self) -> tuple[int, ...]:
        """All processes, the nursery first."""
        return (self._nursery.process.pid, *(worker.pid for worker in self.workers))

    @property
    def _shared(self) -> tuple[int, int, int]:
        return self.memory.fd, self._take, self._lifeline

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for fd in ends:
            self._held.callback(os.close, fd)
        return ends

    async def _wait_for_nursery(self) -> None:
        while not self._ready:
            await _readable(self._nursery.wire)
            try:
                said: int | Failed = self._nursery.wire.recv()
            except (EOFError, OSError) as error:
                raise HansaError(
                    "the process that starts the workers ended while it loaded the task",
                    fix='use the engine "inline", which shows what the task does',
                ) from error
            if isinstance(said, Failed):
                raise _cannot(said)
            self._ready = said == 1 or self._late
            if not self._ready:
                self._late = True
                self._nursery = _Nursery.start(self._held, self._source, self._shared, late=True)

    def _fork(self, slot: int) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            kept = KEPT_BYTES // self.number
            try:
                pid = self._nursery.fork(slot, kept, theirs)
            except (EOFError, OSError) as error:
                ours.close()
                raise HansaError(
                    "the process that starts the workers is gone",
                    fix="look for what ended it, such as a lack of memory, and start again",
                ) from error
        return Worker(slot, pid, Connection(ours.detach()))


@dataclass(frozen=True, slots=True)
class _Nursery:
    """The process that loads the task and forks workers."""

    process: subprocess.Popen[bytes]
    wire: Wire

    @classmethod
    def start(
        cls, held: ExitStack, source: Source, shared: tuple[int, int, int], late: bool
    ) -> _Nursery:
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), *shared)
            words = [*(str(fd) for fd in fds), str(int(late))]
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hansa.engines.workers_process", *words],
                stdin=subprocess.DEVNULL,
                env=environment(),
                pass_fds=fds,
                start_new_session=True,  # Ctrl-C is for the simulation, which ends the others
            )
        nursery = cls(process, Connection(ours.detach()))
        held.callback(_end, nursery)
        with suppress(OSError):
            nursery.wire.send(source)
        return nursery

    def fork(self, slot: int, kept: int, end: socket.socket) -> int:
        """A new worker with one end of a socket; its process id."""
        self.wire.send(("fork", slot, kept))
        with socket.socket(fileno=os.dup(self.wire.fileno())) as carrier:
            socket.send_fds(carrier, [b"0"], [end.fileno()])
        return int(self.wire.recv())

    def ask(self, pid: int) -> str:
        """How a worker ended."""
        self.wire.send(pid)
        return str(self.wire.recv())


def _end(nursery: _Nursery) -> None:
    """Hangs up; the nursery ends its workers, and itself."""
    if not nursery.wire.closed:
        nursery.wire.close()
    try:
        nursery.process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:  # it is still loading; it has no workers yet
        nursery.process.kill()
        nursery.process.wait()


def _without_plan(order: Order) -> Order:
    return replace(order, plan=None)


def _cannot(said: Failed) -> HansaError:
    return HansaError(f"a worker cannot go on: {said.message}", fix=said.fix)


async def _readable(wire: Wire) -> None:
    """Waits until there is something to receive, or the other side is gone."""
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(wire.fileno(), there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(wire.fileno())


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
