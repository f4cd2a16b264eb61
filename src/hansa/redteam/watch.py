"""What the standing of clients would make of a run that is attacked; it changes nothing in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np

from hansa.core.contribute import Purpose, RoundTask
from hansa.core.parts import Course, Dropout, Partial
from hansa.core.round import Engine
from hansa.core.standing import Compares, Likeness
from hansa.defend import Standings, scores_of


@dataclass(slots=True)
class WatchingEngine:
    """An engine whose rounds are scored, where the rule keeps single updates.

    Attributes:
      inner: what runs the clients.
      standings: who would count with what weight.
      seen: whether any round could be scored; a sum shows no single update.
    """

    inner: Engine
    standings: Standings
    seen: bool = False

    @property
    def real(self) -> bool:
        """Whether the clients are other parties."""
        return self.inner.real

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout | Course]:
        """Passes everything on, and looks at the updates of a training round."""
        aggregator, refused = task.plan.parts.aggregator, []
        looks = task.purpose is Purpose.TRAIN and isinstance(aggregator, Compares)
        likeness = Likeness((), np.zeros((0, 0)))
        async for item in self.inner.gather(task, cohort):
            if isinstance(item, Dropout) and item.refused:
                refused.append(item.client)
            if looks and isinstance(item, Partial) and isinstance(aggregator, Compares):
                likeness = aggregator.likeness(item)  # the inline engine yields one
            yield item
        if looks:
            self.seen = True
            scores = scores_of(likeness.clients, likeness.products, refused)
            self.standings, _ = self.standings.observe(task.round, scores)

    @property
    def quarantined(self) -> frozenset[str] | None:
        """Who would not count at the end; None if nothing could be seen."""
        return self.standings.quarantined if self.seen else None
