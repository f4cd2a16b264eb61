"""From the reports of several processes to what an engine yields: one sum for each, or each group.

Where the plan hides updates, clients are summed by groups, whoever trained them; else each process
sends one sum, and the round adds them up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hansa.aggregators.grouped import SUM
from hansa.core.contribute import Fold, RoundTask
from hansa.core.parts import Dropout, Partial
from hansa.engines.masking import groups_of, revealed
from hansa.engines.workers_messages import Report
from hansa.stages.mask import mask_of

Placed: TypeAlias = tuple[int, str]
"""The number of a client's group, and the client."""

Reports: TypeAlias = Callable[[list[Placed], bool], AsyncIterator[Report]]
"""Trains these clients, whose updates may be ring vectors that masks would hide."""


async def summed(
    task: RoundTask, cohort: Sequence[str], reports: Reports
) -> AsyncIterator[Partial | Dropout]:
    """All sums of a round, then who dropped out, in the order of the cohort.

    Args:
      task: the round.
      cohort: who is to be trained.
      reports: what does it.
    """
    mask = mask_of(task.plan)
    groups = [tuple(cohort)] if mask is None else groups_of(task, mask, cohort)
    placed = [(number, client) for number, group in enumerate(groups) for client in group]
    sums = None if mask is None else _Sums.of(task, len(groups))
    dropouts: dict[str, Dropout] = {}
    async for report in reports(placed, mask is not None):
        dropouts.update((dropout.client, dropout) for dropout in report.dropouts)
        for number, partial in report.partials.items():
            if sums is None:
                yield partial
            else:
                sums.add(number, partial)
    for client in cohort:
        if client in dropouts:
            yield dropouts[client]
    for partial in sums.parts if sums is not None else ():
        yield revealed(task.plan, partial.value, partial.members)


def without_done(placed: list[Placed], report: Report) -> list[Placed]:
    """Those of whom a report says nothing yet."""
    done = {dropout.client for dropout in report.dropouts}
    done.update(member for partial in report.partials.values() for member in partial.members)
    return [each for each in placed if each[1] not in done]


@dataclass(slots=True)
class _Sums:
    """The sum of each group, where the plan hides single updates."""

    fold: Fold
    parts: list[Partial]

    @classmethod
    def of(cls, task: RoundTask, groups: int) -> _Sums:
        """Nothing yet."""
        of = Fold.of(task)
        fold = Fold(SUM, of.layout, of.facts, of.plan)
        return cls(fold, [fold.zero() for _ in range(groups)])

    def add(self, number: int, partial: Partial) -> None:
        """Adds what one process made of a group; `partial` is consumed."""
        self.parts[number] = self.fold.aggregator.merge(self.parts[number], partial)
