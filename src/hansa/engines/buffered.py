"""Clients that stay at work from round to round: buffered asynchronous training, simulated.

    at work ──► who is over first? ──► the first `buffer` updates ──► train these, each from the
      ▲              │ failed: Dropout                                model that it began with
      └── the next ──┘                                                (grouped by that model)
          of the queue begins

As in `hansa.engines.timed`, nobody waits for anything: when a client will be done is known when it
begins, and it is trained when its update counts. Whoever is trained from the same model is trained
together, so that processes and stacks have as much to do as in rounds that wait.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hansa.core.arrival import Begun, Buffer, Flight, Flights, counts, late, too_old_words
from hansa.core.contribute import Purpose, RoundTask
from hansa.core.keys import ReplayKey
from hansa.core.parts import Course, Dropout, Partial
from hansa.core.round import Engine
from hansa.engines.goal import too_late
from hansa.engines.timed import Predictor, TimedEngine


class Pace(Protocol):
    """How long clients take."""

    def over(self, task: RoundTask, client: str, at: float) -> tuple[float, str]:
        """When the work of a client that begins `at` is over, and why no update comes of it."""


@dataclass(frozen=True, slots=True)
class HalfNormal:
    """Without devices: the size of a standard normal number, new for each piece of work.

    It stands for no unit of time; only the order follows from it.

    Attributes:
      key: what the numbers derive from.
    """

    key: ReplayKey

    def over(self, task: RoundTask, client: str, at: float) -> tuple[float, str]:
        """After some time, with an update."""
        name = ("pace", task.round, task.attempt, client)
        return at + abs(float(self.key.generator(*name).standard_normal())), ""


@dataclass(frozen=True, slots=True)
class OnDevices:
    """On devices: whoever vanishes or is too slow is waited for until its deadline.

    Attributes:
      predictor: what a round costs a client.
    """

    predictor: Predictor

    def over(self, task: RoundTask, client: str, at: float) -> tuple[float, str]:
        """When the update arrives, or the seconds that a client has for a round are over."""
        seconds = task.plan.job.rounds.deadline
        outcome = self.predictor.outcome(task, client, at)
        if outcome.failure:
            return at + seconds, outcome.failure
        if outcome.ends > at + seconds:
            return at + seconds, too_late(seconds)
        return outcome.ends, ""


@dataclass(slots=True)
class BufferedEngine:
    """Another engine's clients, whose updates count when they arrive.

    | what happens                                 | result                                      |
    |----------------------------------------------|---------------------------------------------|
    | `buffer` updates arrived                     | the round is over; the others stay at work  |
    | a client is at work when a round begins      | it counts later, its delta for less         |
    | a client's model is older than is allowed    | Dropout as the round begins                 |
    | a client at work is not in the cohort        | its work ends, without a word               |
    | a client fails, vanishes, or is too slow     | Dropout; the next one begins                |
    | a client's part in the round is over         | it begins again in the next round           |
    | nobody is at work and nobody can begin       | the round is over, with too few updates     |
    | a measurement, or a plan that waits          | as the other engine                         |

    Attributes:
      inner: what trains the clients.
      pace: how long they take.
      timed: the other engine on devices, for measurements; None without devices.
    """

    inner: Engine
    pace: Pace
    timed: TimedEngine | None = None

    @property
    def real(self) -> bool:
        """False: all clients are this machine."""
        return False

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout | Course]:
        """Trains the clients whose updates fill the buffer.

        Raises:
          HansaError: as the inner engine.
        """
        buffer = Buffer.of(task.plan.job)
        if buffer is None or task.purpose is not Purpose.TRAIN:
            async for item in self._together(task, cohort):
                yield item
            return
        air = _Air(task, cohort, buffer, self.pace)
        began, counted, ages = air.now, 0, dict[str, int]()
        for dropout in air.recall():
            yield dropout
        while counted < buffer.size:
            batch = air.next(buffer.size - counted)
            for flight in batch:
                if flight.failure:
                    yield Dropout(flight.client, flight.failure)
            for start, clients in _by_start(batch):
                given = air.task_of(*start)
                async for item in self.inner.gather(given, clients):
                    if isinstance(item, Partial):
                        counted += len(item.members)
                        ages.update(dict.fromkeys(item.members, given.age))
                    yield item
            if not batch:
                break
        yield Course(
            seconds=None if self.timed is None else air.now - began,
            ages=counts(Counter(ages.values())),
            flights=air.after(),
            late=late(ages),
        )

    def _together(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout | Course]:
        """A round that waits; who is still at work is not waited for."""
        return (self.timed or self.inner).gather(task, cohort)


class _Air:
    """Who is at work during one round.

    Args:
      task: the round.
      cohort: who may be given work, in this order.
      buffer: the job's words.
      pace: how long clients take.
    """

    def __init__(self, task: RoundTask, cohort: Sequence[str], buffer: Buffer, pace: Pace) -> None:
        before = task.flights or Flights()
        self.now = before.now
        self._task, self._buffer, self._pace = task, buffer, pace
        self._cohort = frozenset(cohort)
        self._flights = [(f.ends, f.client, f) for f in before.flights]
        heapq.heapify(self._flights)
        self._models = {**dict(before.models), task.round: Begun(task.params, task.model)}
        busy = {flight.client for flight in before.flights}
        # Whoever is at work now has no second turn in this round, so one pass is enough.
        self._queue = iter([client for client in cohort if client not in busy])

    def recall(self) -> Iterator[Dropout]:
        """Ends the work of those whose model is too old to count from now on.

        And of those who are not in the cohort any more, whom no record names: they are quarantined.
        """
        kept = []
        for ends, client, flight in sorted(self._flights):
            if client not in self._cohort:
                continue
            age = self._task.round - flight.round
            if self._buffer.too_old(age):
                yield Dropout(client, too_old_words(age))
            else:
                kept.append((ends, client, flight))
        self._flights = kept  # sorted, hence a heap

    def next(self, updates: int) -> list[Flight]:
        """Whose work is over next, until so many updates arrived; nobody if nobody works."""
        found: list[Flight] = []
        while updates:
            self._fill()
            if not self._flights:
                break
            _, _, flight = heapq.heappop(self._flights)
            self.now = max(self.now, flight.ends)
            found.append(flight)
            updates -= not flight.failure
        return found

    def task_of(self, number: int, attempt: int) -> RoundTask:
        """What clients do who began in that try at that round."""
        begun = self._models[number]
        return replace(
            self._task,
            round=number,
            attempt=attempt,
            params=begun.params,
            model=begun.model,
            age=self._task.round - number,
            flights=None,
        )

    def after(self) -> Flights:
        """Who is still at work, and the models that they began with."""
        flights = tuple(flight for _, _, flight in sorted(self._flights))
        needed = {flight.round for flight in flights}
        models = tuple((r, begun) for r, begun in sorted(self._models.items()) if r in needed)
        return Flights(self.now, flights, models)

    def _fill(self) -> None:
        """Lets the next ones begin, from the newest model."""
        number, attempt = self._task.round, self._task.attempt
        while len(self._flights) < self._buffer.concurrency:
            client = next(self._queue, None)
            if client is None:
                return
            ends, failure = self._pace.over(self._task, client, self.now)
            if not math.isfinite(ends):
                raise ValueError(f"the work of '{client}' is never over")
            flight = Flight(client, number, attempt, ends, failure)
            heapq.heappush(self._flights, (ends, client, flight))


def _by_start(batch: Sequence[Flight]) -> Iterator[tuple[tuple[int, int], tuple[str, ...]]]:
    """Clients that sent updates, by the try at a round that they began in."""
    starts: dict[tuple[int, int], list[str]] = {}
    for flight in batch:
        if not flight.failure:
            starts.setdefault((flight.round, flight.attempt), []).append(flight.client)
    for start in sorted(starts):
        yield start, tuple(starts[start])
