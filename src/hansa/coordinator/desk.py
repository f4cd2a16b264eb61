"""Which open round takes which delivery, and who was counted in the rounds before."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hansa.coordinator.conversation import Conversation
from hansa.coordinator.intake import Intake, check_same
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.round import Opening
from hansa.errors import HansaError, RoundVoid, Unavailable

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
        self._talks: dict[RoundKey, Conversation] = {}
        self._open: dict[RoundKey, Intake] = {}
        self._closing: dict[RoundKey, Intake] = {}
        self._closed: OrderedDict[RoundKey, dict[str, str]] = OrderedDict()

    @contextmanager
    def taking(self, intake: Intake) -> Iterator[None]:
        """Directs deliveries to an intake for the time of its round."""
        key = RoundKey.of(intake.job, intake.opening)
        self._open[key] = intake
        try:
            yield
        finally:
            del self._open[key]
            self._closing[key] = intake

    @contextmanager
    def talking(self, key: RoundKey, talk: Conversation) -> Iterator[None]:
        """Directs what sites say in a masked round to its conversation."""
        self._talks[key] = talk
        try:
            yield
        finally:
            del self._talks[key]

    def talk(self, key: RoundKey) -> Conversation | None:
        """The conversation of a masked round that is under way."""
        return self._talks.get(key)

    def spoil(self, key: RoundKey, error: HansaError) -> None:
        """Updates of a round that were taken in will not count: who waits for a receipt is told."""
        intake = self._closing.pop(key, None)
        if intake is not None:
            intake.give_up(error)

    def answer(self, key: RoundKey) -> None:
        """A round is closed durably: its members get their receipts, now and when they ask."""
        intake = self._closing.pop(key, None)
        if intake is None:
            return
        intake.answer()
        self._closed[key] = intake.hashes
        while len(self._closed) > REMEMBERED:
            self._closed.popitem(last=False)

    def receipts(self, key: RoundKey) -> dict[str, str]:
        """SHA-256 of each update that counts in a round that is about to be closed."""
        intake = self._closing.get(key)
        return {} if intake is None else intake.hashes

    def find(self, key: RoundKey) -> Intake | None:
        """The intake of a round that is not closed yet."""
        return self._open.get(key) or self._closing.get(key)

    def abandon(self, job: str, error: HansaError) -> None:
        """A job has ended with a round that will never be closed: who waits for it is told."""
        for key in [key for key in self._closing if key.job == job]:
            self._closing.pop(key).give_up(error)

    async def check_counted(self, key: RoundKey, site: str, plan: str, sha256: str) -> None:
        """Returns if exactly this update of the site, for this plan, is in a round that is over.

        Raises:
          RoundVoid: it is not.
          Unavailable: the round is open, but a coordinator that has just started has not taken it
            up yet.
        """
        known = self._closed.get(key)
        counted = known.get(site) if known else await asyncio.to_thread(self._look_up, key, site)
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
        opening = Opening(key.purpose, key.round, key.attempt, (), "")
        fold = self._store.folded(key.job, opening)
        known = dict(zip(fold.members, fold.receipts, strict=True)) if fold is not None else {}
        if site in known:
            return known[site]
        current = self._store.current_round(key.job)
        if current is not None and RoundKey.of(key.job, current.opening) == key:
            raise Unavailable("the round goes on in a moment", fix="deliver the update again then")
        return None
