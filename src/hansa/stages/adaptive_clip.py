"""A norm bound that follows the updates: adaptive clipping by a private quantile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import Domain, Held, Reader, UpdateSpec
from hansa.core.vector import Layout, Vector
from hansa.errors import HansaError, PlanError, UpdateRejected
from hansa.stages.clip import SLACK, scale
from hansa.stages.norm import TOLERANCE, l2_norm

HALF = 0.5
"""What a client adds to the count, less or more: its bit minus one half."""

FARTHEST = 1e6
"""How far the bound may move from where it starts, as a factor, up or down."""


@dataclass(frozen=True, slots=True)
class AdaptiveClip:
    """Clips deltas to a bound C that follows a quantile of their norms.

    Andrew, Thakkar, McMahan and Ramaswamy (NeurIPS 2021, arXiv 1905.03871), algorithm 1. In each
    round a client says, by one bit b, whether the norm of its delta was within C. From the noisy
    sum of the bits the coordinator moves the bound for the next round:

        C <- C * exp(-learning rate * (share within C - quantile))

    A client sends its delta *divided by C*, so that every number of the plan (sensitivity, noise,
    steps of a ring) is in units of C and holds for all rounds; the coordinator multiplies what was
    made public by C. It sends b - 1/2, which one client moves by at most 1/2.

    | delta of a client      | delta sent                    | within |
    |------------------------|-------------------------------|--------|
    | norm <= C * weight     | delta / C                     | 1/2    |
    | norm above that        | scaled to norm <= weight      | -1/2   |
    | weight 0 (no examples) | zeros                         | 0      |
    | not finite             | HansaError                    |        |

    Attributes:
      start: C of the first round, in model units.
      quantile: share of the clients that should be within C.
      learning_rate: how fast C moves.
    """

    start: float
    quantile: float
    learning_rate: float = 0.2

    def __str__(self) -> str:
        return (
            f"the delta of one client is clipped to a norm that starts at {self.start:g} and "
            f"follows what {self.quantile:.3g} of the clients are within"
        )

    @property
    def role(self) -> Role:
        """Between what shapes an update and what encodes it."""
        return Role.BOUND

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Bounds the delta by the weight, in units of C, and the bit by one half.

        Raises:
          PlanError: impossible numbers, or the norm cannot be measured here.
        """
        if spec.segment not in ("delta", "within"):
            return spec
        self._check_numbers()
        if spec.domain is not Domain.REAL or spec.reader is not Reader.EACH:
            raise PlanError(
                self, "cannot measure a norm any more", "clip before quantising and masking"
            )
        if spec.segment == "within":
            return replace(spec, l2=HALF, peak=HALF, quantum=HALF, held=Held.CHECKED)
        if math.isinf(spec.weight):
            raise PlanError(
                self,
                "a client can undo the clip by reporting a huge weight",
                'set aggregation.weighting = "uniform", or bound it by aggregation.max_weight',
            )
        return replace(spec, l2=spec.weight, peak=spec.weight, held=Held.CHECKED)

    def encode(self, update: Update, ctx: Context) -> Update:
        """Divides the delta by C, scales it down where it is beyond, and says which; in place.

        Raises:
          HansaError: the delta is not finite, or the round has no bound.
        """
        delta, weight = update.segment("delta"), _weight(update)
        if not len(delta):
            return update
        norm = l2_norm(delta)
        if not math.isfinite(norm):
            raise HansaError(
                f"the delta of round {ctx.round} is not finite: training diverged",
                fix="lower the learning rate, or look for broken examples",
            )
        if ctx.clip is None or not 0 < ctx.clip < math.inf:
            raise HansaError(
                f"round {ctx.round} has no norm bound, and its plan says that it adapts",
                fix="let the coordinator send the bound of the round with its work",
            )
        limit = ctx.clip * weight
        scale(delta, 1 / ctx.clip if norm <= limit else weight / norm * SLACK)
        if l2_norm(delta) > weight:  # rounding, where the norm was at the limit
            scale(delta, SLACK)
        if weight:
            update.segment("within")[:] = HALF if norm <= limit else -HALF
        return update

    def admit(self, update: Update, facts: Facts) -> None:
        """Checks the norm and the bit again, where they can be seen.

        Raises:
          UpdateRejected: they are not what this stage can produce.
        """
        spec = facts["delta"]
        if spec.domain is not Domain.REAL or spec.reader is not Reader.EACH:
            return
        weight, within = _weight(update), update.segment("within")
        if not l2_norm(update.segment("delta")) <= weight * (1 + TOLERANCE):
            raise UpdateRejected(
                "the delta of an update is not finite or exceeds its norm bound",
                fix="clip the update as the plan says",
            )
        if len(within) and float(within[0]) not in (-HALF, 0.0, HALF):
            raise UpdateRejected(
                "an update says neither that it was within the norm bound nor that it was not",
                fix="clip the update as the plan says",
            )

    def decode(self, total: Vector, layout: Layout) -> Vector:  # noqa: ARG002  # the seam's signature
        """A clip cannot be undone; the round multiplies by C after the noise."""
        return total

    def next(self, clip: float, within: float, clients: float) -> float:
        """C of the next round, from the noisy sum of the bits.

        Args:
          clip: C of this round.
          within: sum over the clients of b - 1/2, with noise.
          clients: expected number of clients in a round.
        """
        share = within / clients + HALF
        moved = clip * math.exp(-self.learning_rate * (share - self.quantile))
        return min(max(moved, self.start / FARTHEST), self.start * FARTHEST)

    def _check_numbers(self) -> None:
        if not 0 < self.start < math.inf:
            raise PlanError(
                self, f"a bound cannot start at {self.start:g}", "set privacy.clip above 0"
            )
        if not 0 < self.quantile < 1:
            raise PlanError(
                self,
                f"{self.quantile:g} is no share of the clients that a bound can follow",
                "set privacy.clip_quantile between 0 and 1, such as 0.5",
            )
        if not 0 < self.learning_rate < math.inf:
            raise PlanError(
                self,
                f"a bound does not adapt at a rate of {self.learning_rate:g}",
                "set privacy.clip_learning_rate above 0, such as 0.2",
            )


def _weight(update: Update) -> float:
    weight = update.segment("weight")
    return float(weight[0]) if len(weight) else 1.0
