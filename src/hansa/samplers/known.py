"""Any sampler, towards somebody who knows who takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa.core.events import Event
from hansa.core.keys import ReplayKey
from hansa.core.parts import ClientSampler, Relation


@dataclass(frozen=True, slots=True)
class Known:
    """Draws like another sampler, and counts on nothing but how often a client can be drawn.

    Noise that is local protects a client against the coordinator, which draws the cohorts: nothing
    is amplified towards it. The guarantee compares datasets of a client that takes part.

    Attributes:
      inner: how cohorts are drawn.
      relation: the datasets that are compared; whether the client takes part is no secret.
    """

    inner: ClientSampler
    relation: Relation = Relation.REPLACE_ONE

    def __str__(self) -> str:
        return f"{self.inner}; not counted on, as the coordinator knows who takes part"

    @property
    def population(self) -> int:
        """That of the inner sampler."""
        return self.inner.population

    @property
    def expected(self) -> float:
        """That of the inner sampler."""
        return self.inner.expected

    @property
    def cap(self) -> int:
        """That of the inner sampler."""
        return self.inner.cap

    def check(self) -> None:
        """Raises PlanError if the inner sampler cannot do what it promises."""
        self.inner.check()

    def draw(self, population: Sequence[str], key: ReplayKey, number: int = 0) -> tuple[str, ...]:
        """The cohort of the inner sampler."""
        return self.inner.draw(population, key, number)

    def amplify(self, event: Event) -> Event:
        """The event itself."""
        return event

    def participations(self, rounds: int) -> int:
        """Those of the inner sampler."""
        return self.inner.participations(rounds)
