"""X.509 certificates of one fixed shape each: root, intermediate, leaf. Reading and writing them.

| certificate  | lifetime | may sign             | subject alternative names                  |
|--------------|----------|----------------------|--------------------------------------------|
| root         | 10 years | intermediates        | `spiffe://<federation>`                    |
| intermediate | 1 year   | leaves and documents | `spiffe://<federation>`                    |
| site         | 24 hours | nothing (client)     | its SPIFFE id                              |
| coordinator  | 30 days  | nothing (server)     | its SPIFFE id, its host names and addresses |

All keys are ECDSA P-256 (RFC 5480): the TLS library under gRPC accepts no Ed25519 certificates.
All extensions follow RFC 5280 and the SPIFFE X509-SVID profile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hansa.errors import IdentityError
from hansa.identity.names import Role

SKEW: Final = timedelta(minutes=5)
"""How far certificates reach into the past, for clocks that run late."""

ROOT_LIFETIME: Final = timedelta(days=3653)
INTERMEDIATE_LIFETIME: Final = timedelta(days=365)

MAX_PEM: Final = 16 << 10
"""Most bytes of a certificate, a request or a chain that are looked at."""

# The library has no common base for what its parsers raise on bytes that are no certificate. Where
# warnings are errors, what it only warns of is refused as well.
UNREADABLE: Final = (
    Warning,
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.AttributeNotFound,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

USAGE_OF_ROLE: Final = {
    Role.SITE: ExtendedKeyUsageOID.CLIENT_AUTH,
    Role.COORDINATOR: ExtendedKeyUsageOID.SERVER_AUTH,
}


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as unencrypted PKCS #8, which is what TLS libraries read."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_key(pem: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 private key.

    Raises:
      IdentityError: the bytes are something else; they are not shown.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except UNREADABLE:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not is_p256(key.public_key()):
        raise IdentityError(f"{where} holds no P-256 private key", fix=f"restore {where}")
    return key


def is_p256(key: PublicKeyTypes) -> bool:
    """Whether a public key is on the one curve that is used."""
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def key_sha256(key: PublicKeyTypes) -> str:
    """SHA-256 of a public key in DER (SubjectPublicKeyInfo), in hexadecimal."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def to_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, in hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def serial_hex(certificate: x509.Certificate) -> str:
    """A serial number as 40 hexadecimal digits: one spelling for lists of revoked ones."""
    return f"{certificate.serial_number:040x}"


def read_chain(pem: bytes, what: str = "the certificate") -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM, in order; at least one.

    Raises:
      IdentityError: the bytes are no certificates.
    """
    if len(pem) > MAX_PEM:
        raise IdentityError(
            f"{what} has {len(pem):,} bytes, more than {MAX_PEM:,}",
            fix="send only the certificate that the coordinator issued",
        )
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except UNREADABLE as error:
        raise IdentityError(
            f"{what} cannot be read as PEM certificates",
            fix="use the file that the coordinator issued, unchanged",
        ) from error


@lru_cache(maxsize=64)
def read_one(pem: bytes) -> x509.Certificate:
    """One certificate of an authority, parsed once.

    Raises:
      IdentityError: the bytes are no certificate.
    """
    return read_chain(pem, "the authority's certificate")[0]


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's key signed the certificate and the names agree."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except UNREADABLE:
        return False
    return True


def make_root(key: ec.EllipticCurvePrivateKey, federation: str, now: datetime) -> x509.Certificate:
    """A self-signed root: it may have one level of authorities below it."""
    subject = _subject("Hansa root", federation)
    builder = _builder(subject, subject, key, now - SKEW, now + ROOT_LIFETIME)
    return _authority(builder, key, federation, path_length=1).sign(key, hashes.SHA256())


def make_intermediate(
    key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    federation: str,
    now: datetime,
) -> x509.Certificate:
    """An authority that signs leaves only."""
    until = min(now + INTERMEDIATE_LIFETIME, root.not_valid_after_utc)
    subject = _subject("Hansa authority", federation)
    builder = _builder(subject, root.subject, key, now - SKEW, until)
    builder = _authority(builder, key, federation, path_length=0)
    return builder.add_extension(_issuer_key(root), critical=False).sign(root_key, hashes.SHA256())


def make_leaf(
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    role: Role,
    subject: tuple[str, str],
    names: Sequence[x509.GeneralName],
    window: tuple[datetime, datetime],
) -> x509.Certificate:
    """A certificate for one member.

    Args:
      key: the member's public key.
      issuer: the authority's certificate.
      issuer_key: the authority's key.
      role: site: a TLS client only; coordinator: a TLS server only.
      subject: common name and organisation.
      names: subject alternative names.
      window: first and last moment.
    """
    builder = (
        _builder(_subject(*subject), issuer.subject, key, *window)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([USAGE_OF_ROLE[role]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_issuer_key(issuer), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def federation_of(authority: x509.Certificate) -> str:
    """The federation that a root or an intermediate belongs to.

    Raises:
      IdentityError: the certificate is no authority of Hansa's.
    """
    try:
        extensions = authority.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except UNREADABLE:
        uris, constraints = [], None
    if constraints is None or not constraints.ca or len(uris) != 1:
        raise IdentityError(
            "the certificate is not one of an authority of a federation",
            fix="use the root certificate that `hansa coordinator init` made",
        )
    return uris[0].removeprefix("spiffe://")


def _subject(common_name: str, organisation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey) else key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())  # 159 bits from the operating system
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _authority(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    federation: str,
    path_length: int,
) -> x509.CertificateBuilder:
    uri = x509.UniformResourceIdentifier(f"spiffe://{federation}")
    return (
        builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
