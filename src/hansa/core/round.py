"""The only round loop. Simulation and federation differ in the engine they hand in.

  charge ──► open ──► gather (engine) ──► quorum? ──► commit ──► decode ──► mechanism ──► optimise
     │                                       │ no                              the one gate │
     ▼                                       ▼                                 to the public ▼
BudgetExceeded                        void: model unchanged,                        close: one
nobody contacted                      the charge stays spent                       durable step
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from hansa.core.arrival import Buffer, Flights
from hansa.core.contribute import Fold, Purpose, RoundTask
from hansa.core.events import Event
from hansa.core.keys import KeyedNoise, Noise, ReplayKey, SecretNoise
from hansa.core.metrics import Better
from hansa.core.parts import Correlated, Course, DecodingAggregator, Dropout, Partial
from hansa.core.plan import Plan
from hansa.core.rollback import Accepted, Rejected, direction, judged
from hansa.core.spec import Divisor, Reader
from hansa.core.standing import (
    GroupLikeness,
    Judge,
    Likeness,
    asked,
    finished,
    likeness_of,
    observed,
)
from hansa.core.vector import Layout, Vector, sha256
from hansa.errors import HansaError, RoundVoid

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class TrainState:
    """Everything that the next round starts from.

    Attributes:
      round: the next round, from 0.
      attempt: how often this round was void.
      params: (d,) float32 parameters.
      model: SHA-256 of `params`.
      server: the server optimizer's state, a tuple of vectors.
      best: best value of the watched metric so far.
      stale: measurements since then.
      clip: norm bound of the next round, where it adapts.
      memory: what correlated noise remembers of earlier rounds; computed anew if it is None.
      flights: the virtual time of a simulation, and who is at work where updates arrive late.
      standing: what the plan's judge knows of the clients; None before the first round.
      accepted: the model that is gone back to if this one is bad; None where none ever is.
    """

    round: int
    attempt: int
    params: Vector
    model: str
    server: Any
    best: float | None = None
    stale: int = 0
    clip: float | None = None
    memory: Any = field(default=None, repr=False, compare=False)
    flights: Flights | None = field(default=None, repr=False, compare=False)
    standing: Any = field(default=None, repr=False)
    accepted: Accepted | None = None


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What is known about a round afterwards; holds nothing of a single client.

    Attributes:
      purpose: training or measuring.
      round: its number.
      attempt: the try that this record is about.
      cohort: clients asked; where updates arrive late, also who may be asked while it lasts.
      members: clients whose updates counted.
      dropouts: who did not count, and why.
      void: whether the quorum was missed.
      metrics: values over the members' held-out examples, of the model the round *started* from.
      seconds: from opening to closing.
      model: SHA-256 of the parameters after the round.
      virtual_seconds: what the round would take on a simulation's devices; None without such.
      ages: how many members' updates were 0, 1, 2 and so on rounds old; empty if none can be.
      rejected: why the model that the round started from was rejected; None if it was not. What
        the round trained is gone with it, and `model` is the last accepted one.
    """

    purpose: Purpose
    round: int
    attempt: int
    cohort: tuple[str, ...]
    members: tuple[str, ...]
    dropouts: tuple[Dropout, ...]
    void: bool
    metrics: dict[str, float | None]
    seconds: float
    model: str
    virtual_seconds: float | None = None
    ages: tuple[int, ...] = ()
    rejected: Rejected | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """One spend of privacy budget; equal charges are one charge, however often they are sent."""

    job: str
    round: int
    attempt: int
    purpose: Purpose
    event: Event


class Ledger(Protocol):
    """The privacy budget of a job. What is spent never decreases."""

    def reserve(self, charge: Charge) -> None:
        """Sets the charge aside before any client is contacted; a known charge changes nothing.

        Raises:
          BudgetExceeded: the job's budget does not cover it.
        """

    def commit(self, charge: Charge) -> None:
        """Spends a reserved charge, before anything is released."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A round that has begun: what a restart needs to go on with the same round."""

    purpose: Purpose
    round: int
    attempt: int
    cohort: tuple[str, ...]
    model: str


class Journal(Protocol):
    """Durable memory of rounds; each method is one transaction."""

    async def open(self, opening: Opening) -> Opening:
        """Begins a round. If this very attempt was begun before, returns how it was begun."""

    async def close(self, record: RoundRecord, state: TrainState) -> TrainState:
        """Ends a round, void or not, with the state that the next one starts from.

        Returns:
          The same state; its vectors may have moved to where they cost less memory.
        """


