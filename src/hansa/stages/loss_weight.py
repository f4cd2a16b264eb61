"""A client's weight is its loss, for a rule that looks at the losses of all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Layout, Vector
from hansa.errors import HansaError, PlanError
from hansa.stages.clip import scale
from hansa.stages.fair_weight import SMALLEST, loss_of
from hansa.stages.weight import Weight, admit_weight, float32_below


@dataclass(frozen=True, slots=True)
class LossWeight:
    """Writes the mean loss of the received model on the client's own examples as its weight.

    | n     | loss F     | weight       | delta          |
    |-------|------------|--------------|----------------|
    | n > 0 | finite     | min(F, most) | delta * weight |
    | n > 0 | not finite | HansaError   |                |
    | 0     |            | 0            | 0              |

    In a round that only measures, a client weighs what it would otherwise.

    Attributes:
      base: what a client weighs otherwise.
      most: the largest loss that a client can say; inf = no bound.
    """

    base: Weight
    most: float = math.inf

    def __str__(self) -> str:
        return "a client's weight is its loss on its own training examples"

    def told(self, facts: Facts) -> str:  # noqa: ARG002  # the seam's signature
        """What a plan says of it."""
        bound = "without bound" if math.isinf(self.most) else f"up to {self.most:g}"
        return (
            "Agnostic federated learning: each client tells the coordinator its loss on its own "
            f"training examples, {bound}; the coordinator cannot check it."
        )

    @property
    def role(self) -> Role:
        """The first of all stages."""
        return Role.WEIGHT

    @property
    def bound(self) -> float:
        """Most that one client can weigh."""
        return self.most

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Bounds the weight in all segments, and the weight segment by it.

        Raises:
          PlanError: the bound is not a positive number.
        """
        if not self.most > 0:
            raise PlanError(
                self,
                f"a loss cannot be at most {self.most:g}",
                "set aggregation.max_weight to a positive number, or to 0 for no bound",
            )
        if spec.segment != "weight":
            return replace(spec, weight=self.most)
        return replace(spec, weight=self.most, l2=self.most, peak=self.most)

    def encode(self, update: Update, ctx: Context) -> Update:
        """Multiplies the delta by the loss and writes it, in place.

        Raises:
          HansaError: the loss is not finite, or nobody measured it.
        """
        delta, weight = update.segment("delta"), update.segment("weight")
        if not len(weight):
            return update
        examples = float(weight[0])
        if examples <= 0 or not len(delta):
            weight[0] = float32_below(min(self.base.of(examples), self.most))
            delta[:] = 0.0
            return update
        loss = loss_of(ctx)
        if not math.isfinite(loss):
            raise HansaError(
                f"the loss of round {ctx.round} is not finite: training diverged",
                fix="lower the learning rate, or look for broken examples",
            )
        weight[0] = float32_below(min(max(loss, SMALLEST), self.most))
        scale(delta, float(weight[0]))
        return update

    def admit(self, update: Update, facts: Facts) -> None:
        """Checks that the weight is one that this stage can produce.

        Raises:
          UpdateRejected: it is not, or an update without weight has a delta.
        """
        admit_weight(update, facts, 0.0, self.most)

    def decode(self, total: Vector, layout: Layout) -> Vector:  # noqa: ARG002  # the seam's signature
        """The rule has looked at losses already."""
        return total
