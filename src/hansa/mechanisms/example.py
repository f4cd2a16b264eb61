"""Updates of clients that trained by DP-SGD: differential privacy of single examples."""

from __future__ import annotations

from dataclasses import dataclass, field

from hansa.core.events import Event, NoOp
from hansa.core.keys import Noise
from hansa.core.parts import Relation
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Vector
from hansa.errors import PlanError
from hansa.privacy.statement_parts import Generation, TrustModel
from hansa.work.dpsgd import RELATION, DpSgd


@dataclass(frozen=True, slots=True)
class ExampleGaussian:
    """Adds nothing: says what clients' updates tell of one training example of one of them.

    Each client's work hides its examples by itself, so whatever is done with its update is
    post-processing: masks, sums, robust rules, optimizers, releases to anybody. Two clients have
    no example in common, so one example is in the updates of one client only.

    | segment                         | event                              | released |
    |---------------------------------|------------------------------------|----------|
    | delta of a work that protects   | what the work says that it reveals | yes      |
    | delta of any other work         | PlanError                          |          |
    | weight                          | NoOp: how many examples there are  | yes      |
    |                                 | is no secret, see `relation`       |          |
    | metrics of size 0               | NoOp                               | no       |
    | metrics, or a count, of any size| PlanError                          |          |

    Attributes:
      work: what the clients do.
    """

    work: DpSgd = field(repr=False)  # the trail begins with it

    def __str__(self) -> str:
        return (
            "example, each client protects its own training examples by DP-SGD: it draws each for "
            f"a step by itself, cuts its gradient to norm {self.work.clip:g} and adds normal noise "
            f"of {self.work.noise_multiplier:g} such norms"
            + (" or, with more examples, less" if self.work.promise else "")
            + "; all that follows is post-processing"
        )

    @property
    def trust_model(self) -> TrustModel:
        """Each client is trusted with its own examples."""
        return "example"

    @property
    def relation(self) -> Relation:
        """One example contributes nothing; how many there are stays."""
        return RELATION

    def infer(self, spec: UpdateSpec) -> Event:
        """What one client's segment tells of one of its examples.

        Raises:
          PlanError: see the table.
        """
        if spec.segment == "weight" or not spec.size:
            return NoOp()
        if spec.segment == "delta" and spec.reveals is not None:
            return spec.reveals
        raise PlanError(
            self,
            f"the {spec.segment} of a client tells of its examples, without noise",
            "let clients train by DP-SGD, and let no metrics leave",
        )

    def releases(self, spec: UpdateSpec) -> bool:
        """All that has a size."""
        return spec.size > 0

    def generation(self, spec: UpdateSpec) -> Generation:
        """How the noise of one step is made."""
        return self.work.generation(spec.size)

    def apply(self, total: Vector, spec: UpdateSpec, noise: Noise) -> Vector:  # noqa: ARG002  # the seam's signature
        """The sum itself: there is noise in it already."""
        return total