class Engine(Protocol):
    """Runs one task on many clients: a loop, a pool, a cluster or a network of strangers."""

    @property
    def real(self) -> bool:
        """Whether the clients are other parties, so that replayable noise protects nobody."""

    def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout | Course]:
        """Yields folded updates and dropouts until every client is accounted for.

        Where updates arrive late, until there are enough; the others stay at work. An engine that
        knows more of how the round went says so once, in a `Course`.
        """


@dataclass(frozen=True, slots=True)
class World:
    """What a plan runs in: everything about a run that is not the plan itself.

    Attributes:
      job: identifier of this run of the job.
      engine: what runs clients.
      ledger: the privacy budget.
      journal: the memory of rounds.
      noise: where mechanisms take noise from.
      key: the key of everything repeatable that clients do.
      population: names of the clients that may be drawn.
      sampling: the key of the cohorts; `key` if it is left out. Amplification by sampling holds
        only while nobody can foresee the cohort, so a real federation keeps this one secret.
    """

    job: str
    engine: Engine
    ledger: Ledger
    journal: Journal
    noise: Noise
    key: ReplayKey
    population: Sequence[str]
    sampling: ReplayKey | None = None


async def run_round(
    plan: Plan, state: TrainState, world: World, purpose: Purpose = Purpose.TRAIN
) -> tuple[TrainState, RoundRecord]:
    """Runs one round and records it.

    Returns:
      The state after it and its record; a void round leaves the model and counts an attempt,
      one that rejects the model it started from goes back to the last accepted one.

    Raises:
      BudgetExceeded: before any client is contacted.
      HansaError: a real federation was given replayable noise.
    """
    if world.engine.real and world.noise.replayable and plan.private:
        raise HansaError(
            "a real federation was given noise that can be replayed, which protects nobody",
            fix="pass NoiseSource() as the noise",
        )
    started = time.perf_counter()
    charge = _charge(plan, state, world, purpose)
    await _aside(world, world.ledger.reserve, charge)
    drawn = _draw(plan, state, world, purpose)
    cohort = asked(plan.parts.judge, state.standing, drawn, _quorum(plan, purpose))
    opening = await world.journal.open(
        Opening(purpose, state.round, state.attempt, cohort, state.model)
    )
    task = RoundTask(
        plan,
        state.round,
        state.attempt,
        purpose,
        state.params,
        state.model,
        world.key,
        state.clip,
        flights=state.flights,
    )
    partial, dropouts, course = await _gather(world.engine, task, opening.cohort)
    await _aside(world, world.ledger.commit, charge)

    void = len(partial.members) < _quorum(plan, purpose)
    metrics: dict[str, float | None] = {}
    rejected: Rejected | None = None
    if course is not None and course.flights is not None:
        state = replace(state, flights=course.flights)
    judge = plan.parts.judge if purpose is Purpose.TRAIN else None  # a measurement shows nothing
    likeness: Likeness | GroupLikeness | None = None
    after = replace(state, attempt=state.attempt + 1)
    members = tuple(sorted(partial.members))
    if not void:
        likeness = await _aside(world, _likeness, plan, task, partial, judge)
        try:
            after, metrics, rejected = await _aside(
                world, _conclude, plan, state, task, partial, world.noise
            )
        except RoundVoid as error:
            void = True
            dropouts += [Dropout(member, error.message) for member in members]
    record = RoundRecord(
        purpose,
        state.round,
        state.attempt,
        opening.cohort,
        members,
        tuple(dropouts),
        void,
        metrics,
        time.perf_counter() - started,
        after.model,
        None if course is None else course.seconds,
        () if course is None else course.ages,
        rejected,
    )
    standing = observed(
        judge, after.standing, task, likeness, dropouts, {} if course is None else course.late
    )
    return await world.journal.close(record, replace(after, standing=standing)), record


async def _aside(world: World, work: Callable[..., _Result], *args: object) -> _Result:
    """Does in a thread what may take long, so that other parties are served meanwhile.

    A flush does, and noise for a large model. In a simulation nobody waits.
    """
    return await asyncio.to_thread(work, *args) if world.engine.real else work(*args)


def _charge(plan: Plan, state: TrainState, world: World, purpose: Purpose) -> Charge:
    """What a round costs; another try, with noise of its own, costs a whole round again."""
    event = plan.charge(state.round) if state.attempt == 0 else plan.round_event
    return Charge(world.job, state.round, state.attempt, purpose, event)


