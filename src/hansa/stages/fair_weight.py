"""Clients with a larger loss count for more: q-FedAvg (Li, Sanjabi, Beirami and Smith, ICLR 2020).

q-FFL minimises sum_k p_k F_k^(q+1) / (q+1) over the clients' losses F_k, where federated averaging
minimises sum_k p_k F_k: the larger q, the more alike losses become. Its algorithm 2, with w the
model that was sent, w_k what client k made of it, and L a Lipschitz constant of the gradient:

    D_k = L (w - w_k)                                what a step of gradient descent would be
    d_k = F_k^q D_k
    h_k = q F_k^(q-1) |D_k|^2 + L F_k^q              bounds the curvature of F_k^(q+1) / (q+1)
    w   = w - sum_k d_k / sum_k h_k

Divided by L above and below, with delta_k = w_k - w, it is a mean of deltas with other weights:

    w = w + sum_k F_k^q delta_k / sum_k (F_k^q + q L F_k^(q-1) |delta_k|^2)

so that a client sends F_k^q delta_k and its weight, and both add up: the coordinator's side is the
plain mean. p_k is what the client would weigh otherwise, by its examples or once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.spec import Reader, UpdateSpec
from hansa.core.vector import Layout, Vector
from hansa.errors import HansaError, PlanError
from hansa.stages.clip import scale
from hansa.stages.norm import l2_norm
from hansa.stages.weight import Weight, admit_weight, float32_below

SMALLEST = 1e-10
"""A loss of 0 is taken for this one, as in the authors' program: F^(q-1) is infinite at 0."""


@dataclass(frozen=True, slots=True)
class FairWeight:
    """Turns a client's mean delta and its number of examples n into what q-FedAvg adds up.

    With F the mean loss of the model as received over the client's training examples, p what the
    client weighs otherwise, and h = F^q + q L F^(q-1) |delta|^2:

    | n     | p h          | weight | delta                 |
    |-------|--------------|--------|-----------------------|
    | n > 0 | <= most      | p h    | delta * p F^q         |
    | n > 0 | > most       | most   | delta * F^q * most / h |
    | n > 0 | underflows   | 0      | 0                     |
    | 0     |              | 0      | 0                     |

    Whoever says that its loss is large counts for more: `most` is how much at most. In a round that
    only measures, a client weighs what it would otherwise.

    Attributes:
      base: what a client weighs otherwise.
      q: 0 = federated averaging.
      lipschitz: L; 1 / client_lr in the paper's experiments.
      most: most that one client can weigh; inf = no bound.
    """

    base: Weight
    q: float
    lipschitz: float
    most: float = math.inf

    def __str__(self) -> str:
        bound = "" if math.isinf(self.most) else f", at most {self.most:g}"
        return (
            f"{self.base}, times its loss to the power of {self.q:g}{bound} (q-FFL): a client that "
            "says that its loss is large counts for more"
        )

    def told(self, facts: Facts) -> str:
        """What a plan says of it."""
        bound = "without bound" if math.isinf(self.most) else f"up to a weight of {self.most:g}"
        known = (
            "only the sum of the weights can be read"
            if facts["weight"].reader is Reader.SUM
            else "its weight tells the coordinator how large its loss is"
        )
        return (
            f"Fairness (q-FFL with q = {self.q:g}): a client counts the more the larger its loss "
            f"on its own training examples is, {bound}; {known}. The coordinator cannot check a "
            "loss: a bad client that overstates its own counts for more."
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
        """Bounds the weight in all segments, and the weight segment by it; it is no whole number.

        Raises:
          PlanError: a number is out of range, or the base is.
        """
        if not 0 < self.q < math.inf:
            raise PlanError(
                self,
                f"cannot be fair with a power of {self.q:g}",
                "set aggregation.fairness above 0, such as 1.0, or leave it out",
            )
        if not 0 < self.lipschitz < math.inf:
            raise PlanError(
                self,
                "knows no step of the clients to estimate the curvature from",
                'use an algorithm whose clients have a client_lr, such as "fedavg"',
            )
        spec = self.base.infer(spec)
        if spec.segment != "weight":
            return replace(spec, weight=self.most)
        return replace(spec, weight=self.most, l2=self.most, peak=self.most, quantum=0.0)

    def encode(self, update: Update, ctx: Context) -> Update:
        """Multiplies the delta and writes the weight, in place.

        Raises:
          HansaError: the loss or the delta is not finite, or nobody measured the loss.
        """
        delta, weight = update.segment("delta"), update.segment("weight")
        if not len(weight):
            return update
        examples = float(weight[0])
        if examples <= 0 or not len(delta):
            weight[0] = float32_below(min(self.base.of(examples), self.most))
            delta[:] = 0.0
            return update
        base = self.base.of(examples)
        factor, wanted = self._fair(base, loss_of(ctx), l2_norm(delta), ctx)
        if wanted > self.most:
            factor, wanted = factor * (self.most / wanted), self.most
        weight[0] = float32_below(wanted)
        scale(delta, factor if weight[0] > 0 else 0.0)
        return update

    def _fair(self, base: float, loss: float, norm: float, ctx: Context) -> tuple[float, float]:
        """What the delta is multiplied by, and the weight."""
        loss = max(loss, SMALLEST) if math.isfinite(loss) else math.inf
        with np.errstate(over="ignore", invalid="ignore"):
            raised = np.float64(loss) ** self.q
            curved = self.q * self.lipschitz * np.float64(loss) ** (self.q - 1) * norm * norm
            found = float(base * raised), float(base * (raised + curved))
        if not math.isfinite(found[0]) or not math.isfinite(found[1]):
            raise HansaError(
                f"the loss or the delta of round {ctx.round} is not finite: training diverged",
                fix="lower the learning rate or aggregation.fairness, or look for broken examples",
            )
        return found

    def admit(self, update: Update, facts: Facts) -> None:
        """Checks that the weight is one that this stage can produce.

        Raises:
          UpdateRejected: it is not, or an update without weight has a delta.
        """
        admit_weight(update, facts, 0.0, self.most)

    def decode(self, total: Vector, layout: Layout) -> Vector:  # noqa: ARG002  # the seam's signature
        """The sum is what the mean is taken from."""
        return total


def loss_of(ctx: Context) -> float:
    """The mean loss of the received model on the client's training examples.

    Raises:
      HansaError: nobody measured it.
    """
    if ctx.loss is None:
        raise HansaError(
            "a weight that follows the loss needs the loss of the received model, which was not "
            "measured",
            fix="make the client's place in the round with context_of",
        )
    return ctx.loss()
