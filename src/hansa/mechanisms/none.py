"""No mechanism: the sum becomes public as it is, and the plan says so."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.core.events import Event, NonPrivate
from hansa.core.keys import Noise
from hansa.core.parts import Relation
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Vector


@dataclass(frozen=True, slots=True)
class NoNoise:
    """Releases every segment of the sum without noise; epsilon is infinite."""

    def __str__(self) -> str:
        return "sums are released without noise"

    @property
    def relation(self) -> Relation:
        """Any will do where nothing is promised."""
        return Relation.ADD_OR_REMOVE_ONE

    def infer(self, spec: UpdateSpec) -> Event:  # noqa: ARG002  # the seam's signature
        """Never private, whatever the segment."""
        return NonPrivate()

    def releases(self, spec: UpdateSpec) -> bool:  # noqa: ARG002  # the seam's signature
        """True: every segment."""
        return True

    def apply(self, total: Vector, spec: UpdateSpec, noise: Noise) -> Vector:  # noqa: ARG002  # the seam's signature
        """The sum itself."""
        return total
