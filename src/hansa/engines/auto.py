"""Picks the engine while the job runs: inline, until workers are sure to save more than they cost.

The first clients run inline and are timed. If the rest would take long, workers are started, and
clients go on inline until they are ready, so that starting them costs next to nothing. All engines
give the same bits, so the choice may follow from the clock.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from hansa.core.contribute import RoundTask
from hansa.core.parts import Dropout, Partial
from hansa.engines.inline import InlineEngine
from hansa.engines.workers import WorkersEngine
from hansa.errors import HansaError
from hansa.stages.mask import mask_of

START_SECONDS = 4.0
"""What starting workers may cost: processes, libraries, the task, examples read once more."""

ROUND_SECONDS = 0.004
"""What workers cost in each round beside the clients' time."""

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


def saved(seconds: float, ahead: Ahead, workers: int) -> float:
    """Seconds that workers save, given those of one client; negative if they cost more."""
    alone = seconds * ahead.clients
    together = alone / workers + ahead.rounds * ROUND_SECONDS
    return alone - together - START_SECONDS


@dataclass(slots=True)
class AutoEngine:
    """Inline at first, then workers where they pay.

    Attributes:
      inline: the one engine.
      workers: the other; it is started when it is needed.
      clock: seconds, of any origin.
      because: the choice so far, in words.
    """

    inline: InlineEngine
    workers: WorkersEngine
    clock: Clock = time.perf_counter
    because: str = _UNTIMED
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
        return "workers" if self._started else "inline"

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
            async for item in self.inline.gather(task, piece):
                yield item
            self._note(size, self.clock() - started)
            self._choose(task, len(left))

    def _give_up(self, why: str) -> None:
        """Goes on inline for good: what this machine or this task does not let workers do."""
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

    def _choose(self, task: RoundTask, left: int) -> None:
        """Starts workers if they save more than they cost."""
        if self._started or self._refused or self._timed < _PROBED:
            return
        rounds = max(0, task.plan.job.rounds.count - task.round - 1) + task.plan.measures
        ahead = Ahead(left + rounds * task.plan.parts.sampler.expected, rounds + 1)
        gain = saved(self._seconds, ahead, self.workers.number)
        told = f"a client takes {self._seconds:.2g} s and about {ahead.clients:,.0f} are left"
        if gain > 0:
            self._started = True
            self.because = f"{told}, which {self.workers.number} processes do sooner"
            try:
                self.workers.start()
            except OSError as error:
                self._give_up(f"they cannot be started: {error.strerror}")
        elif self.because == _UNTIMED:
            self.because = f"{told}, which more processes would not do sooner"
