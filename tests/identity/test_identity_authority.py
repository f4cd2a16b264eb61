"""The authority: what it issues, judged by two other implementations, and what it refuses."""

from __future__ import annotations

import hashlib
import ipaddress
import shutil
import ssl
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import ClientVerifier, PolicyBuilder, Store, VerificationError

from hansa.errors import IdentityError
from hansa.identity.authority import Authority
from hansa.identity.peer import identify
from tests.support.ca import FEDERATION, NOW, issue, leaf_of, make_authority, pem

DAY = timedelta(days=1)


def chain_of(pem_bytes: bytes) -> tuple[x509.Certificate, x509.Certificate]:
    leaf, intermediate = x509.load_pem_x509_certificates(pem_bytes)
    return leaf, intermediate


def extension(certificate: x509.Certificate, kind: type[Any]) -> x509.Extension[Any]:
    return certificate.extensions.get_extension_for_class(kind)


# ------------------------------------------------------------------ shapes


def test_root_shape(authority):
    root = authority.root
    assert root.issuer == root.subject
    assert extension(root, x509.BasicConstraints).value == x509.BasicConstraints(True, 1)
    assert extension(root, x509.BasicConstraints).critical
    assert extension(root, x509.KeyUsage).critical
    assert extension(root, x509.KeyUsage).value.key_cert_sign
    lifetime = root.not_valid_after_utc - NOW
    assert 3652 * DAY <= lifetime <= 3653 * DAY
    der = ssl.PEM_cert_to_DER_cert(authority.root_pem.decode())
    assert authority.root_fingerprint == hashlib.sha256(der).hexdigest()


def test_intermediate_shape(authority):
    intermediate = authority.intermediates[0]
    assert extension(intermediate, x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert intermediate.not_valid_after_utc - NOW == 365 * DAY
    own = extension(authority.root, x509.SubjectKeyIdentifier).value.digest
    assert extension(intermediate, x509.AuthorityKeyIdentifier).value.key_identifier == own


def test_site_certificate_shape(authority, folder):
    issued = issue(authority, folder)
    leaf, intermediate = chain_of(issued.chain_pem)
    assert intermediate == authority.intermediates[0]
    assert extension(leaf, x509.BasicConstraints).value == x509.BasicConstraints(False, None)
    usage = extension(leaf, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert list(extension(leaf, x509.SubjectAlternativeName).value) == [
        x509.UniformResourceIdentifier("spiffe://hanse/site/kiel")
    ]
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5) == issued.not_before
    assert leaf.not_valid_after_utc == NOW + DAY == issued.not_after
    assert issued.serial_hex == f"{leaf.serial_number:040x}"
    organisation = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0]
    assert organisation.value == "Klinikum Kiel"


