"""The coordinator's memory of rounds: core.round.Journal over the store and the blobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.desk import RoundKey
from hansa.coordinator.rows import AcceptedRow, StateRow
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.parts import ServerOptimizer
from hansa.core.plan import Plan
from hansa.core.rollback import Accepted
from hansa.core.round import Opening, RoundRecord, TrainState
from hansa.core.vector import Vector, sha256
from hansa.defend.judge import Judge, Judged
from hansa.defend.standings import Standings
from hansa.errors import StoreError

AGAIN_SECONDS = 1.0
"""Time between two tries to make a result durable."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreJournal:
    """Rounds of one job, each step one transaction.

    Attributes:
      job: identifier of the job.
      store: where rows go.
      blobs: where vectors go, before the row that names them.
      clock: seconds since the epoch, for the rows' times.
      receipts: SHA-256 of each update that counts in a round, by its client.
      on_close: called after each durable close.
      on_standing: called with where clients stand after it, where they have a standing.
      patience: seconds for which a round that cannot be made durable waits.
    """

    job: str
    store: Store
    blobs: Blobs
    clock: Callable[[], float]
    receipts: Callable[[RoundKey], Mapping[str, str]]
    on_close: Callable[[RoundKey], None]
    on_standing: Callable[[Standings], None]
    patience: float

    async def open(self, opening: Opening) -> Opening:
        """Begins a round, or returns how it was begun before a restart."""
        return await asyncio.to_thread(self.store.open_round, self.job, opening, self.clock())

    async def close(self, record: RoundRecord, state: TrainState) -> TrainState:
        """Ends a round: first the vectors become durable, then the row that names them.

        The state that comes back reads its vectors from the blobs, so that between two rounds no
        model lies in memory. While the disk refuses, the round waits, and its sites for receipts.

        Raises:
          StoreError: the disk has refused for as long as a round may take.
        """
        key = RoundKey(self.job, record.purpose, record.round, record.attempt)
        row = await self._closed(record, state, self.receipts(key))
        self.on_close(key)
        after = _state_of(row, state.server, self.blobs, known=True)
        standing = await self._standing(state.standing)
        return replace(after, memory=state.memory, standing=standing)

    async def _standing(self, seen: Judged | None) -> Judged | None:
        """Where clients stand, also by what a person decided meanwhile."""
        if seen is None:
            return None
        most = seen.standings.most
        after = await asyncio.to_thread(self.store.standings, self.job, most)
        self.on_standing(after)
        return Judged(after)

    async def _closed(
        self, record: RoundRecord, state: TrainState, receipts: Mapping[str, str]
    ) -> StateRow:
        now = asyncio.get_running_loop().time
        ends = now() + self.patience
        while True:
            try:
                return await asyncio.to_thread(self._close, record, state, receipts)
            except StoreError as error:
                if now() + AGAIN_SECONDS > ends:
                    raise
                _log.error("the round waits, since its result is not durable yet: %s", error)
            await asyncio.sleep(AGAIN_SECONDS)

    def _close(
        self, record: RoundRecord, state: TrainState, receipts: Mapping[str, str]
    ) -> StateRow:
        row = StateRow(
            round=state.round,
            attempt=state.attempt,
            model_sha256=self.blobs.put(state.params.data, sha256=state.model),
            server_sha256s=self._put(state.server),
            best=state.best,
            stale=state.stale,
            clip=state.clip,
            accepted=self._accepted(state.accepted),
        )
        seen = state.standing if record.purpose is Purpose.TRAIN else None
        self.store.close_round(self.job, record, row, self.clock(), receipts, seen)
        return row

    def _accepted(self, accepted: Accepted | None) -> AcceptedRow | None:
        """The row of the accepted model; its blobs are there, and stay through the next sweep."""
        if accepted is None:
            return None
        model = self.blobs.put(accepted.params.data, sha256=accepted.model)
        return AcceptedRow(accepted.round, model, self._put(accepted.server), accepted.clip)

    def _put(self, vectors: tuple[Vector, ...]) -> tuple[str, ...]:
        return tuple(self.blobs.put(vector.data, sha256=sha256(vector)) for vector in vectors)


def remembered_standings(store: Store, job: str, plan: Plan) -> Standings | None:
    """Where the clients of a job stand; None where they have no standing."""
    judge = plan.parts.judge
    return store.standings(job, judge.most) if isinstance(judge, Judge) else None


def remembered_state(
    row: StateRow, plan: Plan, blobs: Blobs, standings: Standings | None = None
) -> TrainState:
    """The state that a row and its blobs hold, with where clients stand.

    Raises:
      StoreError: a blob is missing or damaged.
    """
    optimizer: ServerOptimizer[Any] = plan.parts.algorithm.server
    state = _state_of(row, optimizer.init(np.zeros(1, np.float32)), blobs, known=False)
    return state if standings is None else replace(state, standing=Judged(standings))


def _state_of(row: StateRow, like: tuple[Vector, ...], blobs: Blobs, *, known: bool) -> TrainState:
    def model(name: str) -> Vector:
        return blobs.mapped(name, np.dtype("<f4"), known=known)

    def server(names: tuple[str, ...]) -> tuple[Vector, ...]:
        return tuple(
            blobs.mapped(name, vector.dtype, known=known)
            for name, vector in zip(names, like, strict=True)
        )

    kept = row.accepted
    return TrainState(
        round=row.round,
        attempt=row.attempt,
        params=model(row.model_sha256),
        model=row.model_sha256,
        server=server(row.server_sha256s),
        best=row.best,
        stale=row.stale,
        clip=row.clip,
        accepted=None
        if kept is None
        else Accepted(
            kept.round,
            model(kept.model_sha256),
            kept.model_sha256,
            server(kept.server_sha256s),
            kept.clip,
        ),
    )
