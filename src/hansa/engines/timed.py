"""Another engine's clients on a simulation's devices: a virtual clock, and who is in time.

    cohort ──► online? ──► how long: fetch, train, send ──► the first `goal` in time ──► train these
                  │ later, or never      │ vanished, went offline, too slow                 │
                  └──────────────────────┴──► Dropout                       next ones for those that
                                                                            fail while they train

Nobody waits for anything: only clients that count are trained, and the clock is set forward. It is
part of the state between two rounds, so that a run that was written down goes on at the same time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from hansa.core.arrival import Flights
from hansa.core.contribute import Purpose, RoundTask
from hansa.core.keys import ReplayKey
from hansa.core.parts import Context, Course, Dropout, Model, Partial, Split
from hansa.core.round import Engine
from hansa.devices.fleet import OFFLINE, Devices, Outcome, Work
from hansa.engines.goal import NOT_NEEDED, goal_of, too_late
from hansa.stages.mask import mask_of

MEASURING = 1 / 3
"""Measuring an example costs a forward pass, training on it about three times as much."""

Data = Callable[[str], Split]


@dataclass(frozen=True, slots=True)
class Predictor:
    """What a round costs a client, from the plan and the number of its examples.

    Attributes:
      model: the mathematics of the task.
      data: a client's own examples, by the client's name.
      key: what the devices' nature and luck derive from.
      devices: the devices.
    """

    model: Model
    data: Data
    key: ReplayKey
    devices: Devices

    def outcome(self, task: RoundTask, client: str, at: float) -> Outcome:
        """What becomes of a round's work that a client is given at a moment."""
        name = f"{task.purpose.value}/{task.round}/{task.attempt}"
        return self.devices.outcome(client, at, self.work(task, client), self.key, name)

    def work(self, task: RoundTask, client: str) -> Work:
        """What there is to fetch, to compute and to send; a client without data computes nothing.

        What is wrong with a client's data shows when it is trained; here it counts as none.
        """
        cost, layout = task.plan.cost, task.plan.layout
        up_bytes = cost.up_bytes * task.layout.size // max(layout.size, 1)
        try:
            split = self.data(client)
            examples = len(split.test) * MEASURING if task.measured else 0.0
            if task.purpose is Purpose.TRAIN and len(split.train):
                examples += self._passes(task, client, len(split.train))
        except Exception:  # noqa: BLE001  # the engine that trains the client says what is wrong
            examples = 0.0
        return Work(cost.down_bytes, examples, up_bytes)

    def _passes(self, task: RoundTask, client: str, examples: int) -> int:
        """How many examples the client's batches hold together."""
        key = task.key.derive("round", task.round, task.purpose.value, "client", client)
        ctx = Context(client, task.round, key, self.model, None, task.clip, examples)
        work = task.plan.parts.algorithm.work
        return sum(len(batch) for batch in work.batches(examples, ctx))


@dataclass(slots=True)
class TimedEngine:
    """Rounds as a coordinator over real devices would close them.

    | what happens                                  | result                                   |
    |-----------------------------------------------|------------------------------------------|
    | all updates arrive before the deadline        | the round lasts until the last one       |
    | more were asked than are needed               | until the last that is needed; the rest  |
    |                                               | are dropouts                             |
    | somebody never answers                        | until the deadline, or the goal          |
    | a client fails while it trains                | a dropout; the next one in time counts   |

    Attributes:
      inner: what trains the clients.
      predictor: what their work costs on their devices.
    """

    inner: Engine
    predictor: Predictor

    @property
    def real(self) -> bool:
        """False: devices are imagined here."""
        return False

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout | Course]:
        """Trains those of the cohort who are in time.

        Raises:
          HansaError: as the inner engine.
        """
        before = task.flights or Flights()
        began, seconds = before.now, task.plan.job.rounds.deadline
        outcomes = [self.predictor.outcome(task, client, began) for client in cohort]
        answers, silent = _in_time(outcomes, began + seconds)
        goal, counted, taken = goal_of(task, cohort), 0, 0
        given = replace(task, flights=None)  # the clock is nothing to those who train
        while counted < goal and taken < len(answers):
            batch = answers[taken : taken + goal - counted]
            taken += len(batch)
            chosen = {outcome.client for outcome in batch}
            async for item in self.inner.gather(given, [c for c in cohort if c in chosen]):
                if isinstance(item, Partial):
                    counted += len(item.members)
                yield item
            if mask_of(task.plan) is not None:
                break  # a masked sum is over when it is revealed
        waited = counted < goal and silent
        took = seconds if waited else (answers[taken - 1].ends - began if taken else 0.0)
        now = began + took
        for outcome in answers[taken:]:
            yield Dropout(outcome.client, NOT_NEEDED)
        for outcome in silent:
            reason = _happened(outcome, now) or (too_late(seconds) if waited else NOT_NEEDED)
            yield Dropout(outcome.client, reason)
        yield Course(seconds=took, flights=replace(before, now=now))


def _happened(outcome: Outcome, now: float) -> str:
    """Why no update comes of somebody, as far as it has happened; an empty text if it works."""
    if outcome.starts > now:
        return OFFLINE
    return outcome.failure if outcome.ends <= now else ""


def _in_time(outcomes: Sequence[Outcome], deadline: float) -> tuple[list[Outcome], list[Outcome]]:
    """Those whose updates arrive before the deadline, the first one first, and all others."""
    answers = [o for o in outcomes if not o.failure and o.ends <= deadline]
    silent = [o for o in outcomes if o.failure or o.ends > deadline]
    return sorted(answers, key=lambda o: (o.ends, o.client)), silent
