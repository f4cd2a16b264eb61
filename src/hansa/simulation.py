"""A whole training run on this machine: the same plan, the same rounds, other engines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from hansa.core.arrival import Buffer
from hansa.core.contribute import Purpose
from hansa.core.job import Job
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site, Split, Task
from hansa.core.plan import Plan
from hansa.core.round import Engine, Journal, Ledger, RoundRecord, TrainState, World
from hansa.core.train import OnRound, initial_state, train
from hansa.devices import Devices, load_devices
from hansa.engines.auto import AutoEngine
from hansa.engines.buffered import BufferedEngine, HalfNormal, OnDevices
from hansa.engines.inline import InlineEngine
from hansa.engines.kept import Kept
from hansa.engines.memory import MemoryJournal
from hansa.engines.ray import RayEngine
from hansa.engines.ray_actor import FromBundle
from hansa.engines.timed import Predictor, TimedEngine
from hansa.engines.vector import VectorEngine
from hansa.engines.workers import WorkersEngine
from hansa.engines.workers_messages import Data, FromJob
from hansa.engines.workers_pool import cores
from hansa.errors import HansaError
from hansa.nearest import suggest
from hansa.populations.names import Numbered
from hansa.privacy.ledger import MemoryLedger
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of, load_task
from hansa.work.threads import one_thread

T = TypeVar("T")

ENGINES = ("inline", "workers", "vector", "ray", "auto")
"""Engines that can simulate; `auto` and `vector` may train clients in stacks, all others give the
same bits."""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished simulation.

    Attributes:
      plan: what ran.
      state: the state after the last round, with the final parameters.
      records: of all rounds, in order, the last measurement at the end.
      seconds_per_round: mean over the training rounds.
      clients_per_second: updates that counted, by the time their rounds took.
      metrics: of the final model; empty if nothing was measured after the last round. Where the
        last model was rejected, what was measured of the one that was kept.
      model_sha256: of the final parameters.
      engine: what ran the clients at the end.
      engine_because: why it and no other.
      virtual_seconds: what the run would take on the devices; None without such.
    """

    plan: Plan
    state: TrainState
    records: tuple[RoundRecord, ...]
    seconds_per_round: float
    clients_per_second: float
    metrics: dict[str, float | None]
    model_sha256: str
    engine: str = "inline"
    engine_because: str = ""
    virtual_seconds: float | None = None


class Records(Journal, Protocol):
    """A journal that can be read."""

    @property
    def records(self) -> Sequence[RoundRecord]:
        """Of all rounds that were closed, in order."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run remembers, and what it goes on from.

    Attributes:
      journal: of its rounds.
      ledger: of its charges.
      state: after the last round that is remembered; None before the first.
    """

    journal: Records
    ledger: Ledger
    state: TrainState | None = None


class Keeper(Protocol):
    """Where a run is written down; `hansa.runs.Recorder` has one that writes a folder."""

    def begin(self, plan: Plan, task: Task, population: Sequence[str]) -> Memory:
        """The memory of a run that is about to begin, or to go on."""