def test_coordinator_certificate_shape(authority):
    credentials = authority.issue_coordinator(["FL.example.org", "127.0.0.1", "::1"], NOW)
    leaf, _ = chain_of(credentials.chain_pem)
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert list(extension(leaf, x509.SubjectAlternativeName).value) == [
        x509.UniformResourceIdentifier("spiffe://hanse/coordinator"),
        x509.DNSName("fl.example.org"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    assert leaf.not_valid_after_utc == NOW + 30 * DAY
    assert credentials.not_after == NOW + 30 * DAY


def test_serials_have_159_bits_and_differ(authority, folder):
    serials = {int(issue(authority, folder).serial_hex, 16) for _ in range(64)}
    assert len(serials) == 64
    assert max(serials) < 1 << 159
    assert max(serials) >= 1 << 155  # 64 numbers all below have a chance of 2**-256


def test_nothing_outlives_the_authority(authority, folder):
    late = authority.intermediates[0].not_valid_after_utc - timedelta(hours=1)
    assert issue(authority, folder, now=late).not_after == late + timedelta(hours=1)
    with pytest.raises(IdentityError, match="the authority expired"):
        issue(authority, folder, now=late + timedelta(hours=2))


# ------------------------------------------------------------------ other implementations agree


def client_verifier(root: x509.Certificate, now: datetime) -> ClientVerifier:
    return PolicyBuilder().store(Store([root])).time(now).build_client_verifier()


def test_cryptography_accepts_a_site_as_client(authority, folder):
    leaf, intermediate = chain_of(issue(authority, folder).chain_pem)
    verified = client_verifier(authority.root, NOW).verify(leaf, [intermediate])
    assert verified.chain == [leaf, intermediate, authority.root]
    assert verified.subjects is not None
    assert verified.subjects[0].value == "spiffe://hanse/site/kiel"


def test_cryptography_accepts_the_coordinator_as_server_under_its_names_only(authority):
    leaf, intermediate = chain_of(authority.issue_coordinator(["fl.example.org"], NOW).chain_pem)
    policy = PolicyBuilder().store(Store([authority.root])).time(NOW)
    policy.build_server_verifier(x509.DNSName("fl.example.org")).verify(leaf, [intermediate])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("other.example.org")).verify(leaf, [intermediate])


@pytest.mark.parametrize(
    "case", ["fail/expired", "fail/too early", "fail/other root", "fail/server as client"]
)
def test_cryptography_refuses(case, authority, stranger, folder):
    leaf, intermediate = chain_of(issue(authority, folder).chain_pem)
    root, now = authority.root, NOW
    if case == "fail/expired":
        now = NOW + timedelta(hours=25)
    elif case == "fail/too early":
        now = NOW - timedelta(hours=1)
    elif case == "fail/other root":
        root = stranger.root
    else:
        leaf, intermediate = chain_of(authority.issue_coordinator(["localhost"], NOW).chain_pem)
    with pytest.raises(VerificationError):
        client_verifier(root, now).verify(leaf, [intermediate])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
@pytest.mark.parametrize(
    ("case", "role", "purpose"),
    [
        ("ok/site as client", "site", "sslclient"),
        ("ok/coordinator as server", "coordinator", "sslserver"),
        ("fail/site as server", "site", "sslserver"),
        ("fail/coordinator as client", "coordinator", "sslclient"),
    ],
)
def test_openssl_agrees(case, role, purpose, authority, folder, tmp_path):
    if role == "site":
        chain = issue(authority, folder).chain_pem
    else:
        chain = authority.issue_coordinator(["localhost"], NOW).chain_pem
    leaf, intermediate = chain_of(chain)
    for name, certificate in (("root", authority.root), ("mid", intermediate), ("leaf", leaf)):
        (tmp_path / name).write_bytes(pem(certificate))
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose]
    command += [
        "-attime",
        str(int(NOW.timestamp())),
        "-CAfile",
        "root",
        "-untrusted",
        "mid",
        "leaf",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=20, check=False)
    assert (done.returncode == 0) is case.startswith("ok/"), done.stdout + done.stderr


# ------------------------------------------------------------------ the folder


def test_keys_are_private(tmp_path):
    make_authority(tmp_path / "ca")
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "ca").iterdir()}
    assert modes == {
        "root.key": 0o600,
        "root.pem": 0o644,
        "intermediate-0001.key": 0o600,
        "intermediate-0001.pem": 0o644,
    }
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700


def test_load_gives_the_same_authority(authority):
    again = Authority.load(authority.folder)
    assert again == authority
    assert again.federation == FEDERATION
    assert again.trust == authority.trust


def test_repr_shows_no_key(authority):
    assert "_key" not in repr(authority)
    assert "PRIVATE" not in repr(authority)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("fail/root.key readable by group", ["mode 0640", "chmod 600"]),
        ("fail/intermediate key readable by all", ["mode 0644", "chmod 600"]),
        ("fail/folder open to all", ["mode 0755", "chmod 700"]),
        ("fail/nothing there", ["no complete authority", "hansa coordinator init"]),
        ("fail/no intermediate", ["no complete authority"]),
        ("fail/key of another authority", ["does not belong to"]),
        ("fail/root of another authority", ["was not appointed by root.pem"]),
        ("fail/key is text", ["holds no P-256 private key"]),
        ("fail/root is text", ["cannot be read as PEM"]),
    ],
)
def test_load_refuses(case, words, tmp_path, stranger):
    folder = tmp_path / "ca"
    if "nothing" not in case:
        make_authority(folder)
    key = folder / "intermediate-0001.key"
    if case == "fail/root.key readable by group":
        (folder / "root.key").chmod(0o640)
    elif case == "fail/intermediate key readable by all":
        key.chmod(0o644)
    elif case == "fail/folder open to all":
        folder.chmod(0o755)
    elif case == "fail/no intermediate":
        (folder / "intermediate-0001.pem").unlink()
    elif case == "fail/key of another authority":
        key.write_bytes((stranger.folder / "intermediate-0001.key").read_bytes())
    elif case == "fail/root of another authority":
        (folder / "root.pem").write_bytes(stranger.root_pem)
    elif case == "fail/key is text":
        key.write_text("not a key")
    elif case == "fail/root is text":
        (folder / "root.pem").write_text("not a certificate")
    with pytest.raises(IdentityError) as refused:
        Authority.load(folder)
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_create_never_overwrites(authority):
    before = {p: p.read_bytes() for p in authority.folder.iterdir()}
    with pytest.raises(IdentityError, match="holds an authority already"):
        Authority.create(authority.folder, FEDERATION, NOW)
    assert {p: p.read_bytes() for p in authority.folder.iterdir()} == before


