"""What a client demands of every session; a coordinator can only be stricter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from hansa.secagg.faults import Fault, Misuse
from hansa.secagg.parameters import Scheme
from hansa.secagg.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A client's own limits.

    Attributes:
      cohort: fewest clients whose sum it helps to reveal.
      organisations: fewest different organisations among those that it can see; 0 = as many as
        `cohort`. Connections cost nothing, an organisation's enrolment does.
      threshold: smallest share of the holders whose shares give a secret back. Above one half,
        no two sets of survivors can both be unmasked.
      size: most ring elements of a vector.
      bits: moduli 2**bits that it computes in.
      corrupt: smallest share of corrupt clients that must be assumed.
      active: whether a lying coordinator must be assumed.
    """

    cohort: int = 3
    organisations: int = 0
    threshold: float = 0.5
    size: int = 1 << 28
    bits: tuple[int, ...] = (16, 24, 32)
    corrupt: float = 0.0
    active: bool = True

    def check_session(self, session: Session) -> None:
        """Before anything is sent.

        Raises:
          Misuse: the session demands less than this floor.
        """
        if session.size > self.size or session.size < 1:
            raise Misuse(Fault.SIZE, f"{session.size:,} elements, at most {self.size:,}")
        if session.bits not in self.bits:
            raise Misuse(Fault.MODULUS, f"2**{session.bits}, allowed are {self.bits}")
        rule = session.rule
        if rule.corrupt < self.corrupt or (self.active and not rule.active):
            raise Misuse(
                Fault.ASSUMPTIONS,
                f"{rule.corrupt:g} corrupt, {'a lying' if rule.active else 'a curious'} "
                f"coordinator; demanded are {self.corrupt:g} and "
                f"{'a lying' if self.active else 'a curious'} one",
            )

    def check_cohort(self, session: Session, clients: int) -> None:
        """Raises Misuse if so few clients are not to be summed."""
        least = max(self.cohort, session.cohort, 2)
        if clients < least:
            raise Misuse(Fault.COHORT, f"{clients}, demanded are {least}")

    def check_scheme(self, scheme: Scheme) -> None:
        """Raises Misuse if the threshold is too small a share of the holders."""
        if scheme.threshold < 2 or scheme.threshold <= self.threshold * scheme.holders:
            raise Misuse(
                Fault.THRESHOLD,
                f"{scheme.threshold} of {scheme.holders} holders, demanded are more than "
                f"{self.threshold:g} of them",
            )

    def check_organisations(self, seen: int, clients: int, *, everybody: bool) -> None:
        """Raises Misuse if too few organisations are behind the clients that can be seen.

        Args:
          seen: organisations.
          clients: that can be seen; on a sparse graph there can be no more organisations.
          everybody: whether the whole cohort can be seen.
        """
        least = self.organisations or self.cohort
        if not everybody:
            least = min(least, clients)
        if seen < least:
            raise Misuse(Fault.ORGANISATIONS, f"{seen}, demanded are {least}")


class Memory(Protocol):
    """Which sessions a client began: it begins no attempt twice, whatever happens in between."""

    def begin(self, session: Session) -> None:
        """Remembers a session, durably, before anything of it leaves.

        Raises:
          Misuse: this attempt, or a later one of the same round, was begun before.
        """


@dataclass(frozen=True, slots=True)
class InProcess:
    """A memory that ends with its process: for simulation, where nobody is to be protected."""

    begun: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def begin(self, session: Session) -> None:
        """Remembers a session.

        Raises:
          Misuse: this attempt, or a later one of the same round, was begun before.
        """
        key = (session.job, session.purpose, session.round)
        if session.attempt <= self.begun.get(key, -1):
            raise Misuse(Fault.REPEATED, f"attempt {session.attempt} of round {session.round}")
        self.begun[key] = session.attempt
