"""Which open round takes which delivery, and who was counted in the rounds before."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hansa.coordinator.conversation import Conversation
from hansa.coordinator.intake import Intake, check_same
from hansa.coordinator.rows import JobRow
from hansa.coordinator.store import Store
from hansa.coordinator.submission import arrives
from hansa.core.contribute import Purpose
from hansa.core.round import Opening
from hansa.errors import HansaError, RoundVoid, Unavailable

if TYPE_CHECKING:
    from hansa.coordinator.stream import Stream

_Kept = TypeVar("_Kept")

REMEMBERED = 64
"""Closed rounds whose updates' hashes are kept in memory; older ones are in the store."""


@dataclass(frozen=True, slots=True)
class RoundKey:
    """The name of one try at one round of one job."""

    job: str
    purpose: Purpose
    round: int
    attempt: int

    @classmethod
    def of(cls, job: str, opening: Opening) -> RoundKey:
        """The name of an opened round."""
        return cls(job, opening.purpose, opening.round, opening.attempt)


class Desk:
    """The open rounds by name; at most one per job."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._talks: dict[RoundKey, list[Conversation]] = {}
        self._open: dict[RoundKey, list[Intake]] = {}
        self._closing: dict[RoundKey, list[Intake]] = {}
        self._closed: OrderedDict[RoundKey, dict[str, str]] = OrderedDict()
        self._streams: dict[str, Stream] = {}

    @contextmanager
    def streaming(self, stream: Stream) -> Iterator[None]:
        """Directs all updates of a job's training to its stream, whatever round they are of."""
        self._streams[stream.job] = stream
        try:
            yield
        finally:
            del self._streams[stream.job]

    def stream(self, key: RoundKey) -> Stream | None:
        """The stream for the updates of a round; None if each round takes its own."""
        return self._streams.get(key.job) if key.purpose is Purpose.TRAIN else None

    @contextmanager
    def taking(self, intake: Intake) -> Iterator[None]:
        """Directs deliveries of an intake's cohort to it for the time of its round.

        A round has several where groups of clients are summed by themselves.
        """
        key = RoundKey.of(intake.job, intake.opening)
        self._open.setdefault(key, []).append(intake)
        try:
            yield
        finally:
            _drop(self._open, key, intake)
            self._closing.setdefault(key, []).append(intake)

    @contextmanager
    def talking(self, key: RoundKey, talk: Conversation) -> Iterator[None]:
        """Directs what sites say in a masked round to their conversation."""
        self._talks.setdefault(key, []).append(talk)
        try:
            yield
        finally:
            _drop(self._talks, key, talk)

    def talk(self, key: RoundKey, site: str) -> Conversation | None:
        """The conversation of a masked round that a site takes part in."""
        return next((talk for talk in self._talks.get(key, ()) if site in talk.sites), None)

    def spoil(self, key: RoundKey, sites: frozenset[str], error: HansaError) -> None:
        """What was taken in from these sites will not count: who waits for a receipt is told."""
        for intake in tuple(self._closing.get(key, ())):
            if sites.issuperset(intake.opening.cohort):
                _drop(self._closing, key, intake)
                intake.give_up(error)

    def answer(self, key: RoundKey) -> None:
        """A round is closed durably: its members get their receipts, now and when they ask."""
        hashes = self.receipts(key)
        for intake in self._closing.pop(key, ()):
            intake.answer()
        if not hashes:
            return
        self._closed[key] = hashes
        while len(self._closed) > REMEMBERED:
            self._closed.popitem(last=False)

    def receipts(self, key: RoundKey) -> dict[str, str]:
        """SHA-256 of each update that counts in a round that is about to be closed."""
        return {
            site: sha256
            for intake in self._closing.get(key, ())
            for site, sha256 in intake.hashes.items()
        }

    def find(self, key: RoundKey, site: str = "") -> Intake | None:
        """The intake for a site's update in a round that is not closed yet; any, to refuse it."""
        intakes = [*self._open.get(key, ()), *self._closing.get(key, ())]
        theirs = [intake for intake in intakes if site in intake.opening.cohort]
        return next(iter([*theirs, *intakes]), None)

    def abandon(self, job: str, error: HansaError) -> None:
        """A job has ended with a round that will never be closed: who waits for it is told."""
        for key in [key for key in self._closing if key.job == job]:
            for intake in self._closing.pop(key):
                intake.give_up(error)

    async def check_counted(self, key: RoundKey, site: str, plan: str, sha256: str) -> None:
        """Returns if exactly this update of the site, for this plan, is in a round that is over.

        Raises:
          RoundVoid: it is not.
          Unavailable: the round is open, but a coordinator that has just started has not taken it
            up yet.
        """
        known = self._closed.get(key)
        counted = known.get(site) if known else None
        if counted is None:
            counted = await asyncio.to_thread(self._look_up, key, site)
        if counted is None:
            raise RoundVoid(
                "the round is over or unknown", fix="drop the update and wait for the next round"
            )
        check_same(site, sha256, counted)
        if plan != (await asyncio.to_thread(self._store.job, key.job)).plan_digest:
            raise RoundVoid(
                f"the update of '{site}' was counted for another plan",
                fix="ask for the receipt of the plan that the update was made for",
            )

    def _look_up(self, key: RoundKey, site: str) -> str | None:
        """SHA-256 of the site's update in the result of a round; None if it has none."""
        job = self._arriving(key)
        if job is not None:
            counted = self._store.counted_since(key.job, site, key.round, key.attempt)
            if counted is None and not job.status.final:
                raise Unavailable(
                    "the job goes on in a moment", fix="deliver the update again then"
                )
            return counted
        opening = Opening(key.purpose, key.round, key.attempt, (), "")
        fold = self._store.folded(key.job, opening)
        known = dict(zip(fold.members, fold.receipts, strict=True)) if fold is not None else {}
        if site in known:
            return known[site]
        current = self._store.current_round(key.job)
        if current is not None and RoundKey.of(key.job, current.opening) == key:
            raise Unavailable("the round goes on in a moment", fix="deliver the update again then")
        return None

    def _arriving(self, key: RoundKey) -> JobRow | None:
        """The job, if its updates of training count in whichever round they arrive."""
        if key.purpose is not Purpose.TRAIN:
            return None
        return next((j for j in self._store.jobs() if j.id == key.job and arrives(j)), None)


def _drop(where: dict[RoundKey, list[_Kept]], key: RoundKey, one: _Kept) -> None:
    """Takes one of a round's away; the last one takes the round with it."""
    where[key].remove(one)
    if not where[key]:
        del where[key]
