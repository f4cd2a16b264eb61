"""Who is calling: every certificate that must not pass, and what is never remembered."""

from __future__ import annotations

import time
from base64 import encodebytes
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import IdentityError
from hansa.identity.names import Role, read_spiffe_id, spiffe_id
from hansa.identity.peer import identify, read_certificate
from hansa.identity.trust import Trust
from tests.support.ca import NOW, enrol, forge, issue, leaf_of, make_authority, pem

MINE = "spiffe://hanse/site/kiel"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def leaf(authority, tmp_path_factory) -> bytes:
    return leaf_of(issue(authority, tmp_path_factory.mktemp("site") / "identity").chain_pem)


@pytest.fixture(scope="module")
def coordinator(authority) -> bytes:
    return leaf_of(authority.issue_coordinator(["localhost"], NOW).chain_pem)


def serial_of(certificate: bytes) -> str:
    return f"{x509.load_pem_x509_certificate(certificate).serial_number:040x}"


def test_a_site(leaf, authority):
    peer = identify(leaf, authority.trust, NOW)
    assert (peer.name, peer.role, peer.organisation) == ("kiel", Role.SITE, "Klinikum Kiel")
    assert peer.serial == serial_of(leaf)
    assert peer.not_after == NOW + 24 * HOUR


def test_the_coordinator(coordinator, authority):
    peer = identify(coordinator, authority.trust, NOW, role=Role.COORDINATOR)
    assert (peer.name, peer.role) == ("coordinator", Role.COORDINATOR)


@pytest.mark.parametrize(
    ("case", "arguments", "words"),
    [
        ("ok/first second", {"now": NOW - timedelta(minutes=5)}, ""),
        ("ok/last second", {"now": NOW + 24 * HOUR}, ""),
        ("ok/others are revoked", {"revoked_sites": {"luebeck"}, "revoked_serials": {"00"}}, ""),
        ("fail/too early", {"now": NOW - timedelta(minutes=6)}, "is valid from 2026-01-15 11:55"),
        ("fail/expired", {"now": NOW + 24 * HOUR + timedelta(seconds=1)}, "expired at 2026-01-16"),
        ("fail/site revoked", {"revoked_sites": {"kiel"}}, "'kiel' was revoked"),
        ("fail/role", {"role": Role.COORDINATOR}, "only a coordinator may do this"),
    ],
)
def test_moment_and_lists(case, arguments, words, leaf, authority):
    arguments = {"now": NOW} | arguments
    if case.startswith("ok/"):
        assert identify(leaf, authority.trust, **arguments).name == "kiel"
        return
    with pytest.raises(IdentityError, match=words) as refused:
        identify(leaf, authority.trust, **arguments)
    assert refused.value.fix


def test_fail_serial_revoked(leaf, authority):
    with pytest.raises(IdentityError, match=f"certificate {serial_of(leaf)} of 'kiel' was revoked"):
        identify(leaf, authority.trust, NOW, revoked_serials={serial_of(leaf)})


def test_fail_server_certificate_as_client(coordinator, authority):
    with pytest.raises(IdentityError, match="only a site may do this"):
        identify(coordinator, authority.trust, NOW, role=Role.SITE)


CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@pytest.mark.parametrize(
    ("case", "names", "usage", "words"),
    [
        ("ok/the forger's tools work", [MINE], [CLIENT], ""),
        ("fail/no name", [], [CLIENT], "lacks what every certificate"),
        ("fail/two names", [MINE, "spiffe://hanse/site/luebeck"], [CLIENT], "2 URI names instead"),
        ("fail/web address", ["https://hanse/site/kiel"], [CLIENT], "not the SPIFFE id"),
        ("fail/upper case", ["spiffe://hanse/site/Kiel"], [CLIENT], "not the SPIFFE id"),
        ("fail/longer path", [MINE + "/admin"], [CLIENT], "not the SPIFFE id"),
        ("fail/query", [MINE + "?x"], [CLIENT], "not the SPIFFE id"),
        ("fail/port", ["spiffe://hanse:1/site/kiel"], [CLIENT], "not the SPIFFE id"),
        ("fail/line break", [MINE + "\n"], [CLIENT], "not the SPIFFE id"),
        ("fail/other federation", ["spiffe://rhein/site/kiel"], [CLIENT], "of federation 'rhein'"),
        ("fail/no usage", [MINE], None, "lacks what every certificate"),
        ("fail/usage server", [MINE], [SERVER], "is not for use as a site"),
        ("fail/both usages", [MINE], [CLIENT, SERVER], "is not for use as a site"),
        ("fail/coordinator as client", ["spiffe://hanse/coordinator"], [CLIENT], "not for use as"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_signed_by_the_authority_but_wrong(case, names, usage, words, authority):
    """Defence in depth: even the authority's own signature does not excuse a wrong certificate."""
    bad, _ = forge(names, authority.intermediates[0], authority._key, usage=usage)
    if case.startswith("ok/"):
        assert identify(bad, authority.trust, NOW).name == "kiel"
        return
    with pytest.raises(IdentityError, match=words):
        identify(bad, authority.trust, NOW)


@pytest.mark.parametrize("case", ["fail/self-signed", "fail/stranger", "fail/signed by a site"])
def test_not_signed_by_the_authority(case, authority, stranger, tmp_path):
    if case == "fail/self-signed":
        bad, _ = forge([MINE])
    elif case == "fail/stranger":
        bad = leaf_of(issue(stranger, tmp_path / "identity").chain_pem)
    else:
        site = enrol(authority, tmp_path / "identity")
        key = serialization.load_pem_private_key(site.key_pem, None)
        signer = x509.load_pem_x509_certificate(site.chain_pem)
        bad, _ = forge([MINE], signer, key)  # type: ignore[arg-type]
    with pytest.raises(IdentityError, match="not signed by an authority of federation 'hanse'"):
        identify(bad, authority.trust, NOW)


def test_fail_intermediate_of_another_root(authority, stranger, tmp_path):
    """A trust that was put together wrongly does not let strangers in."""
    mixed = Trust("hanse", authority.root_pem, stranger.trust.intermediates)
    bad = leaf_of(issue(stranger, tmp_path / "identity").chain_pem)
    with pytest.raises(IdentityError, match="not signed by an authority"):
        identify(bad, mixed, NOW)


def test_fail_authority_itself_as_member(authority):
    for certificate in (authority.root, *authority.intermediates):
        with pytest.raises(IdentityError):
            identify(pem(certificate), authority.trust, NOW)


def test_fail_authority_expired(tmp_path):
    old = make_authority(tmp_path / "ca", now=NOW - timedelta(days=366))
    bad, _ = forge([MINE], old.intermediates[0], old._key)
    with pytest.raises(IdentityError, match="the authority's certificate expired"):
        identify(bad, old.trust, NOW)


def test_nothing_that_changes_is_remembered(leaf, authority):
    """The same certificate: good, revoked, good again, expired."""
    assert identify(leaf, authority.trust, NOW).name == "kiel"
    with pytest.raises(IdentityError, match="revoked"):
        identify(leaf, authority.trust, NOW, revoked_sites={"kiel"})
    with pytest.raises(IdentityError, match="revoked"):
        identify(leaf, authority.trust, NOW, revoked_serials={serial_of(leaf)})
    assert identify(leaf, authority.trust, NOW).name == "kiel"
    with pytest.raises(IdentityError, match="expired"):
        identify(leaf, authority.trust, NOW + 25 * HOUR)


def test_a_withdrawn_authority_is_not_remembered(leaf, authority, stranger):
    assert identify(leaf, authority.trust, NOW).name == "kiel"
    with pytest.raises(IdentityError, match="not signed by an authority"):
        identify(leaf, stranger.trust, NOW)


def test_a_call_costs_less_than_100_microseconds(leaf, authority):
    trust = authority.trust
    best = min(_seconds_per_call(leaf, trust) for _ in range(5))
    assert best < 100e-6


def _seconds_per_call(leaf: bytes, trust: Trust) -> float:
    calls, started = 500, time.perf_counter()
    for _ in range(calls):
        identify(bytes(bytearray(leaf)), trust, NOW)  # other memory each time, as from a network
    return (time.perf_counter() - started) / calls


@pytest.mark.parametrize(
    ("role", "name"), [(Role.SITE, "kiel"), (Role.SITE, "a-1_b"), (Role.COORDINATOR, "coordinator")]
)
def test_ids_read_back(role, name):
    assert read_spiffe_id(spiffe_id("a.b-c", role, name)) == ("a.b-c", role, name)


# ------------------------------------------------------------------ fuzz


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_identity_error(authority, data):
    header, footer = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
    for candidate in (data, header + data + footer, header + encodebytes(data) + footer):
        with pytest.raises(IdentityError):
            identify(candidate, authority.trust, NOW)


@settings(derandomize=True, deadline=None, max_examples=1500)
@given(st.data())
def test_changed_certificates_are_an_identity_error(leaf, authority, data):
    good = x509.load_pem_x509_certificate(leaf).public_bytes(serialization.Encoding.DER)
    der = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(der) - 1))
        der[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not der:
            break
    text = (
        b"-----BEGIN CERTIFICATE-----\n" + encodebytes(bytes(der)) + b"-----END CERTIFICATE-----\n"
    )
    try:
        found = identify(text, authority.trust, NOW)
    except IdentityError:
        return
    assert found == identify(leaf, authority.trust, NOW)  # only the signature's padding is free


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data())
def test_changed_pem_is_the_same_member_or_an_identity_error(leaf, authority, data):
    position = data.draw(st.integers(0, len(leaf) - 1))
    changed = leaf[:position] + data.draw(st.binary(max_size=2)) + leaf[position + 1 :]
    try:
        found = read_certificate(changed, authority.trust)
    except IdentityError:
        return
    assert found == read_certificate(leaf, authority.trust)