def simulate(
    job: Job,
    *,
    clients: int | None = None,
    seed: int | None = None,
    rounds: int | None = None,
    engine: str = "inline",
    address: str | None = None,
    on_round: OnRound | None = None,
    debug: bool = False,
    masked: bool = True,
    task: Task | None = None,
    keeper: Keeper | None = None,
    devices: Devices | Path | str | None = None,
) -> Result:
    """Runs a job from its first round to the last measurement.

    Noise is drawn from the job's seed, so that a run can be repeated: it shows what a job does,
    and protects nobody. A federation draws fresh noise.

    Args:
      job: what to run.
      clients: population, instead of the job's.
      seed: instead of the job's.
      rounds: number of rounds, instead of the job's.
      engine: what runs the clients: `inline`, one after the other in this process; `workers`, in
        as many processes as there are cores. The result is the same.
        `vector`: as `workers`, and several clients of a PyTorch task are trained in one pass; the
        parameters are those of the others to about 1e-4, not to the bit. `ray`: on the nodes of a
        Ray cluster, with the result of `inline`. `auto`: whichever of `inline`, `workers`, `vector`
        and `vector` in workers is sooner, so that a long job may be trained in stacks.
      address: of that cluster, HOST:PORT; left out, the one that this machine is a node of.
      on_round: called with each round's record, also of void rounds.
      debug: stop at the first client that raises, with a call that repeats it.
      masked: lead the whole protocol where the job hides updates; the result is the same without.
      task: the job's task, if it is at hand already. It runs in this process only, so without
        workers and Ray.
      keeper: writes the run down as it goes; nothing is written if it is left out.
      devices: who is online when, how fast, and who vanishes, or a file that says so (see
        `hansa.devices`). Rounds then end by a virtual clock; without devices everybody answers.

    Raises:
      HansaError: there is no such engine; `workers` or `ray` with a task at hand or in debug mode;
        an address without `ray`.
      JobError: the file of devices says what cannot be.
      MissingExtra: `ray` without Ray.
      Unavailable: there is no Ray cluster.
      PlanRefused: the job's parts do not fit.
      RoundVoid: too few clients could be counted, again and again.
      BudgetExceeded: void rounds used up the declared releases.
      ClientFailed: in debug mode, a client raised.
    """
    job = _overridden(job, clients, seed, rounds)
    if isinstance(devices, (str, Path)):
        devices = load_devices(devices)
    wanted = choose(engine, job, debug=debug, masked=masked, handed=task is not None)
    if address is not None and engine != "ray":
        raise HansaError(
            f"an address is for the engine ray, and the engine is {engine}",
            fix='use the engine "ray", or leave the address out',
        )
    with ExitStack() as held:
        workers = WorkersEngine(FromJob(job))
        if wanted.name != "inline":
            held.callback(workers.close)
        spread = wanted.name == "workers"
        if wanted.name == "vector":
            spread = task is None and cores() > 1
        if spread:
            workers.start()  # they load the task while this process does
        ray = RayEngine(FromBundle.of(job), address or "auto") if wanted.name == "ray" else None
        if ray is not None:
            held.callback(ray.close)
            ray.start()
        task = load_task(job) if task is None else task
        plan = compile_plan(job, facts_of(job, task))
        held.enter_context(one_thread())
        data = _data(task)
        running = ray or _engine(
            wanted.name, task, data, workers, spread=spread, debug=debug, masked=masked
        )
        population = population_of(plan.job, task)
        memory = _memory(plan, task, population, keeper)
        key = ReplayKey.of_seed(plan.job.seed)
        world = World(
            job=plan.job.name,
            engine=_clocked(plan, running, task, data, key, devices),
            ledger=memory.ledger,
            journal=memory.journal,
            noise=key,
            key=key,
            population=population,
        )
        start = _start(plan, task) if memory.state is None else memory.state
        heard = on_round if on_round is not None else _nothing
        state = _run(train(plan, start, world, heard))
        if isinstance(running, AutoEngine):
            wanted = Choice(running.name, running.because)
        elif isinstance(running, VectorEngine):
            wanted = Choice(wanted.name, running.how or wanted.because)
        return _result(plan, state, memory.journal.records, wanted)


def population_of(job: Job, task: Task) -> Sequence[str]:
    """Names of the clients: the task's own if it has `clients(job)`, else numbered ones.

    Numbered names are made when they are looked at, so that a million of them cost nothing.

    Raises:
      HansaError: the task knows fewer clients than the job's population.
    """
    size = job.cohort.population
    own = getattr(task, "clients", None)
    if own is None:
        return Numbered(size)
    names: Sequence[str] = own(job)
    if len(names) < size:
        raise HansaError(
            f"the job wants {size} clients, {type(task).__name__} knows {len(names)}",
            fix=f"set cohort.population to at most {len(names)}",
        )
    return names if len(names) == size else names[:size]


def _memory(plan: Plan, task: Task, population: Sequence[str], keeper: Keeper | None) -> Memory:
    if keeper is None:
        return Memory(MemoryJournal(), MemoryLedger(plan.charges))
    return keeper.begin(plan, task, population)


def _start(plan: Plan, task: Task) -> TrainState:
    params = task.initial(plan.job.seed)
    params.flags.writeable = False
    return initial_state(plan, params)


