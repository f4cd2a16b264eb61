"""What the authority states: canonical JSON with its signature, followed to the pinned root.

{"<kind>": {...}, "issuer": "<PEM of the intermediate>", "signature": "<ECDSA, base64>"}
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.core import canonical
from hansa.errors import IdentityError
from hansa.identity.certificates import UNREADABLE, issued_by, read_chain, read_one, to_pem


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of statement; none can be taken for one of another kind.

    Attributes:
      name: the key that holds it.
      words: what it is called in errors.
      context: what precedes the text that is signed.
    """

    name: str
    words: str
    context: bytes


def sign_statement(
    kind: Kind, body: object, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> str:
    """The statement with the authority's signature, as text."""
    signature = key.sign(_signed(kind, canonical.plain(body)), ec.ECDSA(hashes.SHA256()))
    return canonical.dumps(
        {
            kind.name: body,
            "issuer": to_pem(issuer).decode("ascii"),
            "signature": base64.b64encode(signature).decode("ascii"),
        }
    )


def open_statement(
    kind: Kind, text: str, root_pem: bytes, most: int
) -> tuple[dict[str, Any], x509.Certificate]:
    """What is stated, and by which certificate; says nothing of time.

    Raises:
      IdentityError: more than `most` characters, or not of an authority under this root.
    """
    if len(text) > most:
        raise refused(kind, f"has {len(text):,} characters, more than {most:,}")
    try:
        whole = json.loads(text)
        inner, pem = whole[kind.name], whole["issuer"].encode("ascii")
        signature = base64.b64decode(whole["signature"], validate=True)
        signed = _signed(kind, inner)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise refused(kind, "cannot be read") from None
    issuer = read_chain(pem, f"the authority's certificate in {kind.words}")[0]
    if not issued_by(issuer, read_one(root_pem)):
        raise refused(kind, "is signed by an authority that the pinned root did not appoint")
    if not _verified(issuer, signature, signed):
        raise refused(kind, "does not carry the authority's signature over what it says")
    return inner, issuer


def refused(kind: Kind, reason: str) -> IdentityError:
    """Why a statement is not believed."""
    return IdentityError(f"{kind.words} {reason}", fix="get the current one from the coordinator")


def _verified(issuer: x509.Certificate, signature: bytes, signed: bytes) -> bool:
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except UNREADABLE:
        return False
    return True


def _signed(kind: Kind, inner: object) -> bytes:
    return kind.context + canonical.dumps(inner).encode("ascii")
