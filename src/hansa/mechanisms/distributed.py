"""Noise that the clients have added already: the distributed discrete Gaussian mechanism."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hansa.core.events import DiscreteGaussianSum, Event, NoOp
from hansa.core.keys import Noise
from hansa.core.parts import Relation
from hansa.core.spec import Divisor, Domain, Reader, UpdateSpec
from hansa.core.vector import Vector
from hansa.errors import PlanError
from hansa.privacy.statement_parts import TrustModel


@dataclass(frozen=True, slots=True)
class DistributedGaussian:
    """Adds nothing: says what a sum reveals into which each client put a share of noise.

    It holds against the coordinator, who sees the masked sum and nothing before it. What the
    coordinator sees without noise is not protected by not being published, so it is refused.

    Counted on are the shares of the fewest survivors whose sum is unmasked, without those of
    clients who may collude: they know their own and can subtract it. Every client that is shown
    the model is such a client, even if it is merely curious, so 1 is the least that makes sense
    where models are sent to clients.

    | segment                                 | event               | released |
    |-----------------------------------------|---------------------|----------|
    | delta, metrics with noise               | DiscreteGaussianSum | yes      |
    | delta, metrics without noise            | PlanError           |          |
    | metrics of size 0                       | NoOp                | no       |
    | weight that is always 0                 | NoOp                | no       |
    | any other weight                        | PlanError           |          |
    | each update can be read                 | PlanError           |          |
    | sums of one, or of colluding clients    | PlanError           |          |
    | no norm bound, or not of integers       | PlanError           |          |
    | a mean by a realised count              | PlanError           |          |

    `relation` is about data, not presence: who took part is known to the coordinator, and a client
    whose data are left out still adds its noise. For the same reason, amplification by sampling
    holds only against those who cannot know the cohort; the coordinator knows it.

    Attributes:
      colluding: most clients of a round that share what they know with the coordinator.
      relation: the two datasets that the guarantee compares.
    """

    colluding: int
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def __str__(self) -> str:
        return (
            f"no single party, and up to {self.colluding} colluding clients, need be trusted: "
            "each client adds its share of the noise, and the coordinator sees only the noisy sum "
            f"({self.relation.value})"
        )

    @property
    def trust_model(self) -> TrustModel:
        """Nobody need be trusted, as long as few enough collude."""
        return "distributed"

    def infer(self, spec: UpdateSpec) -> Event:
        """What the segment's sum reveals to whoever unmasks it.

        Raises:
          PlanError: see the table.
        """
        if not spec.size:
            return NoOp()
        if spec.reader is not Reader.SUM:
            raise PlanError(
                self,
                "the coordinator can read each client's update, which holds too little noise "
                "by itself",
                "set secure_aggregation.enabled = true",
            )
        if spec.segment == "weight" and spec.peak == 0:
            return NoOp()
        if not spec.noise > 0:
            raise PlanError(
                self,
                f"the coordinator reads the sum of the {spec.segment} without noise",
                _NOISE_BY[spec.segment],
            )
        if spec.domain is not Domain.RING or not 0 < spec.l2 < math.inf:
            raise PlanError(
                self,
                f"one client can move the {spec.segment} arbitrarily far, or not on a grid",
                "set privacy.clip and quantization.step",
            )
        if spec.segment == "delta" and spec.divisor is Divisor.REALISED:
            raise PlanError(
                self,
                "a mean divided by a realised count reveals the count and has another sensitivity",
                "divide by the expected weight: a mean with a fixed divisor",
            )
        return DiscreteGaussianSum(
            noise_parameter=spec.noise / spec.quantum,
            shares=self._shares(spec),
            sensitivity=self._neighbours * spec.l2 / spec.quantum,
            size=spec.size,
        )

    def releases(self, spec: UpdateSpec) -> bool:
        """What carries noise; never a weight."""
        return spec.segment != "weight" and spec.size > 0

    def apply(self, total: Vector, spec: UpdateSpec, noise: Noise) -> Vector:  # noqa: ARG002  # the seam's signature
        """The sum itself, which is public already."""
        return total

    @property
    def _neighbours(self) -> float:
        return 2.0 if self.relation is Relation.REPLACE_ONE else 1.0

    def _shares(self, spec: UpdateSpec) -> int:
        """Shares of noise in every sum that is unmasked, which nobody who colludes knows.

        Raises:
          PlanError: there may be none.
        """
        least = max(2, self.colluding + 1)
        if self.colluding < 0 or spec.quorum < least:
            raise PlanError(
                self,
                f"a sum of {spec.quorum} clients, {self.colluding} of them colluding, hides nobody",
                f"set rounds.quorum to at least {least}",
            )
        return spec.quorum - self.colluding


_NOISE_BY = {
    "delta": "let each client add noise: DiscreteGaussian in place of Quantize",
    "metrics": "set noise on the metrics too, or let no metrics leave the sites",
    "weight": "let each client add noise: DiscreteGaussian sends no weights",
}
