"""What a part may say about its noise beyond what the plan check needs, for the statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from hansa.core.spec import UpdateSpec

TrustModel: TypeAlias = Literal["central", "distributed", "local", "example"]
"""central: whoever adds the noise to the sum is trusted. distributed: nobody is, while few enough
collude. local: nobody else is at all. example: each client is, with its own data only."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How a part turns random bits into noise.

    Attributes:
      sampler: how samples are computed, in words.
      grid: step of the grid that the released sum and its noise are on, in model units; 0 = none.
      exact: whether samples have exactly the distribution that is accounted for; False where
        floating point comes near it.
    """

    sampler: str
    grid: float
    exact: bool


@runtime_checkable
class MakesNoise(Protocol):
    """A mechanism or a stage that adds noise and says how it makes it."""

    def generation(self, spec: UpdateSpec) -> Generation:
        """How the noise of this segment is made."""


@runtime_checkable
class Trusts(Protocol):
    """A mechanism that says itself against whom its guarantee holds."""

    @property
    def trust_model(self) -> TrustModel:
        """central, distributed, local or example."""


@runtime_checkable
class Scaled(Protocol):
    """A mechanism that adds independent noise to the sum of each round."""

    def scale(self, spec: UpdateSpec) -> tuple[float, ...]:
        """Standard deviation of the noise on the sum in model units, and other numbers."""