def _draw(plan: Plan, state: TrainState, world: World, purpose: Purpose) -> tuple[str, ...]:
    """A measurement draws like a round, or its charge and its bounds would not hold."""
    path = ("round", state.round, state.attempt, purpose.value, "sample")
    key = (world.sampling or world.key).derive(*path)
    buffer = Buffer.of(plan.job)
    if buffer is None or purpose is not Purpose.TRAIN:
        return plan.parts.sampler.draw(world.population, key, state.round)
    flights = state.flights.flights if state.flights is not None else ()
    queue = buffer.queue(world.population, key, whole=world.engine.real)
    return tuple(dict.fromkeys([*(flight.client for flight in flights), *queue]))


def _quorum(plan: Plan, purpose: Purpose) -> int:
    """Fewest updates that count; a sum that hides its parts hides them in a measurement, too."""
    hides = plan.facts["weight"].reader is Reader.SUM
    return plan.quorum if purpose is Purpose.TRAIN or hides else 1


async def _gather(
    engine: Engine, task: RoundTask, cohort: tuple[str, ...]
) -> tuple[Partial, list[Dropout], Course | None]:
    fold, partial, dropouts, course = Fold.of(task), None, [], None
    async for item in engine.gather(task, cohort):
        if isinstance(item, Dropout):
            dropouts.append(item)
        elif isinstance(item, Course):
            course = item
        elif partial is None:
            partial = item
        else:
            partial = fold.aggregator.merge(partial, item)
    return (partial if partial is not None else fold.zero()), dropouts, course


def _conclude(
    plan: Plan, state: TrainState, task: RoundTask, partial: Partial, noise: Noise
) -> tuple[TrainState, dict[str, float | None], Rejected | None]:
    """The state after a round that counted, its metrics, and whether they reject its model."""
    total = _total(plan, state, task, partial)
    memory, public = _release(plan, state, task, total, noise)
    step = public.get("delta")
    if step is not None:
        step /= _divisor(plan, public)
        if task.clip is not None:
            step *= task.clip
    sums = public.get("metrics", np.zeros(0))
    if not task.measured:
        sums[2:] = 0.0  # nothing was measured, and noise alone is no value
    metrics = plan.metric_values(sums)
    state, value = replace(state, memory=memory), metrics.get(plan.job.rounds.watch)
    rejected = _rejected(plan, state, value)
    if rejected is not None:
        return _gone_back(state, task.purpose), metrics, rejected
    after = replace(_advance(plan, state, step, value), clip=_adapted(plan, state.clip, public))
    return after, metrics, None


def _total(plan: Plan, state: TrainState, task: RoundTask, partial: Partial) -> Vector:
    """The sum of the round's updates in model units, float64: private still."""
    layout = task.layout
    aggregator, decode = plan.parts.aggregator, _decoder(plan, layout)
    if isinstance(aggregator, DecodingAggregator):
        total = aggregator.finish_decoded(partial, decode, layout, plan.facts)
    else:
        judge = plan.parts.judge
        total = decode(finished(judge, state.standing, aggregator, partial, layout, plan.facts))
    _check_sum(plan, layout, total, len(partial.members))
    return total


def _decoder(plan: Plan, layout: Layout) -> Callable[[Vector], Vector]:
    """The stages' server halves, for one sum."""

    def decode(total: Vector) -> Vector:
        for stage in reversed(plan.parts.stages):
            total = stage.decode(total, layout)
        return total

    return decode


def _likeness(
    plan: Plan, task: RoundTask, partial: Partial, judge: Judge | None
) -> Likeness | GroupLikeness | None:
    """What the judge is shown; `partial` stays as it is."""
    decode = _decoder(plan, task.layout)
    return likeness_of(judge, plan.parts.aggregator, partial, decode, task.layout, plan.facts)


def _release(
    plan: Plan, state: TrainState, task: RoundTask, total: Vector, noise: Noise
) -> tuple[Any, dict[str, Vector]]:
    """What the noise of later rounds must remember, and the public form of each segment."""
    mechanism, memory, public = plan.parts.mechanism, state.memory, {}
    for segment in task.layout.segments:
        spec, values = plan.facts[segment.name], task.layout.slice(total, segment.name)
        if not segment.size or not mechanism.releases(spec):
            continue
        if segment.name == "delta" and isinstance(mechanism, Correlated):
            rows = _rows(noise)
            if memory is None:
                memory = mechanism.remember(spec, task.round, rows)
            memory, values = mechanism.correlate(memory, task.round, values, spec, rows)
        else:
            values = mechanism.apply(values, spec, _stream(noise, task, segment.name))
        public[segment.name] = values
    return memory, public


