"""Picks the engine while the job runs: inline, until another is sure to save more than it costs.

| engine         | clients are trained              | costs beside the clients' time              |
|----------------|----------------------------------|---------------------------------------------|
| inline         | one after the other              | nothing                                     |
| vector         | in stacks, in this process       | about a second, to find out whether and how |
| workers        | one after the other in processes | their start, and some time in each round    |
| workers+vector | in stacks in processes           | both                                        |

The first clients run inline and are timed. If the rest would take long, it is tried how long stacks
take (`hansa.engines.stacking`), and workers are started where they pay. Clients go on in this
process until the workers are ready, so that starting them costs next to nothing. Stacks give the
parameters of the other engines to about 1e-4; without them all give the same bits.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from hansa.core.contribute import Purpose, RoundTask
from hansa.core.parts import Dropout, Partial
from hansa.engines.inline import InlineEngine
from hansa.engines.stacking import Stacking, decide, first_examples
from hansa.engines.vector import VectorEngine
from hansa.engines.workers import WorkersEngine
from hansa.errors import HansaError
from hansa.stages.mask import mask_of

START_SECONDS = 4.0
"""What starting workers may cost: processes, libraries, the task, examples read once more."""

ROUND_SECONDS = 0.004
"""What workers cost in each round beside the clients' time."""

TRY_SECONDS = 2.0
"""What it may cost to find out about stacks; a job that is shorter than twice that has none."""

MOST_GAIN = 20.0
"""More than stacks gain: workers that would pay even then are started before stacks are tried."""

_UNTIMED = "nothing was timed yet"
_PROBED = 3
_PIECE_SECONDS = 0.25

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is left of a job.

    Attributes:
      clients: expected number of clients that are still to be trained.
      rounds: in how many rounds.
    """

    clients: float
    rounds: int


def estimates(seconds: float, ahead: Ahead, workers: int, gain: float = 1.0) -> dict[str, float]:
    """Seconds that each engine would still take.

    Args:
      seconds: of one client, inline.
      ahead: what is left.
      workers: how many processes there would be.
      gain: how many times less a client takes in a stack; 1 if there are no stacks.
    """
    alone = seconds * ahead.clients
    more = START_SECONDS + ahead.rounds * ROUND_SECONDS
    found = {"inline": alone, "workers": alone / workers + more}
    if gain > 1:
        found |= {"vector": alone / gain, "workers+vector": alone / gain / workers + more}
    return found


def quickest(found: dict[str, float]) -> str:
    """The engine that takes least time; of equal ones the plainest."""
    return min(found, key=lambda name: found[name])


@dataclass(slots=True)
class AutoEngine:
    """Inline at first, then what is sooner.

    Attributes:
      inline: the plain engine.
      workers: the processes; they are started when they are needed.
      clock: seconds, of any origin.
      because: the choice so far, in words.
    """

    inline: InlineEngine
    workers: WorkersEngine
    clock: Clock = time.perf_counter
    because: str = _UNTIMED
    _here: InlineEngine | VectorEngine | None = field(default=None, repr=False)
    _stacking: Stacking | None = None
    _started: bool = False
    _seconds: float = 0.0
    _timed: int = 0
    _refused: bool = False

    @property
    def real(self) -> bool:
        """False: all clients are this machine."""
        return False

    @property
    def name(self) -> str:
        """The engine that was chosen."""
        if self._started:
            return "workers+vector" if self._stacks else "workers"
        return "vector" if self._stacks else "inline"

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Trains the clients with the engine of the moment; it may change between two clients.

        Raises:
          HansaError: as the engines.
        """
        left = tuple(cohort)
        # Groups are drawn from a whole cohort, so where there are masks it stays together.
        together = mask_of(task.plan) is not None
        while left:
            if self._started and self.workers.ready():
                given = False
                try:
                    async for item in self.workers.gather(task, left):
                        given = True
                        yield item
                except HansaError as error:
                    if given:
                        raise
                    self._give_up(error.message)
                    continue
                return
            size = len(left) if together else self._piece(len(left))
            piece, left = left[:size], left[size:]
            started = self.clock()
            async for item in (self._here or self.inline).gather(task, piece):
                yield item
            self._note(size, self.clock() - started)
            if task.purpose is Purpose.TRAIN:
                self._choose(task, cohort, len(left))

    @property
    def _stacks(self) -> bool:
        return self._here is not None

    def _give_up(self, why: str) -> None:
        """Goes on here for good: what this machine or this task does not let workers do."""
        self._started, self._refused = False, True
        self.because = f"workers were tried, but {why}"

    def _piece(self, left: int) -> int:
        """How many clients to train before the next look: one, then a quarter of a second's."""
        if self._timed < _PROBED:
            return 1
        return max(1, min(left, int(_PIECE_SECONDS / max(self._seconds, 1e-6))))

    def _note(self, clients: int, seconds: float) -> None:
        """Keeps the mean time of a client; the very first one loads what all need, and is left."""
        self._timed += clients
        each = seconds / clients
        old = self._seconds if self._timed - clients > 1 else each
        self._seconds = old + (each - old) * min(1.0, clients / 8 if self._timed > 8 else 0.5)

    def _choose(self, task: RoundTask, cohort: Sequence[str], left: int) -> None:
        """Goes over to the engine that takes least time, if that is another one."""
        if self._started or self._timed < _PROBED:
            return
        rounds = max(0, task.plan.job.rounds.count - task.round - 1) + task.plan.measures
        ahead = Ahead(left + rounds * task.plan.parts.sampler.expected, rounds + 1)
        number = 1 if self._refused else self.workers.number
        told = f"a client takes {self._seconds:.2g} s and about {ahead.clients:,.0f} are left"
        if self._stacking is None and self._seconds * ahead.clients > 2 * TRY_SECONDS:
            sure = estimates(self._seconds, ahead, number, MOST_GAIN)
            if quickest(sure) == "workers+vector":
                self._start()  # they load the task while stacks are tried
            self._try(task, cohort)
        gain = self._stacking.gain if self._stacking is not None else 1.0
        inline = self._seconds * gain if self._stacks else self._seconds
        best = quickest(estimates(inline, ahead, number, gain))
        self._go_on(best, told, inline / gain)

    def _go_on(self, best: str, told: str, seconds: float) -> None:
        """With this engine, for these reasons."""
        how = "" if self._stacking is None else f"; {self._stacking.how}"
        if best.endswith("vector") and self._stacking is not None and not self._stacks:
            self._here = VectorEngine(self.inline.model, self.inline.data, stacking=self._stacking)
            self.workers.stack = self._stacking.size
            self._seconds = seconds
            self.because = f"{told}{how}"
        if best.startswith("workers") and not self._refused:
            self.because = f"{told}, which {self.workers.number} processes do sooner{how}"
            self._start()
        elif self._started:
            self.workers.close()
            self._started = False
        if self.because == _UNTIMED:
            self.because = f"{told}, which more processes would not do sooner{how}"

    def _start(self) -> None:
        if self._started or self._refused:
            return
        self._started = True
        try:
            self.workers.start()
        except OSError as error:
            self._give_up(f"they cannot be started: {error.strerror}")

    def _try(self, task: RoundTask, cohort: Sequence[str]) -> None:
        """Finds out about stacks, once."""
        examples = first_examples(cohort, self.inline.data)
        if examples is not None:
            most = -(-len(cohort) // self.workers.number)
            self._stacking = decide(self.inline.model, task, examples, most)
