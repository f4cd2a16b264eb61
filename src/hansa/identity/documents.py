"""Node documents: which Ed25519 key signs in the name of a member, and until when.

TLS certificates cannot carry Ed25519 keys here, so the authority states the binding in a document:
canonical JSON, signed with the intermediate's P-256 key. No third key is needed, and a document
cannot be taken for a certificate: what is signed starts with a text, a certificate with a DER
sequence.

    {"document": {...}, "issuer": "<PEM of the intermediate>", "signature": "<ECDSA, base64>"}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hansa.errors import IdentityError
from hansa.identity.certificates import UNREADABLE
from hansa.identity.names import Role
from hansa.identity.statements import Kind, open_statement, refused, sign_statement
from hansa.identity.trust import check_window

MAX_DOCUMENT: Final = 8 << 10
"""Most characters of a document that are looked at."""

_STATEMENT: Final = Kind("document", "the node document", b"hansa/node-document/1\0")


@dataclass(frozen=True, slots=True)
class NodeDocument:
    """The binding of a name to a signing key.

    Attributes:
      federation: the federation.
      role: site or coordinator.
      name: the member.
      organisation: whose member it is.
      signing_key: Ed25519 public key, 64 hexadecimal digits.
      not_before: first moment, seconds since 1970.
      not_after: last moment, seconds since 1970.
    """

    federation: str
    role: str
    name: str
    organisation: str
    signing_key: str
    not_before: int
    not_after: int

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key itself."""
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.signing_key))


def sign_document(
    document: NodeDocument, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> str:
    """The document with the authority's signature, as text."""
    return sign_statement(_STATEMENT, document, issuer, key)


def open_document(text: str, root_pem: bytes) -> NodeDocument:
    """The document, after its signature was followed to the pinned root. Says nothing of time.

    Raises:
      IdentityError: it is not a document of an authority under this root.
    """
    return _open(text, root_pem)[0]


def read_document(
    text: str, root_pem: bytes, federation: str, now: datetime, role: Role
) -> NodeDocument:
    """The document of a member that may sign now.

    Raises:
      IdentityError: signature, federation, role or time is wrong.
    """
    document, issuer = _open(text, root_pem)
    if document.federation != federation:
        raise _refused(f"is of federation '{document.federation}', not of '{federation}'")
    if document.role != role.value:
        raise _refused(f"is of a {document.role}, not of a {role.value}")
    what = f"the node document of '{document.name}'"
    check_window(what, _moment(document.not_before), _moment(document.not_after), now)
    check_window(
        "the authority's certificate",
        issuer.not_valid_before_utc,
        issuer.not_valid_after_utc,
        now,
    )
    return document


def _open(text: str, root_pem: bytes) -> tuple[NodeDocument, x509.Certificate]:
    inner, issuer = open_statement(_STATEMENT, text, root_pem, MAX_DOCUMENT)
    return _document(inner), issuer


def _document(inner: Mapping[str, Any]) -> NodeDocument:
    """What an authority signed; another version's fields are no reason for a traceback."""
    fields = {name: value for name, value in inner.items() if name != "is"}
    try:
        document = NodeDocument(**fields)
        _ = document.public_key
    except UNREADABLE:
        raise _refused("is of another version of Hansa") from None
    return document


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _refused(reason: str) -> IdentityError:
    return refused(_STATEMENT, reason)
