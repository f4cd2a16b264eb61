"""What runs on the nodes of a Ray cluster: an actor that loads the task and trains its share.

Ray writes what a process prints into files on its node, so an actor prints nothing: its standard
output and error lead nowhere, and what a task raises is told to the simulation alone, in the words
that the other engines use.
"""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import weakref
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import hansa
from hansa.core.job import Job
from hansa.core.parts import Model, Task
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.engines.kept import Kept
from hansa.engines.share import Share
from hansa.engines.trainer import Trainer
from hansa.engines.workers_messages import Data, Failed, Order, Report, examples_of
from hansa.errors import JobError
from hansa.work.threads import VARIABLES, one_thread


@dataclass(frozen=True, slots=True)
class FromBundle:
    """The job's task on any machine: from the job's folder if it is the same there, else unpacked.

    Attributes:
      job: the job, with its folder as it is called where the simulation runs.
      bundle: the code of the task.
      digest: of the bundle.
    """

    job: Job
    bundle: bytes = field(repr=False)
    digest: str

    @classmethod
    def of(cls, job: Job) -> FromBundle:
        """Packs a job's task.

        Raises:
          JobError: there is no such folder, or its files cannot be bundled.
        """
        from hansa.work.bundle import pack

        bundle = pack(job)
        return cls(job, bundle.to_bytes(), bundle.digest)

    def __call__(self) -> tuple[Model, Data]:
        """The task and its data, as this machine has them."""
        task = self._task()
        return task, examples_of(task)

    def _task(self) -> Task:
        from hansa.work.bundle import load_bundled_task, load_task, pack, unpack

        try:
            here = pack(self.job).digest == self.digest
        except JobError:
            here = False
        if here:
            return load_task(self.job)
        home = Path(tempfile.mkdtemp(prefix="hansa-task-"))
        unpack(self.bundle, home / "task")
        task = load_bundled_task(home / "task", self.job.task)
        weakref.finalize(task, shutil.rmtree, home, ignore_errors=True)
        return task


@dataclass(frozen=True, slots=True)
class Hello:
    """What an actor says when it can work.

    Attributes:
      version: of Hansa.
      numpy: version of NumPy.
      node: where it is.
      pid: its process there.
    """

    version: str
    numpy: str
    node: str
    pid: int


class ShareActor:
    """Trains its share of each round's clients and answers with one sum; a class for `ray.remote`.

    Nothing is raised to Ray, which would log it.

    Args:
      source: a pickled `Source`.
      kept: bytes of examples that it keeps between rounds.
    """

    def __init__(self, source: bytes, kept: int) -> None:
        _fall_silent()
        os.environ.update(dict.fromkeys(VARIABLES, "1"))
        self._failed: Failed | None = None
        self._plan: Plan | None = None
        self._held = ExitStack()
        try:
            model, data = pickle.loads(source)()  # noqa: S301  from the simulation, by Ray
            self._held.enter_context(one_thread())
            self._data: Data = Kept(data, kept)
            self._trainer = Trainer(model)
        except BaseException as error:  # noqa: BLE001  whatever a task raises is told
            self._failed = Failed.of(error)

    def hello(self) -> Hello | Failed:
        """Whether it can work."""
        if self._failed is not None:
            return self._failed
        import ray

        node = ray.get_runtime_context().get_node_id()
        return Hello(hansa.__version__, np.__version__, node, os.getpid())

    def work(self, order: Order, params: Vector) -> Report | Failed:
        """Trains all clients of an order, one after the other.

        Args:
          order: whom; without a plan, it is the last one.
          params: (d,) float32, in the node's shared memory, not writable.
        """
        try:
            self._plan = order.plan or self._plan
            assert self._plan is not None  # noqa: S101  the first order has one
            share = Share(order, self._plan, params, self._data, self._trainer)
            share.train(0, _nobody_asks)
            return share.report()
        except BaseException as error:  # noqa: BLE001  whatever it is, it is told
            return Failed.of(error)


def _fall_silent() -> None:
    """From now on nothing that this process prints is kept."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def _nobody_asks(_: int) -> None:
    """At which client an actor was is not known once it is gone."""
