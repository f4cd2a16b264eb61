"""Signed heads: where the budgets' chain ends, in the coordinator's word and in a site's.

Whoever keeps a head notices a chain that was set back or forked. The same text is signed by both:
by the coordinator when it shows a head, by a site when it has seen that it extends the one before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.core import canonical
from hansa.errors import IdentityError

_CONTEXT: Final = b"hansa/budget-head/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetHead:
    """Where the chain over all privacy budgets of a federation ends.

    Attributes:
      federation: whose chain it is.
      seq: how many entries it has.
      hash: its end, 64 hexadecimal digits.
    """

    federation: str
    seq: int = 0
    hash: str = "0" * 64

    @property
    def message(self) -> bytes:
        """What is signed."""
        return _CONTEXT + canonical.dumps(self).encode("ascii")

    def extended(self, digests: Sequence[bytes]) -> BudgetHead:
        """The head after more entries, of which only the SHA-256 is known."""
        end = bytes.fromhex(self.hash)
        for digest in digests:
            end = hashlib.sha256(end + digest).digest()
        return BudgetHead(federation=self.federation, seq=self.seq + len(digests), hash=end.hex())


def sign_head(head: BudgetHead, key: Ed25519PrivateKey) -> bytes:
    """A signature over a head, 64 bytes."""
    return key.sign(head.message)


def verify_head(head: BudgetHead, signature: bytes, key: Ed25519PublicKey) -> None:
    """Checks the coordinator's signature over a head.

    Raises:
      IdentityError: it is not over this head, or not the coordinator's.
    """
    try:
        key.verify(signature, head.message)
    except InvalidSignature:
        raise IdentityError(
            "the head of the budgets' chain is not signed by the coordinator's receipt key",
            fix="let the coordinator's administrator look at it",
        ) from None