def _adapted(plan: Plan, clip: float | None, public: dict[str, Vector]) -> float | None:
    """The norm bound of the next round, from what is public already."""
    adapts, within = plan.adapts, public.get("within")
    if adapts is None or clip is None or within is None:
        return clip
    return adapts.next(clip, float(within[0]), plan.parts.sampler.expected)


def _check_sum(plan: Plan, layout: Layout, total: Vector, members: int) -> None:
    """What can be checked of a sum whose parts nobody can read: that honest parts can give it.

    Raises:
      RoundVoid: they cannot; some client sent what it should not.
    """
    for segment in layout.segments:
        spec = plan.facts[segment.name]
        if spec.reader is not Reader.SUM or not segment.size:
            continue
        values = layout.slice(total, segment.name)
        if not spec.possible(float(values.min()), float(values.max()), members):
            raise RoundVoid(
                f"the sum of the {segment.name} is beyond what {members} honest clients can send",
                fix="find out which client sends updates beyond the plan's bounds",
            )


def _stream(noise: Noise, task: RoundTask, segment: str) -> Noise:
    """Noise from a key differs by round and segment; fresh noise always differs."""
    if isinstance(noise, (ReplayKey, SecretNoise)):
        return noise.derive("noise", task.purpose.value, task.round, task.attempt, segment)
    return noise


def _rows(noise: Noise) -> KeyedNoise:
    """The noise of all rounds together.

    Raises:
      HansaError: nobody could compute it again in the next round.
    """
    if isinstance(noise, (ReplayKey, SecretNoise)):
        return noise.derive("noise", "rows")
    raise HansaError(
        "the noise of this job is correlated over its rounds, and comes from no key",
        fix="pass SecretNoise with the key of this run as the noise",
    )


def _divisor(plan: Plan, public: dict[str, Vector]) -> float:
    """Total weight of the members, or the constant that does not depend on who answered."""
    spec = plan.facts["delta"]
    if spec.divisor is Divisor.FIXED:
        return plan.parts.sampler.expected * spec.weight
    total = float(public["weight"][0])
    return total if total > 0 else 1.0


def _rejected(plan: Plan, state: TrainState, value: float | None) -> Rejected | None:
    """Why the model that a round started from is rejected by its value, if it is."""
    watch, tolerance, accepted = plan.job.rounds.watch, plan.job.defend.rollback, state.accepted
    better = direction(plan.task.metrics, watch)
    if not judged(accepted, state.model, value, state.best, tolerance, better):
        return None
    assert accepted is not None and value is not None  # noqa: S101, PT018  else nothing is judged
    return Rejected(watch, value, state.best, tolerance, accepted.round)


def _gone_back(state: TrainState, purpose: Purpose) -> TrainState:
    """The state after a round whose model was rejected: the accepted one, and the next number.

    Numbers, charges, virtual time and what is known of clients go on; what followed from the
    model does not: parameters, the server optimizer's state, the norm bound.
    """
    accepted = state.accepted
    assert accepted is not None  # noqa: S101  else nothing is rejected
    return replace(
        state,
        round=state.round + (purpose is Purpose.TRAIN),
        attempt=0,
        params=accepted.params,
        model=accepted.model,
        server=accepted.server,
        clip=accepted.clip,
        stale=state.stale + 1,
    )


def _advance(plan: Plan, state: TrainState, step: Vector | None, value: float | None) -> TrainState:
    """The state after a round that counted.

    Args:
      plan: what runs.
      state: what the round started from.
      step: the mean of the updates; None after a measurement.
      value: of the watched metric, of the model in `state`.
    """
    state = _accept(_watch(plan, state, value), value)
    if step is None:
        return replace(state, attempt=0)
    server, params = plan.parts.algorithm.server.apply(state.server, state.params, step)
    params.flags.writeable = False
    return replace(
        state,
        round=state.round + 1,
        attempt=0,
        params=params,
        model=sha256(params),
        server=server,
    )


def _accept(state: TrainState, value: float | None) -> TrainState:
    """A model that was measured and not rejected is gone back to from here on."""
    accepted = state.accepted
    if accepted is None or value is None or state.model == accepted.model:
        return state
    now = Accepted(state.round, state.params, state.model, state.server, state.clip)
    return replace(state, accepted=now)


def _watch(plan: Plan, state: TrainState, value: float | None) -> TrainState:
    if value is None or math.isnan(value):  # a NaN would be the best value for ever
        return state
    lower = direction(plan.task.metrics, plan.job.rounds.watch) is Better.LOWER
    better = state.best is None or (value < state.best if lower else value > state.best)
    better = better and math.isfinite(value)  # nothing would ever be better than an infinity
    return replace(state, best=value, stale=0) if better else replace(state, stale=state.stale + 1)
