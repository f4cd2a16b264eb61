"""The inline engine: clients one after the other, in this process; the plainest of all engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial as call

from hansa.core.contribute import Fold, RoundTask, contribute
from hansa.core.parts import Dropout, Model, Partial, Split, Update
from hansa.errors import ClientFailed, UpdateRejected


@dataclass(frozen=True, slots=True)
class InlineEngine:
    """Runs the clients of a simulation in a loop and yields one partial sum a round.

    | client                                | normally                    | debug             |
    |---------------------------------------|-----------------------------|-------------------|
    | sends a good update                   | counted                     | counted           |
    | sends an update that is rejected      | Dropout with the reason     | the same          |
    | raises, in its data or its training   | Dropout, the type's name    | ClientFailed      |

    What a task raises may quote data, so it is shown in debug mode only.

    Attributes:
      model: the mathematics of the task.
      data: a client's own examples, by the client's name.
      debug: stop at the first client that raises, and say how to repeat it.
    """

    model: Model
    data: Callable[[str], Split]
    debug: bool = False

    @property
    def real(self) -> bool:
        """False: all clients are this process."""
        return False

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Trains the clients in the cohort's order.

        Raises:
          ClientFailed: in debug mode, a client raised; the cause is chained.
        """
        fold = Fold.of(task)
        partial = fold.zero()
        for client in cohort:
            await asyncio.sleep(0)  # lets the loop cancel between two clients
            try:
                partial = fold.add(partial, client, self._update(task, client))
            except UpdateRejected as error:
                yield Dropout(client, error.message)
            except ClientFailed as error:
                if self.debug:
                    raise
                yield Dropout(client, type(error.__cause__).__name__)
        yield partial

    def _update(self, task: RoundTask, client: str) -> Update:
        """One client's update.

        Raises:
          ClientFailed: anything went wrong on the client's side.
        """
        again: Callable[[], object] = call(self.data, client)
        try:
            split = self.data(client)
            again = call(contribute, task, client, self.model, split)
            return contribute(task, client, self.model, split)
        except Exception as error:
            job = task.plan.job
            raise ClientFailed(
                f"client '{client}' raised {type(error).__name__} in round {task.round} "
                f"({task.purpose.value}): {error}",
                fix="repeat exactly this with the error's again(), or from the start with "
                f"simulate(job, seed={job.seed}, rounds={task.round + 1}, debug=True)",
                again=again,
            ) from error
