"""Members of a simulation: real keys, made on the spot, and everybody knows everybody's."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.secagg.client import Member
from hansa.secagg.floor import Floor, InProcess

ANY = Floor(cohort=2, organisations=1, threshold=0.0, active=False)
"""What a simulated client demands: nobody's data are at stake."""


@dataclass(frozen=True, slots=True)
class LocalMembers:
    """Simulated clients by name; each has its key for as long as this object lives."""

    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict, repr=False)

    def member(self, name: str) -> Member:
        """A client that begins a session for the first time."""
        key = self.keys.setdefault(name, Ed25519PrivateKey.generate())
        return Member(name, key.sign, "", self, ANY, InProcess())

    def verify(self, name: str, document: str, message: bytes, signature: bytes) -> str | None:
        """The client's own name as its organisation, if the signature is its key's."""
        del document
        try:
            self.keys[name].public_key().verify(signature, message)
        except (KeyError, InvalidSignature):
            return None
        return name
