"""Hiding each update under masks that cancel in the sum: secure aggregation as a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hansa.core.parts import Context, Facts, Role, Update
from hansa.core.plan import Plan
from hansa.core.spec import Domain, Held, Reader, UpdateSpec
from hansa.core.vector import Layout, Vector
from hansa.errors import PlanError, Refused
from hansa.secagg.parameters import COMPLETE, Rule, Scheme


@dataclass(frozen=True, slots=True)
class Mask:
    """Says that the coordinator reads the sum over the cohort and nothing else.

    The masks themselves are the work of several parties (`hansa.secagg`), led by the engine; this
    stage says what they need and what they change:

    | fact            | before                    | after                                         |
    |-----------------|---------------------------|-----------------------------------------------|
    | domain REAL     | float sums                | PlanError: masks need integers modulo 2**bits |
    | reader          | each update can be read   | only the sum can be read                      |
    | held            | checked by the coordinator| holds if the client is honest                 |
    | quorum below 2  | one update is a sum       | PlanError                                     |
    | no safe threshold for the largest or the smallest cohort | | PlanError                      |

    Attributes:
      corrupt: largest share of the cohort that may collude with the coordinator.
      dropouts: largest share that may vanish in the middle of a round.
      active: the coordinator itself may lie.
      groups: sums that are revealed in a round, each over a random group; 1 = over the cohort.
    """

    corrupt: float = 0.1
    dropouts: float = 0.2
    active: bool = True
    groups: int = 1

    def __str__(self) -> str:
        who = "a coordinator that lies" if self.active else "a coordinator that is curious"
        return f"updates are masked against {who} and {self.corrupt:.0%} of the cohort"

    @property
    def role(self) -> Role:
        """After everything else."""
        return Role.HIDE

    @property
    def rule(self) -> Rule:
        """The assumptions, as the protocol takes them."""
        return Rule(self.corrupt, self.dropouts, self.active)

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Takes away the coordinator's sight of single updates.

        Raises:
          PlanError: the update is no ring vector, the sum may be of one client, or no threshold
            is both safe and reachable.
        """
        if spec.domain is not Domain.RING:
            raise PlanError(
                self,
                "masks over floats neither cancel nor hide; they need integers",
                "set quantization.step, together with bounds: aggregation.clip and "
                "aggregation.max_weight",
            )
        if spec.quorum < 2:
            raise PlanError(
                self,
                "the sum of one update is that update",
                f"set rounds.quorum to at least {2 * self.groups}"
                + (", or form fewer groups" if self.groups > 1 else ""),
            )
        fewest = min(spec.quorum, spec.cohort)
        try:
            self.scheme(spec.cohort)
            self.scheme(fewest)
            self.tolerated(spec.cohort, fewest)  # and every cohort between them
        except Refused as error:
            raise PlanError(self, error.message, error.fix) from error
        return replace(spec, reader=Reader.SUM, held=Held.HONEST)

    def encode(self, update: Update, ctx: Context) -> Update:  # noqa: ARG002  # the seam's signature
        """Nothing yet: the protocol masks the vector when the cohort is known."""
        return update

    def admit(self, update: Update, facts: Facts) -> None:
        """Nothing: a masked update says nothing about itself."""

    def decode(self, total: Vector, layout: Layout) -> Vector:  # noqa: ARG002  # the seam's signature
        """The masks have cancelled already."""
        return total

    def promises(self, cohort: int, quorum: int) -> tuple[str, ...]:
        """What holds for cohorts between the quorum and the largest, in plain words."""
        how = "also if it lies" if self.active else "as long as it follows the protocol"
        whom = (
            "the sum over the cohort"
            if self.groups == 1
            else f"the sums over {self.groups} groups of at most {cohort} clients"
        )
        return (
            f"The coordinator can read only {whom}, never one client's update: "
            f"{how}, and as long as {self._colluding(cohort, quorum)} collude with it.",
            f"To reveal the sum of {cohort} clients, {self.scheme(cohort).threshold} of each one's "
            f"{self.scheme(cohort).holders} holders of shares must answer.",
            "The coordinator learns who took part. A sum over few clients, or two sums that differ "
            "in one client, can still tell about that client: only noise hides it.",
            "Assumed: the authority that certifies the sites' keys enrols no puppets; here it is "
            "run together with the coordinator.",
        )

    def tolerated(self, cohort: int, quorum: int) -> int:
        """How many clients may collude with the coordinator, in the worst of the cohorts.

        Args:
          cohort: most clients in a round.
          quorum: fewest clients in a round.

        Raises:
          Refused: a cohort between the two has no safe threshold.
        """
        most = math.inf
        for n in range(quorum, min(cohort, COMPLETE) + 1):
            threshold = self.scheme(n).threshold
            most = min(most, 2 * threshold - n - 1 if self.active else threshold - 1)
        if cohort > COMPLETE:
            most = min(most, self.rule.corrupted(max(quorum, COMPLETE + 1)))
        return int(most)

    def _colluding(self, cohort: int, quorum: int) -> str:
        if quorum > COMPLETE:
            return f"at most {self.corrupt:.0%} of the cohort, chosen before it was drawn,"
        most = self.tolerated(cohort, quorum)
        if most <= 0:
            return "no clients"
        return f"at most {most} of the clients"

    def scheme(self, clients: int) -> Scheme:
        """Degree and threshold for a cohort."""
        return self.rule.scheme(clients)


def mask_of(plan: Plan) -> Mask | None:
    """The stage that hides a plan's updates; None if the coordinator can read each."""
    return next((stage for stage in plan.parts.stages if isinstance(stage, Mask)), None)