def test_create_refuses_an_open_folder(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(IdentityError, match="chmod 700"):
        Authority.create(tmp_path / "open", FEDERATION, NOW)


@pytest.mark.parametrize("name", ["", "Hanse", "a b", "-a", "a/", "ä", "a" * 64, "a\n"])
def test_create_refuses_a_name(name, tmp_path):
    with pytest.raises(IdentityError, match="cannot be the name of a federation"):
        Authority.create(tmp_path / "ca", name, NOW)


# ------------------------------------------------------------------ renewal of the authority


def test_a_renewed_authority_still_knows_what_the_old_one_issued(tmp_path, folder):
    old = make_authority(tmp_path / "ca")
    before = leaf_of(issue(old, folder).chain_pem)
    assert not old.due(NOW + 200 * DAY)
    later = NOW + 250 * DAY
    assert old.due(later)
    new = old.renew(later)
    after = leaf_of(issue(new, folder, now=later).chain_pem)
    assert identify(before, new.trust, NOW).name == "kiel"
    assert identify(after, new.trust, later).name == "kiel"
    with pytest.raises(IdentityError, match="not signed by an authority"):
        identify(after, old.trust, later)
    assert new.root_fingerprint == old.root_fingerprint
    assert sorted(p.name for p in (tmp_path / "ca").glob("*.key")) == [
        "intermediate-0002.key",
        "root.key",
    ]


def test_the_authority_works_without_the_root_key_until_it_is_renewed(tmp_path, folder):
    made = make_authority(tmp_path / "ca")
    (made.folder / "root.key").unlink()
    alone = Authority.load(made.folder)
    assert issue(alone, folder).not_after == NOW + DAY
    with pytest.raises(IdentityError, match=r"root\.key is needed.*put it back"):
        alone.renew(NOW + 250 * DAY)


@pytest.mark.parametrize(
    ("case", "days", "root_key", "intermediates"),
    [
        ("ok/not due", 200, True, 1),
        ("ok/due", 250, True, 2),
        ("ok/due, but the root is elsewhere", 250, False, 1),
        ("ok/overdue, the root is back", 400, True, 2),
    ],
)
def test_open(case, days, root_key, intermediates, tmp_path, folder):
    made = make_authority(tmp_path / "ca")
    if not root_key:
        (made.folder / "root.key").unlink()
    now = NOW + days * DAY
    opened = Authority.open(made.folder, now)
    assert len(opened.intermediates) == intermediates
    assert issue(opened, folder, now=now).not_after == now + DAY
    assert Authority.open(made.folder, now) == opened


def test_an_interrupted_renewal_changes_nothing(tmp_path):
    made = make_authority(tmp_path / "ca")
    orphan = made.folder / "intermediate-0002.key"
    orphan.write_bytes(b"written just before the crash")
    orphan.chmod(0o600)
    assert Authority.load(made.folder) == made
    assert len(made.renew(NOW + 250 * DAY).intermediates) == 2


# ------------------------------------------------------------------ arguments


@pytest.mark.parametrize("hosts", [[], ["https://x"], ["a:1"], ["[::1]"], ["a..b"], ["ä.de"], [""]])
def test_hosts_are_checked(hosts, authority):
    with pytest.raises(IdentityError, match=r"no host name|neither a DNS name"):
        authority.issue_coordinator(hosts, NOW)


@pytest.mark.parametrize("lifetime", [timedelta(0), -DAY, 91 * DAY])
def test_lifetimes_are_bounded(lifetime, authority, folder):
    with pytest.raises(IdentityError, match="lifetime of"):
        issue(authority, folder, lifetime=lifetime)


@pytest.mark.parametrize(
    ("site", "organisation"),
    [("Kiel", "x"), ("coordinator", "x"), ("../kiel", "x"), ("kiel", ""), ("kiel", "a\nb")],
)
def test_names_are_checked(site, organisation, authority):
    with pytest.raises(IdentityError, match="cannot be the name"):
        authority.issue_site(b"", site, organisation, NOW)


def test_import_is_light():
    code = (
        "import sys; import hansa.identity.authority, hansa.identity.invites, "
        "hansa.identity.receipts; "
        "heavy = ('numpy', 'grpc', 'torch', 'pydantic', 'sqlalchemy'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