def _overridden(job: Job, clients: int | None, seed: int | None, rounds: int | None) -> Job:
    if clients is not None:
        job = replace(job, cohort=replace(job.cohort, population=clients))
    if seed is not None:
        job = replace(job, seed=seed)
    if rounds is not None:
        job = replace(job, rounds=replace(job.rounds, count=rounds))
    return job


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and why it."""

    name: str
    because: str


def choose(name: str, job: Job, *, debug: bool, masked: bool, handed: bool) -> Choice:
    """The engine that runs a job, as far as it can be known before anything was timed.

    Args:
      name: of the engine that was asked for.
      job: what will run.
      debug: whether a client's error is to be shown as it is.
      masked: whether the whole protocol is led where the job hides updates.
      handed: whether the task is an object of this process.

    Raises:
      HansaError: there is no such engine, or it cannot do what was asked for.
    """
    if name not in ENGINES:
        raise HansaError(f"there is no engine '{name}'", fix=suggest(name, ENGINES, "engines"))
    if name == "inline":
        return Choice(name, "it was asked for")
    only_here = "a client's error can be repeated in its own process only" if debug else ""
    if handed:
        only_here = "a task that is handed in is in this process only"
    if name == "vector" and handed and not debug:
        only_here = ""  # stacks need no other process
    if only_here and name in ("workers", "ray"):
        raise HansaError(
            f"{only_here}, and the engine is {name}", fix='use the engine "inline" or "auto"'
        )
    if only_here:
        return Choice("inline", only_here)
    if masked and job.secure_aggregation.enabled:
        return Choice("inline", "masks are led in one process; without them the sum is the same")
    return Choice(name, "it was asked for")


def _data(task: Task) -> Data:
    """A client's examples, kept in memory for a while."""

    def read(client: str) -> Split:
        return task.data(Site(client, MappingProxyType({})))

    return Kept(read)


def _clocked(
    plan: Plan, inner: Engine, task: Task, data: Data, key: ReplayKey, devices: Devices | None
) -> Engine:
    """The engine on a virtual clock, where there are devices or updates count as they arrive."""
    arrives = Buffer.of(plan.job) is not None
    if devices is None:
        return BufferedEngine(inner, HalfNormal(key.derive("arrivals"))) if arrives else inner
    predictor = Predictor(task, data, key.derive("devices"), devices)
    timed = TimedEngine(inner, predictor)
    return BufferedEngine(inner, OnDevices(predictor), timed) if arrives else timed


def _engine(
    name: str,
    task: Task,
    data: Data,
    workers: WorkersEngine,
    *,
    spread: bool,
    debug: bool,
    masked: bool,
) -> Engine:
    if name == "vector":
        return VectorEngine(task, data, workers=workers if spread else None)
    if spread:
        return workers
    inline = InlineEngine(task, data, debug, masked)
    return AutoEngine(inline, workers) if name == "auto" else inline


def _result(
    plan: Plan, state: TrainState, records: Sequence[RoundRecord], engine: Choice
) -> Result:
    trained = [r.seconds for r in records if r.purpose is Purpose.TRAIN]
    seconds = sum(r.seconds for r in records)
    counted = sum(len(r.members) for r in records)
    virtual = [r.virtual_seconds for r in records if r.virtual_seconds is not None]
    return Result(
        plan=plan,
        state=state,
        records=tuple(records),
        seconds_per_round=sum(trained) / len(trained) if trained else 0.0,
        clients_per_second=counted / seconds if seconds else 0.0,
        metrics=_last_measured(records),
        model_sha256=state.model,
        engine=engine.name,
        engine_because=engine.because,
        virtual_seconds=sum(virtual) if virtual else None,
    )


def _last_measured(records: Sequence[RoundRecord]) -> dict[str, float | None]:
    """The last measurement's values, if it kept the model; else those of the model that was kept.

    The first round that started from that one has measured it.
    """
    last = next((r for r in reversed(records) if r.purpose is Purpose.EVALUATE), None)
    if last is None or last.rejected is None:
        return {} if last is None else last.metrics
    back = last.rejected.back
    return next(r.metrics for r in records if r.round == back and not r.void)


def _nothing(record: RoundRecord) -> None:
    """What is done with a round's record if nobody asked for it."""


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs to the end, also from inside a running event loop such as a notebook's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
