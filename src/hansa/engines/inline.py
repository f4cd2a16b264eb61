"""The inline engine: clients one after the other, in this process; the plainest of all engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial as call

from hansa.aggregators.grouped import SUM
from hansa.core.contribute import Contribution, Fold, RoundTask, contribute
from hansa.core.parts import Dropout, Model, Partial, Split, Update
from hansa.core.vector import Vector
from hansa.engines.masking import groups_of, revealed, session_of
from hansa.engines.reasons import reason_of, told
from hansa.errors import ClientFailed, HansaError, RoundVoid, UpdateRejected
from hansa.secagg.client import client_flow
from hansa.secagg.drive import turns
from hansa.secagg.local import LocalMembers
from hansa.secagg.server import server_flow
from hansa.stages.mask import Mask, mask_of


@dataclass(frozen=True, slots=True)
class InlineEngine:
    """Runs the clients of a simulation in a loop and yields one partial sum a round.

    | client                                | normally                    | debug             |
    |---------------------------------------|-----------------------------|-------------------|
    | sends a good update                   | counted                     | counted           |
    | sends an update that is rejected      | Dropout with the reason     | the same          |
    | raises, in its data or its training   | Dropout, the type's name    | ClientFailed      |
    | refuses by an error of Hansa          | Dropout with the reason     | ClientFailed      |

    What a task raises may quote data, so it is shown in debug mode only.

    Attributes:
      model: the mathematics of the task.
      data: a client's own examples, by the client's name.
      debug: stop at the first client that raises, and say how to repeat it.
      masked: lead the whole protocol where the plan hides updates. Masks cancel exactly, so
        without them the sum is the same, and a large cohort is simulated faster.
      members: the clients' keys for it.
      contribution: what a client does in a round; attacks are something else than `contribute`.
    """

    model: Model
    data: Callable[[str], Split]
    debug: bool = False
    masked: bool = True
    members: LocalMembers = field(default_factory=LocalMembers)
    contribution: Contribution = contribute

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
        mask = mask_of(task.plan)
        for group in [cohort] if mask is None else groups_of(task, mask, cohort):
            going = (
                self._under_masks(task, group, mask)
                if mask is not None and self.masked
                else self._in_the_open(task, group)
            )
            async for item in going:
                yield item

    async def _in_the_open(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Folds one update after the other."""
        fold, mask = Fold.of(task), mask_of(task.plan)
        if mask is not None:
            fold = replace(fold, aggregator=SUM)
        partial = fold.zero()
        for client in cohort:
            await asyncio.sleep(0)  # lets the loop cancel between two clients
            try:
                partial = fold.add(partial, client, self._update(task, client))
            except UpdateRejected as error:
                yield Dropout(client, error.message, refused=True)
            except ClientFailed as error:
                if self.debug:
                    raise
                yield Dropout(client, told(error.__cause__))
        if mask is not None:
            partial = revealed(task.plan, partial.value, partial.members)
        yield partial

    async def _under_masks(
        self, task: RoundTask, cohort: Sequence[str], mask: Mask
    ) -> AsyncIterator[Partial | Dropout]:
        """The same through secure aggregation; a client trains when its masked update is due."""
        session = session_of(
            task.plan,
            mask,
            task.purpose,
            (task.round, task.attempt),
            task.model,
            federation="simulation",
            job=task.plan.job.name,
            clip=task.clip,
        )
        clients = {
            client: client_flow(
                session,
                self.members.member(client),
                call(self._ring_vector, task, client),
            )
            for client in cohort
        }
        reasons: dict[str, HansaError] = {}

        def refused(client: str, error: HansaError) -> None:
            reasons.setdefault(client, error)

        going = turns(server_flow(session, cohort, self.members), clients, refused)
        total, why = None, "took no part in the sum"
        try:
            while True:
                next(going)
                await asyncio.sleep(0)
        except StopIteration as end:
            total = end.value
        except RoundVoid as void:
            why = void.message
        members = total.members if total is not None else ()
        for client in cohort:
            reason = reasons.get(client)
            if self.debug and isinstance(reason, ClientFailed):
                raise reason
            if client not in members:
                yield Dropout(client, reason_of(reason, why))
        if total is not None:
            yield revealed(task.plan, total.vector, total.members)

    def _ring_vector(self, task: RoundTask, client: str) -> Vector:
        return self._update(task, client).vector

    def _update(self, task: RoundTask, client: str) -> Update:
        """One client's update.

        Raises:
          ClientFailed: anything went wrong on the client's side.
        """
        again: Callable[[], object] = call(self.data, client)
        try:
            split = self.data(client)
            again = call(self.contribution, task, client, self.model, split)
            return self.contribution(task, client, self.model, split)
        except Exception as error:
            job = task.plan.job
            raise ClientFailed(
                f"client '{client}' raised {type(error).__name__} in round {task.round} "
                f"({task.purpose.value}): {error}",
                fix="repeat exactly this with the error's again(), or from the start with "
                f"simulate(job, seed={job.seed}, rounds={task.round + 1}, debug=True)",
                again=again,
            ) from error
