"""What the simulation and its workers say to each other, and the memory that they share.

simulation ──"go", one Order──►  worker        one socket for each worker
           ◄───── one Report ──
           ──── places ───────►  all workers   one pipe: whoever is free takes the next place
           ──── parameters ───►  all workers   one memory file, written once a round
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from hansa.core.contribute import RoundTask
from hansa.core.job import Job
from hansa.core.parts import Dropout, Model, Partial, Site, Split, Task
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.errors import HansaError

Data: TypeAlias = Callable[[str], Split]
Source: TypeAlias = Callable[[], tuple[Model, Data]]
"""How a worker gets the model and a client's examples; it is sent to the worker by pickle."""

Wire: TypeAlias = "Connection[Any, Any]"

HEAD = 4096
"""Bytes before the parameters in the memory file: one place for each worker, what it works on."""

MOST_WORKERS = HEAD // 4
MOST_PLACES = 8192
"""Most pieces that a cohort is cut into: all of them fit into the pipe at once."""

_PLACE = struct.Struct("<I")
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class FromJob:
    """The job's task, loaded where it is needed."""

    job: Job

    def __call__(self) -> tuple[Model, Data]:
        """The task and its data."""
        from hansa.work.bundle import load_task

        task = load_task(self.job)
        return task, examples_of(task)


def examples_of(task: Task) -> Data:
    """A client's examples, as the task reads them, by the client's name."""
    return lambda client: task.data(Site(client, MappingProxyType({})))


@dataclass(frozen=True, slots=True)
class Order:
    """What all workers do next.

    Attributes:
      task: the round; its plan and its parameters travel otherwise.
      plan: the plan, if it is a new one.
      size: d, how many parameters are in the memory file.
      clients: who is to be trained, each with the number of its group.
      piece: how many clients in a row are one place of the pipe.
      hidden: whether updates are ring vectors that masks would hide.
      stacked: whether the clients of a piece are trained together where that is possible.
    """

    task: RoundTask
    plan: Plan | None
    size: int
    clients: tuple[tuple[int, str], ...]
    piece: int
    hidden: bool
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker made of its share of an order.

    Attributes:
      partials: its sum for each group that it met.
      dropouts: clients whose update did not count.
      examples: how many examples each client trains on, as far as it was seen.
    """

    partials: dict[int, Partial]
    dropouts: tuple[Dropout, ...]
    examples: dict[str, int]


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker cannot work at all; the words of its error."""

    message: str
    fix: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """Those of any error."""
        if isinstance(error, HansaError):
            return cls(error.message, error.fix)
        said = f"{type(error).__name__}: {error}"
        return cls(said, "see what the task does when it is loaded")


def without_bulk(task: RoundTask) -> RoundTask:
    """The round's small things, which travel by message."""
    return replace(task, plan=None, params=np.zeros(0, np.float32))  # type: ignore[arg-type]


class Memory:
    """A file without a name: it is gone with the last process that holds it, however that ends."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._head = mmap.mmap(fd, HEAD)

    @classmethod
    def new(cls) -> Memory:
        """In memory where the system can do that, else on the disk."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("hansa")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.write(fd, b"\xff" * HEAD)  # every place says nobody
        return cls(fd)

    def write(self, params: Vector) -> None:
        """Puts (d,) float32 parameters in place of the last ones; nobody may be reading."""
        size = HEAD + params.nbytes
        if os.fstat(self.fd).st_size < size:
            os.ftruncate(self.fd, size)
        with mmap.mmap(self.fd, size) as room:
            np.frombuffer(room, np.float32, offset=HEAD)[: len(params)] = params

    def read(self, size: int) -> Vector:
        """The (d,) parameters, without a copy; they cannot be written to."""
        room = mmap.mmap(self.fd, HEAD + 4 * size, access=mmap.ACCESS_READ)
        return np.frombuffer(room, np.float32, count=size, offset=HEAD)

    def works_on(self, slot: int, client: int = _NOBODY) -> None:
        """Notes the position of the client that a worker is at, in case it does not survive it."""
        struct.pack_into("<i", self._head, 4 * slot, client)

    def worked_on(self, slot: int) -> int | None:
        """The client that a worker was at when it was last heard of."""
        found: int = struct.unpack_from("<i", self._head, 4 * slot)[0]
        return None if found == _NOBODY else found

    def close(self) -> None:
        """Lets go of it."""
        self._head.close()
        os.close(self.fd)


def put_places(fd: int, number: int) -> None:
    """Writes the places 0 to `number` - 1 into the pipe."""
    os.write(fd, b"".join(_PLACE.pack(place) for place in range(number)))


def take_place(fd: int) -> int | None:
    """The next place that nobody has taken; None if there is none left."""
    with suppress(BlockingIOError):
        taken = os.read(fd, _PLACE.size)
        if taken:
            return int(_PLACE.unpack(taken)[0])
    return None
