"""Certificate requests: keys are taken from them, names never."""

from __future__ import annotations

import hashlib
from base64 import encodebytes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import IdentityError
from hansa.identity.documents import open_document
from hansa.identity.keys import make_site_keys
from hansa.identity.requests import SIGNING_KEY, check_request, make_request
from tests.support.ca import FEDERATION, NOW

MINE = "spiffe://hanse/site/kiel"
CURVE = ec.SECP256R1
NOBODY = x509.Name([])


def proof(signer: Ed25519PrivateKey, tls_key: ec.EllipticCurvePublicKey) -> bytes:
    """The signing key and its proof, written from the rule and not with the code under test."""
    der = tls_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    inner = hashlib.sha256(hashlib.sha256(der).hexdigest().encode()).digest()
    signed = b"hansa/signing-key-of/1\x00" + inner
    return signer.public_key().public_bytes_raw() + signer.sign(signed)


def request(
    key: Any = None,
    *,
    names: Sequence[Any] = (MINE,),
    bound: bytes | None = None,
    subject: x509.Name = NOBODY,
    extra: x509.ExtensionType | None = None,
    hash_: hashes.SHA256 | hashes.SHA512 = hashes.SHA256(),  # noqa: B008 (has no state)
) -> bytes:
    key = key or ec.generate_private_key(CURVE())
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        sans = [n if not isinstance(n, str) else x509.UniformResourceIdentifier(n) for n in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    if bound is None and isinstance(key, ec.EllipticCurvePrivateKey):
        bound = proof(Ed25519PrivateKey.generate(), key.public_key())
    if bound:
        builder = builder.add_extension(x509.UnrecognizedExtension(SIGNING_KEY, bound), False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    signed = builder.sign(key, hash_)
    return signed.public_bytes(serialization.Encoding.PEM)


def tampered() -> bytes:
    """A request whose name was changed after it was signed."""
    der = x509.load_pem_x509_csr(request()).public_bytes(serialization.Encoding.DER)
    changed = der.replace(b"spiffe://hanse/site/kiel", b"spiffe://hanse/site/kie1")
    return x509.load_der_x509_csr(changed).public_bytes(serialization.Encoding.PEM)


ELSEWHERE = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")])


@pytest.mark.parametrize(
    ("case", "make", "words"),
    [
        ("ok/the invited name", request, ""),
        ("ok/no name at all", lambda: request(names=()), ""),
        ("ok/subject is ignored", lambda: request(subject=ELSEWHERE), ""),
        (
            "ok/wish to be an authority is ignored",
            lambda: request(extra=x509.BasicConstraints(True, None)),
            "",
        ),
        ("ok/stronger hash", lambda: request(hash_=hashes.SHA512()), ""),
        (
            "fail/RSA",
            lambda: request(rsa.generate_private_key(65537, 2048), bound=b"x" * 96),
            "not ECDSA P-256",
        ),
        (
            "fail/P-384",
            lambda: request(ec.generate_private_key(ec.SECP384R1())),
            "not ECDSA P-256",
        ),
        (
            "fail/secp256k1",
            lambda: request(ec.generate_private_key(ec.SECP256K1())),
            "not ECDSA P-256",
        ),
        (
            "fail/another site",
            lambda: request(names=["spiffe://hanse/site/luebeck"]),
            "the invited",
        ),
        ("fail/two names", lambda: request(names=[MINE, MINE + "2"]), "the invited one is"),
        (
            "fail/a host name beside",
            lambda: request(names=[MINE, x509.DNSName("localhost")]),
            "the invited one is",
        ),
        ("fail/the coordinator", lambda: request(names=["spiffe://hanse/coordinator"]), "invited"),
        ("fail/other federation", lambda: request(names=["spiffe://x/site/kiel"]), "invited"),
        ("fail/not signed by its key", tampered, "not signed by the key"),
        ("fail/no signing key", lambda: request(bound=b""), "no Ed25519 signing key"),
        ("fail/short signing key", lambda: request(bound=b"x" * 95), "of a wrong size"),
        (
            "fail/signing key without proof",
            lambda: request(bound=Ed25519PrivateKey.generate().public_key().public_bytes_raw() * 3),
            "its sender does not hold",
        ),
        (
            "fail/proof for another TLS key",
            lambda: request(
                bound=proof(
                    Ed25519PrivateKey.generate(), ec.generate_private_key(CURVE()).public_key()
                )
            ),
            "its sender does not hold",
        ),
        ("fail/no PEM", lambda: b"hello", "cannot be read as PKCS #10"),
        ("fail/empty", lambda: b"", "cannot be read as PKCS #10"),
        ("fail/huge", lambda: request() + b"\n" * 10_000, "more than 8,192"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_request(case, make, words):
    if case.startswith("ok/"):
        assert len(check_request(make(), FEDERATION, "kiel").signing_key) == 32
        return
    with pytest.raises(IdentityError) as refused:
        check_request(make(), FEDERATION, "kiel")
    assert words in str(refused.value)


def test_names_come_from_the_invite(authority):
    issued = authority.issue_site(request(names=(), subject=ELSEWHERE), "kiel", "Klinikum", NOW)
    leaf = x509.load_pem_x509_certificates(issued.chain_pem)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [n.value for n in names] == [MINE]
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "kiel"


def test_the_signing_key_of_the_request_is_the_one_in_the_document(authority, folder: Path):
    made = make_site_keys(folder, "kiel", FEDERATION)
    issued = authority.issue_site(made.csr_pem, "kiel", "Klinikum", NOW)
    document = open_document(issued.document, authority.root_pem)
    assert document.signing_key == made.signing_key.hex()


GOOD = make_request(
    ec.derive_private_key(7, CURVE()),
    Ed25519PrivateKey.from_private_bytes(bytes(32)),
    FEDERATION,
    "kiel",
)
GOOD_DER = x509.load_pem_x509_csr(GOOD).public_bytes(serialization.Encoding.DER)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.integers(0, len(GOOD_DER) - 1), st.integers(0, 255), st.booleans())
def test_changed_bytes_only_ever_raise_identity_errors(position, value, cut):
    der = bytearray(GOOD_DER)
    der[position] = value
    body = encodebytes(bytes(der[:position] if cut else der))
    text = b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
    try:
        found = check_request(text, FEDERATION, "kiel")
    except IdentityError:
        return
    assert found == check_request(GOOD, FEDERATION, "kiel")  # a signature noticed what matters
