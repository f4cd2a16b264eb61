"""What the standing of clients would make of a run that is attacked; it changes nothing in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from hansa.aggregators.robust.distances import products
from hansa.aggregators.robust.kept import Rows
from hansa.core.contribute import Purpose, RoundTask
from hansa.core.parts import Course, Dropout, Partial
from hansa.core.round import Engine
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
        """Passes everything on, and looks at the rows of a training round."""
        names, rows = [], []
        async for item in self.inner.gather(task, cohort):
            if isinstance(item, Partial) and isinstance(item.value, Rows):
                self.seen = True
                for name, row in item.value.deltas:
                    names.append(name)
                    rows.append(row)
            yield item
        if rows and task.purpose is Purpose.TRAIN:
            scores = scores_of(names, products(rows, 1))
            self.standings, _ = self.standings.observe(task.round, scores)

    @property
    def quarantined(self) -> frozenset[str] | None:
        """Who would not count at the end; None if nothing could be seen."""
        return self.standings.quarantined if self.seen else None
