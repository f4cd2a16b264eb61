"""Receipts: the coordinator's signed word that an update is in a durable sum.

A receipt names everything that makes the update this one and no other. The site knows all of it
before it asks, so it compares instead of believing. It keeps its update until a receipt verifies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.core import canonical
from hansa.errors import IdentityError

MAX_RECEIPT: Final = 4 << 10
"""Most characters of a receipt that are looked at."""

_CONTEXT: Final = b"hansa/receipt/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One update that is in a durable sum.

    Attributes:
      federation: the federation.
      job: the job's id.
      purpose: train or evaluate.
      round: number of the round, from 0.
      attempt: number of the try at this round, from 0.
      site: whose update it is.
      update: SHA-256 of the update's bytes as sent.
      plan: digest of the plan that it was made for.
    """

    federation: str
    job: str
    purpose: str
    round: int
    attempt: int
    site: str
    update: str
    plan: str

    @property
    def document(self) -> str:
        """The receipt as canonical JSON: what is signed."""
        return canonical.dumps(self)


def sign_receipt(receipt: Receipt, key: Ed25519PrivateKey) -> bytes:
    """The coordinator's signature, 64 bytes."""
    return key.sign(_CONTEXT + receipt.document.encode("ascii"))


def verify_receipt(
    document: str, signature: bytes, expected: Receipt, key: Ed25519PublicKey
) -> None:
    """Checks that the coordinator acknowledged exactly the expected update.

    Args:
      document: the receipt as received.
      signature: the signature as received.
      expected: what the site delivered.
      key: the coordinator's receipt key, from its node document.

    Raises:
      IdentityError: the signature is wrong, or the receipt is for something else.
    """
    if len(document) > MAX_RECEIPT:
        raise _refused(f"has {len(document):,} characters, more than {MAX_RECEIPT:,}")
    try:
        key.verify(signature, _CONTEXT + document.encode("utf-8", "surrogatepass"))
    except InvalidSignature:
        raise _refused("is not signed by the coordinator's receipt key") from None
    if document != expected.document:
        raise _refused(f"is for another update: {_difference(document, expected)}")


def _difference(document: str, expected: Receipt) -> str:
    """The first field that differs, in words; the text is signed, hence the coordinator's own."""
    try:
        found: Any = json.loads(document)
        for field in fields(expected):
            told, wanted = found.get(field.name), getattr(expected, field.name)
            if told != wanted:
                return f"its {field.name} is {told!r:.100}, expected {wanted!r:.100}"
    except (ValueError, AttributeError, RecursionError):
        return "it cannot be read"
    return "it is written by another version of Hansa"


def _refused(reason: str) -> IdentityError:
    return IdentityError(f"the receipt {reason}", fix="keep the update and deliver it again")
