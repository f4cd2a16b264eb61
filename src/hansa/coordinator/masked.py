"""One round under secure aggregation: the protocol's steps, led across the network.

work ──► adverts ──► rosters ──► shares ──► inboxes ──► masked updates ──► survivors ──► votes
  ▲ trained already                                      │ delivered as every update is     │
                                                         ▼                                  ▼
                              nothing of it is durable: a coordinator that dies      answers ──► sum
                              here begins a new attempt, with new keys
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hansa.coordinator.conversation import LOOK, Conversation
from hansa.coordinator.intake import Intake
from hansa.core.parts import Partial, Update
from hansa.secagg import masks
from hansa.secagg.messages import Masked, Message
from hansa.secagg.server import Ask, Sum

_Result = TypeVar("_Result")

STEP_SECONDS = 30.0
"""How long a step may take in which a site only computes."""


@dataclass(frozen=True, slots=True)
class MaskedFold:
    """Takes masked updates into the protocol's own sum.

    Attributes:
      ask: the step in which they are due.
      bits: modulus 2**bits.
    """

    ask: Ask[Message]
    bits: int

    @property
    def aggregator(self) -> MaskedFold:
        """Itself: there is nothing else to fold with."""
        return self

    @property
    def linear(self) -> bool:
        """True: an update is not kept."""
        return True

    def zero(self) -> Partial:
        """Nobody yet."""
        return Partial(None, ())

    def add(self, partial: Partial, client: str, update: Update) -> Partial:
        """Adds one masked update.

        Raises:
          UpdateRejected: it is of another form, or comes too late.
        """
        words = update.vector.astype(masks.word(self.bits), copy=False)
        self.ask.take(client, Masked(words))
        return Partial(None, (*partial.members, client))


@dataclass(frozen=True, slots=True)
class Steps:
    """What leads the protocol for one round.

    Attributes:
      flow: the server's half of the protocol.
      talk: the small messages.
      say: sends the current step's message to one site.
      intake: makes the intake of the masked updates from those who are asked and what folds.
      taking: directs deliveries to it.
      seconds: how long training, and delivering, may take.
    """

    flow: Generator[Ask[Message], None, Sum] = field(repr=False)
    talk: Conversation
    say: Callable[[Ask[Message], str], None] = field(repr=False)
    intake: Callable[[Sequence[str], Ask[Message]], Intake] = field(repr=False)
    taking: Callable[[Intake], contextlib.AbstractContextManager[None]] = field(repr=False)
    seconds: float

    async def lead(self, push_work: Callable[[str], None], goal: int) -> Sum:
        """Leads every step.

        Raises:
          RoundVoid: too few sites are left; nothing was revealed.
        """
        await self.talk.step(next(self.flow), push_work, self.seconds, patient=True, goal=goal)
        ask = await self._next()
        await self.talk.step(ask, self._pusher(ask), STEP_SECONDS)
        await self._take_updates(await self._next())
        for _ in ("votes", "answers"):
            ask = await self._next()
            await self.talk.step(ask, self._pusher(ask), STEP_SECONDS)
        found = await asyncio.to_thread(_advance, self.flow)
        if not isinstance(found, Sum):
            raise TypeError("the protocol has one step more than is led")
        return found

    async def _next(self) -> Ask[Message]:
        ask = await asyncio.to_thread(_advance, self.flow)
        if not isinstance(ask, Ask):
            raise TypeError("the protocol has fewer steps than are led")
        return ask

    async def _take_updates(self, ask: Ask[Message]) -> None:
        """The step whose replies are large: they are delivered like updates without masks."""
        asked = [site for site in ask.messages if site not in self.talk.gone]
        intake = self.intake(asked, ask)

        def again(site: str) -> None:
            if site in intake.awaited:
                self.say(ask, site)

        with self.taking(intake), self.talk.repeating(again), self._watching(intake):
            for site in asked:
                self.say(ask, site)
            _, dropouts = await intake.complete(len(asked), self.seconds)
        for dropout in dropouts:
            self.talk.decline(dropout.client, dropout.reason)

    @contextlib.contextmanager
    def _watching(self, intake: Intake) -> Iterator[None]:
        """Does not wait for sites that left, nor for those that took back their part."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(LOOK)
                for site in self.talk.absent(intake.awaited):
                    intake.decline(site, "does not attend any more")

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()

    def _pusher(self, ask: Ask[Message]) -> Callable[[str], None]:
        return lambda site: self.say(ask, site)


async def together(works: Sequence[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Results in order; the first error ends the others and is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _advance(flow: Generator[Ask[Message], None, Sum]) -> Ask[Message] | Sum:
    """The next step, or the end; in a thread, since the end cancels all masks."""
    try:
        return flow.send(None)
    except StopIteration as end:
        result: Sum = end.value
        return result
