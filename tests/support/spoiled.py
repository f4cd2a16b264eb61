"""Clients that attack in some rounds only, for tests of what comes after."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from hansa.attacks import updates
from hansa.attacks.catalogue import Attack
from hansa.attacks.engine import AttackedEngine
from hansa.attacks.site import Attacking
from hansa.core.contribute import Purpose, RoundTask, contribute
from hansa.core.keys import Noise
from hansa.core.parts import Course, Dropout, Model, Partial, Split, Update
from hansa.engines.inline import InlineEngine

REVERSED = Attack("reversed", "own", send=lambda k: updates.sign_flip(k.own, k.f, 1000.0))
"""Its own update backwards, as long as its clip lets it be."""


@dataclass(frozen=True)
class Spoiled:
    """The inline engine; in some rounds of training one client attacks."""

    inline: InlineEngine
    bad: str
    rounds: frozenset[int]
    attack: Attack = REVERSED
    real: bool = False

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout | Course]:
        attacked = AttackedEngine(self.inline, self.attack, frozenset({self.bad}), omniscient=False)
        lies = task.purpose is Purpose.TRAIN and task.round in self.rounds
        async for item in (attacked if lies else self.inline).gather(task, cohort):
            yield item


@dataclass(frozen=True)
class Spoiling:
    """The contribution of a site that attacks in some rounds only."""

    rounds: frozenset[int]
    attack: Attack = REVERSED

    def __call__(
        self, task: RoundTask, client: str, model: Model, split: Split, noise: Noise | None = None
    ) -> Update:
        lies = task.purpose is Purpose.TRAIN and task.round in self.rounds
        return (Attacking(self.attack) if lies else contribute)(task, client, model, split, noise)
