"""What a site asks a certificate for: two public keys, and the proof that it holds both.

A request is a PKCS #10 certificate signing request (RFC 2986). The TLS key signs it as a whole; one
extension carries the site's Ed25519 key and that key's signature over the TLS key. So neither key
can be swapped for somebody else's, and an enrolment and a renewal are one message.

Only the keys are taken from a request. Its subject and everything else in it is what the sender
would like to be called, so it is ignored; names that it asks for must be the invited one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.errors import IdentityError
from hansa.identity.certificates import UNREADABLE, is_p256, key_sha256
from hansa.identity.names import Role, spiffe_id

MAX_REQUEST: Final = 8 << 10
"""Most bytes of a request that are looked at."""

# An object identifier made from a UUID needs no registration (ITU-T X.667).
SIGNING_KEY: Final = x509.ObjectIdentifier("2.25.169830632113334894141976099950476426420")

_CONTEXT: Final = b"hansa/signing-key-of/1\0"
_KEY_SIZE: Final = 32
_PROOF_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """The keys of a request whose sender was proved to hold them.

    Attributes:
      tls_key: P-256 public key.
      signing_key: (32 bytes) Ed25519 public key.
    """

    tls_key: ec.EllipticCurvePublicKey
    signing_key: bytes


def make_request(
    tls_key: ec.EllipticCurvePrivateKey,
    signing_key: Ed25519PrivateKey,
    federation: str,
    site: str,
) -> bytes:
    """A request for a site's certificate, as PEM."""
    uri = x509.UniformResourceIdentifier(spiffe_id(federation, Role.SITE, site))
    proof = signing_key.sign(_proved(tls_key.public_key()))
    bound = signing_key.public_key().public_bytes_raw() + proof
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.UnrecognizedExtension(SIGNING_KEY, bound), critical=False)
        .sign(tls_key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM)


def check_request(csr_pem: bytes, federation: str, site: str) -> CheckedRequest:
    """The keys in a request, after every check.

    Raises:
      IdentityError: the request is no PKCS #10, the sender does not hold the keys, a key is of
        another kind, or a name is asked for that was not invited.
    """
    if len(csr_pem) > MAX_REQUEST:
        raise _refused(f"has {len(csr_pem):,} bytes, more than {MAX_REQUEST:,}")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        tls_key = request.public_key()
    except UNREADABLE as error:
        raise _refused("cannot be read as PKCS #10 in PEM") from error
    if not isinstance(tls_key, ec.EllipticCurvePublicKey) or not is_p256(tls_key):
        raise _refused("is for a key that is not ECDSA P-256")
    try:
        held, extensions = request.is_signature_valid, request.extensions
    except UNREADABLE as error:
        raise _refused("cannot be read as PKCS #10 in PEM") from error
    if not held:
        raise _refused("is not signed by the key it asks a certificate for")
    _check_names(extensions, federation, site)
    return CheckedRequest(tls_key, _signing_key(extensions, tls_key))


def _check_names(extensions: x509.Extensions, federation: str, site: str) -> None:
    try:
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return
    invited = x509.UniformResourceIdentifier(spiffe_id(federation, Role.SITE, site))
    if names != [invited]:
        asked = ", ".join(str(name.value)[:80] for name in names[:5])
        raise _refused(f"asks for the names [{asked}], but the invited one is {invited.value}")


def _signing_key(extensions: x509.Extensions, tls_key: ec.EllipticCurvePublicKey) -> bytes:
    try:
        value = extensions.get_extension_for_oid(SIGNING_KEY).value
    except x509.ExtensionNotFound:
        raise _refused("carries no Ed25519 signing key") from None
    bound = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    if len(bound) != _KEY_SIZE + _PROOF_SIZE:
        raise _refused("carries a signing key of a wrong size")
    key, proof = bound[:_KEY_SIZE], bound[_KEY_SIZE:]
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(proof, _proved(tls_key))
    except UNREADABLE:
        raise _refused("carries a signing key that its sender does not hold") from None
    return key


def _proved(tls_key: ec.EllipticCurvePublicKey) -> bytes:
    return _CONTEXT + hashlib.sha256(key_sha256(tls_key).encode("ascii")).digest()


def _refused(reason: str) -> IdentityError:
    return IdentityError(
        f"the certificate request {reason}",
        fix="let `hansa site join` or `hansa site run` make the request",
    )
