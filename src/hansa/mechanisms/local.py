"""Noise that each client added to its own update: local differential privacy."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.core.events import Event, Gaussian, NoOp
from hansa.core.keys import Noise
from hansa.core.parts import Relation
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Vector
from hansa.errors import PlanError
from hansa.privacy.statement_parts import TrustModel
from hansa.stages.local_noise import LocalNoise


@dataclass(frozen=True, slots=True)
class LocalGaussian:
    """Adds nothing: says what one client's update reveals to whoever reads it.

    Each update is private by itself (Kasiviswanathan et al., FOCS 2008; Duchi, Jordan and
    Wainwright, FOCS 2013), so the guarantee holds against the coordinator and every other client,
    whatever they do with it: sums, masks, robust rules and optimizers are post-processing.

    | segment                             | event                       | released |
    |-------------------------------------|-----------------------------|----------|
    | delta with the stage's noise        | Gaussian(noise multiplier)  | yes      |
    | delta without it                    | PlanError                   |          |
    | metrics, or a count, of any size    | PlanError                   |          |
    | metrics of size 0                   | NoOp                        | no       |
    | weight, which is 1 for every client | NoOp                        | yes      |
    | weight that may be anything else    | PlanError                   |          |

    Who took part is no secret, hence neither is the sum of the weights.

    Attributes:
      noise: the stage that adds the noise.
    """

    noise: LocalNoise

    def __str__(self) -> str:
        return (
            "local, no other party need be trusted: each client adds normal noise to its own "
            "update before it leaves, and all that follows is post-processing"
        )

    @property
    def trust_model(self) -> TrustModel:
        """Nobody else need be trusted, masked or not."""
        return "local"

    @property
    def relation(self) -> Relation:
        """All of a client's data replaced by any others."""
        return Relation.REPLACE_ONE

    def infer(self, spec: UpdateSpec) -> Event:
        """What one client's segment reveals.

        Raises:
          PlanError: see the table.
        """
        if not spec.size:
            return NoOp()
        if spec.segment == "weight":
            if spec.weight != 1:
                raise PlanError(
                    self,
                    "a weight tells how many examples a client has, without noise",
                    'set aggregation.weighting = "uniform"',
                )
            return NoOp()
        if spec.segment != "delta" or spec.noise != self.noise.scale(spec.size).sigma:
            raise PlanError(
                self,
                f"the {spec.segment} of one client leaves without its own noise",
                "let each client add LocalNoise to its delta, and let no metrics leave",
            )
        return Gaussian(self.noise.noise_multiplier)

    def releases(self, spec: UpdateSpec) -> bool:
        """All that has a size."""
        return spec.size > 0

    def apply(self, total: Vector, spec: UpdateSpec, noise: Noise) -> Vector:  # noqa: ARG002  # the seam's signature
        """The sum itself, which is public already."""
        return total
