"""The memory of rounds of a run that ends with its process."""

from __future__ import annotations

from dataclasses import dataclass, field

from hansa.core.contribute import Purpose
from hansa.core.round import Opening, RoundRecord, TrainState


@dataclass(slots=True)
class MemoryJournal:
    """Keeps what a durable journal keeps, for simulation and tests.

    Attributes:
      records: of all rounds that were closed, in order.
      state: what the next round starts from; None before the first round was closed.
    """

    records: list[RoundRecord] = field(default_factory=list)
    state: TrainState | None = None
    _opened: dict[tuple[Purpose, int, int], Opening] = field(default_factory=dict)

    async def open(self, opening: Opening) -> Opening:
        """Begins a round; an attempt that was begun before goes on with its cohort."""
        return self._opened.setdefault((opening.purpose, opening.round, opening.attempt), opening)

    async def close(self, record: RoundRecord, state: TrainState) -> TrainState:
        """Ends a round."""
        self.records.append(record)
        self.state = state
        return state
