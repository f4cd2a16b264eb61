"""What sites had begun before this process asked anybody: by their first words and the store.

    site attends: "I go on with round 3" ──► was opened before this process? its model still there?
                                             yes: at work already, and not asked anew

Nobody need believe a site: whoever says that it began an older round than it did has an update that
counts for less, and a place among those at work, as if it had been asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.roster import Roster, Start
from hansa.coordinator.store import Store
from hansa.core.arrival import Buffer
from hansa.core.contribute import RoundTask
from hansa.errors import StoreError


@dataclass(slots=True)
class Begun:
    """The work of one job that goes on since an earlier process.

    Attributes:
      job: identifier of the job.
      buffer: its words.
      roster: who attends, and what they said.
      store: which rounds there were.
      blobs: where models are.
    """

    job: str
    buffer: Buffer
    roster: Roster
    store: Store
    blobs: Blobs
    _models: Mapping[Start, str] = field(default_factory=dict, repr=False)

    async def load(self, first: Start) -> None:
        """Looks up what an earlier process can have asked: rounds up to the first of this one."""
        models = await asyncio.to_thread(self.store.begun_with, self.job)
        self._models = {start: model for start, model in models.items() if start <= first}

    def of(self, site: str, task: RoundTask) -> RoundTask | None:
        """What a site goes on with in a round; None if it is to be asked.

        | what the site said                         | result                              |
        |--------------------------------------------|-------------------------------------|
        | nothing, or something before it came back  | None                                |
        | a round that was opened by this process    | None: it was told to stop, or is    |
        |                                            | asked again                         |
        | a round that was never opened              | None                                |
        | one that is older than may be              | None                                |
        | one whose model was tidied away            | None: it could not be told again    |
        | any other round of an earlier process      | that round                          |
        """
        start = self.roster.begun(site, self.job)
        model = None if start is None else self._models.get(start)
        if start is None or model is None or self.buffer.too_old(task.round - start[0]):
            return None
        try:
            self.blobs.path(model)
        except StoreError:
            return None
        return replace(task, round=start[0], attempt=start[1], model=model)
