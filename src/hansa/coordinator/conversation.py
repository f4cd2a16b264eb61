"""The small messages of one masked round: each step is said to every site and heard from each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from hansa.errors import HansaError
from hansa.secagg.messages import Message
from hansa.secagg.server import Ask
from hansa.wire.secagg import read_reply
from hansa.wire.v1 import sites_pb2 as pb

ABSENT = 5.0
"""Seconds after which a site that does not attend is not waited for, once a step is under way."""

GRACE = 1.0
"""Seconds that are waited for more replies than are needed."""

LOOK = 0.25
"""Seconds between two looks at who attends."""

_log = logging.getLogger(__name__)


class Conversation:
    """One masked round, as its sites hear and speak of it.

    Args:
      nonce: of the session; what is said of another one is not meant for this one.
      present: who attends right now.
      sites: whom it is with.
    """

    def __init__(
        self, nonce: bytes, present: Callable[[], frozenset[str]], sites: frozenset[str]
    ) -> None:
        self.sites = sites
        self.gone: dict[str, str] = {}
        self._nonce = nonce
        self._present = present
        self._ask: Ask[Message] | None = None
        self._past: tuple[type[Any], ...] = ()
        self._again: Callable[[str], None] | None = None
        self._due: set[str] = set()
        self._heard = 0
        self._absent: dict[str, float] = {}
        self._changed = asyncio.Event()

    def entered(self, site: str) -> None:
        """A site is back: it is told again what it was asked."""
        if self._again is not None and site in self.sites:
            self._again(site)

    @contextlib.contextmanager
    def repeating(self, push: Callable[[str], None]) -> Iterator[None]:
        """Says again to each site that comes back what it was asked, for as long as it is due."""
        self._again = push
        try:
            yield
        finally:
            self._again = None

    def hear(self, site: str, reply: pb.SecAggReply) -> None:
        """A site's reply. One that is wrong ends the site's part in this round, with the reason.

        A site that was asked again because it was away may reply twice; that does no harm.
        """
        if reply.nonce != self._nonce or self._ask is None or site not in self._due:
            _log.debug("site %s spoke out of turn", site)
            return
        try:
            message = read_reply(reply)
            if isinstance(message, self._past):
                _log.debug("site %s repeated itself", site)
                return
            self._ask.take(site, message)
        except HansaError as error:
            _log.warning("a message of %s in the secure aggregation: %s", site, error.message)
            self.decline(site, error.message)
            return
        self._heard += 1
        self._due.discard(site)
        self._changed.set()

    def decline(self, site: str, reason: str) -> None:
        """A site takes no further part."""
        if site not in self.gone:
            _log.warning("site %s left the secure aggregation: %s", site, reason)
        self.gone.setdefault(site, reason)
        self._due.discard(site)
        self._changed.set()

    async def step(
        self,
        ask: Ask[Message],
        push: Callable[[str], None],
        seconds: float,
        *,
        patient: bool = False,
        goal: int | None = None,
    ) -> None:
        """Leads one step, until everybody replied or is gone, or for as long as there is time.

        Args:
          ask: the step.
          push: says to one site what is asked.
          seconds: how long it may take.
          patient: wait also for sites that do not attend.
          goal: replies that are enough.
        """
        loop = asyncio.get_running_loop()
        if self._ask is not None:
            self._past = (*self._past, self._ask.reply)
        self._ask = ask
        self._due = set(ask.messages) - self.gone.keys()
        self._heard, ends = 0, loop.time() + seconds
        goal = len(self._due) if goal is None else goal
        for site in tuple(self._due):
            push(site)
        with self.repeating(lambda site: push(site) if site in self._due else None):
            while self._due and self._heard < goal and loop.time() < ends:
                if ask.enough():
                    ends = min(ends, loop.time() + GRACE)
                self._changed.clear()
                try:
                    async with asyncio.timeout(min(LOOK, max(ends - loop.time(), 0.0))):
                        await self._changed.wait()
                except TimeoutError:
                    if not patient:
                        self._let_go(self.absent(self._due))

    def absent(self, sites: set[str] | frozenset[str]) -> list[str]:
        """Those who have not attended for too long."""
        now, present = asyncio.get_running_loop().time(), self._present()
        for site in sites:
            if site in present:
                self._absent.pop(site, None)
            else:
                self._absent.setdefault(site, now)
        return [site for site in sites if now - self._absent.get(site, now) >= ABSENT]

    def _let_go(self, sites: list[str]) -> None:
        for site in sites:
            self.decline(site, "does not attend any more")
