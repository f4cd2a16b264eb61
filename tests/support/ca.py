"""A throw-away federation for tests: an authority, members, and forgers of bad certificates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hansa.identity.authority import SITE_LIFETIME, Authority, IssuedCertificate
from hansa.identity.credentials import Credentials
from hansa.identity.keys import install_credentials, make_site_keys

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
"""The present of tests that are not about the present."""

FEDERATION = "hanse"


def make_authority(folder: Path, federation: str = FEDERATION, now: datetime = NOW) -> Authority:
    return Authority.create(folder, federation, now)


def issue(
    authority: Authority,
    folder: Path,
    site: str = "kiel",
    organisation: str = "Klinikum Kiel",
    now: datetime = NOW,
    lifetime: timedelta = SITE_LIFETIME,
) -> IssuedCertificate:
    request = make_site_keys(folder, site, authority.federation)
    return authority.issue_site(request.csr_pem, site, organisation, now, lifetime)


def enrol(
    authority: Authority,
    folder: Path,
    site: str = "kiel",
    organisation: str = "Klinikum Kiel",
    now: datetime = NOW,
    lifetime: timedelta = SITE_LIFETIME,
) -> Credentials:
    issued = issue(authority, folder, site, organisation, now, lifetime)
    return install_credentials(folder, issued.chain_pem, authority.root_pem, issued.document)


def leaf_of(chain_pem: bytes) -> bytes:
    """The first certificate of a chain, as the TLS layer shows it."""
    return pem(x509.load_pem_x509_certificates(chain_pem)[0])


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def forge(
    names: Sequence[str],
    issuer: x509.Certificate | None = None,
    issuer_key: ec.EllipticCurvePrivateKey | None = None,
    *,
    now: datetime = NOW,
    usage: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    common_name: str = "kiel",
) -> tuple[bytes, bytes]:
    """A certificate that no authority of Hansa's would write: its PEM and its key's.

    Self-signed if there is no issuer.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=24))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        uris = [x509.UniformResourceIdentifier(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usage)), critical=False)
    return pem(builder.sign(issuer_key or key, hashes.SHA256())), key_bytes(key)
