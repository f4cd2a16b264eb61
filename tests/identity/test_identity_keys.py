"""A member's keys on its disk: private, consistent, and replaced as one unit whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hansa.errors import IdentityError
from hansa.identity.keys import (
    SiteRequest,
    install_credentials,
    load_credentials,
    make_site_keys,
    save_credentials,
)
from hansa.identity.names import Role
from tests.support import crash_keys
from tests.support.ca import FEDERATION, NOW, enrol, issue

CRASH = Path(crash_keys.__file__)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_enrolment(authority, folder):
    made = enrol(authority, folder)
    assert load_credentials(folder) == made
    assert (made.name, made.role, made.organisation) == ("kiel", Role.SITE, "Klinikum Kiel")
    assert made.not_after == NOW + timedelta(hours=24)
    assert made.federation == FEDERATION
    assert made.root_pem == authority.root_pem
    assert (
        made.signing_key().public_key().public_bytes_raw()
        == make_site_keys(folder, "kiel", FEDERATION).signing_key
    )


def test_all_that_is_secret_is_private(authority, folder):
    enrol(authority, folder)
    make_site_keys(folder, "kiel", FEDERATION)
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode & 0o777
        if path.is_dir() and not path.is_symlink():
            assert mode == 0o700, path
        if path.suffix == ".key":
            assert mode == 0o600, path
        elif path.is_file():
            assert b"PRIVATE" not in path.read_bytes(), path


def test_no_secret_in_the_request_or_in_repr(authority, folder):
    made = enrol(authority, folder)
    assert "PRIVATE" not in repr(made)
    assert "key" not in repr(made)
    assert b"PRIVATE" not in make_site_keys(folder, "kiel", FEDERATION).csr_pem


def test_a_request_can_be_repeated_with_the_same_keys(folder):
    first = make_site_keys(folder, "kiel", FEDERATION)
    again = make_site_keys(folder, "kiel", FEDERATION)
    assert key_of(first) == key_of(again)
    assert first.signing_key == again.signing_key


def key_of(request: SiteRequest) -> bytes:
    return (
        x509.load_pem_x509_csr(request.csr_pem)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def test_a_renewal_changes_the_tls_key_and_keeps_the_signing_key(authority, folder):
    first = enrol(authority, folder)
    second = enrol(authority, folder, now=NOW + timedelta(hours=16))
    assert second.key_pem != first.key_pem
    assert second.signing_key_pem == first.signing_key_pem
    assert second.serial != first.serial
    assert load_credentials(folder) == second


def test_old_sets_go_away(authority, folder):
    for hour in range(5):
        enrol(authority, folder, now=NOW + timedelta(hours=hour))
    assert sorted(p.name for p in folder.iterdir()) == ["4", "5", "current"]


def test_until_the_certificate_is_there_the_old_set_is_used(authority, folder):
    first = enrol(authority, folder)
    make_site_keys(folder, "kiel", FEDERATION)
    assert load_credentials(folder) == first


def test_the_coordinator_saves_and_loads_the_same_way(authority, folder):
    made = authority.issue_coordinator(["localhost"], NOW)
    save_credentials(folder, made)
    assert load_credentials(folder) == made
    assert made.role is Role.COORDINATOR
    later = authority.issue_coordinator(["localhost"], NOW + timedelta(days=20))
    save_credentials(folder, later)
    assert load_credentials(folder) == later


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("fail/other root than pinned", "does not lead to the pinned root"),
        ("fail/leaf only", "does not lead to the pinned root"),
        ("fail/for other keys", "is for another TLS key"),
        ("fail/document of another site", "for another signing key"),
        ("fail/document of another root", "pinned root did not appoint"),
        ("fail/chain is text", "cannot be read as PEM"),
        ("fail/document is text", "cannot be read"),
        ("fail/server certificate", "is for another TLS key"),
    ],
)
def test_install_refuses_and_changes_nothing(case, words, authority, stranger, folder, tmp_path):
    first = enrol(authority, folder)
    issued = issue(authority, folder)
    chain, root, document = issued.chain_pem, authority.root_pem, issued.document
    other = issue(authority, tmp_path / "other", "luebeck")
    if case == "fail/other root than pinned":
        root = stranger.root_pem
    elif case == "fail/leaf only":
        chain = chain[: chain.index(b"-----END") + 26]
    elif case == "fail/for other keys":
        chain, document = other.chain_pem, other.document
    elif case == "fail/document of another site":
        document = other.document
    elif case == "fail/document of another root":
        document = issue(stranger, folder).document
    elif case == "fail/chain is text":
        chain = b"hello"
    elif case == "fail/document is text":
        document = "hello"
    elif case == "fail/server certificate":
        chain = authority.issue_coordinator(["localhost"], NOW).chain_pem
    before = snapshot(folder)
    with pytest.raises(IdentityError, match=words):
        install_credentials(folder, chain, root, document)
    assert snapshot(folder) == before
    assert load_credentials(folder) == first
    install_credentials(folder, issued.chain_pem, authority.root_pem, issued.document)


def test_install_needs_a_request(folder):
    folder.mkdir(mode=0o700)
    with pytest.raises(IdentityError, match="wait for a certificate"):
        install_credentials(folder, b"", b"", "")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("fail/nothing", "holds no credentials. Fix: run: hansa site join INVITE"),
        ("fail/tls key readable", "tls.key has mode 0644"),
        ("fail/signing key readable", "signing.key has mode 0640"),
        ("fail/chain missing", "chain.pem is missing"),
        ("fail/key missing", "tls.key is missing"),
        ("fail/key is text", "holds no P-256 private key"),
        ("fail/signing key is text", "holds no Ed25519 private key"),
        ("fail/keys of another site", "is for another TLS key"),
        ("fail/signing key of another site", "is for another signing key"),
        ("fail/root of another federation", "does not lead to the pinned root"),
        ("fail/document is binary", "is not text"),
        ("fail/link is a file", "is not a link to a set"),
        ("fail/link to nowhere", "is not a link to a set"),
    ],
)
def test_load_refuses(case, words, authority, stranger, folder, tmp_path):
    if case != "fail/nothing":
        enrol(authority, folder)
    enrol(authority, tmp_path / "other", "luebeck")
    used, other = folder / "1", tmp_path / "other" / "1"
    if case == "fail/tls key readable":
        (used / "tls.key").chmod(0o644)
    elif case == "fail/signing key readable":
        (used / "signing.key").chmod(0o640)
    elif case == "fail/chain missing":
        (used / "chain.pem").unlink()
    elif case == "fail/key missing":
        (used / "tls.key").unlink()
    elif case == "fail/key is text":
        (used / "tls.key").write_text("secret words")
    elif case == "fail/signing key is text":
        (used / "signing.key").write_text("secret words")
    elif case == "fail/keys of another site":
        shutil.copy(other / "tls.key", used / "tls.key")
    elif case == "fail/signing key of another site":
        shutil.copy(other / "signing.key", used / "signing.key")
    elif case == "fail/root of another federation":
        (used / "root.pem").write_bytes(stranger.root_pem)
    elif case == "fail/document is binary":
        (used / "document.json").write_bytes(b"\xff")
    elif case == "fail/link is a file":
        (folder / "current").unlink()
        (folder / "current").write_text("1")
    elif case == "fail/link to nowhere":
        (folder / "current").unlink()
        (folder / "current").symlink_to("somewhere")
    with pytest.raises(IdentityError) as refused:
        load_credentials(folder)
    assert words in str(refused.value)
    assert "secret words" not in str(refused.value)


def test_an_open_folder_is_refused(folder):
    folder.mkdir(mode=0o755)
    with pytest.raises(IdentityError, match="chmod 700"):
        make_site_keys(folder, "kiel", FEDERATION)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["install", "request"])
@pytest.mark.parametrize("when", ["at the first enrolment", "at a renewal"])
def test_killed_at_every_file_operation(what, when, authority, folder, tmp_path):
    """The set in use is the old one or the new one, and the site can always go on."""
    if when == "at a renewal":
        enrol(authority, folder)
    if what == "install":
        issued = issue(authority, folder, now=NOW + timedelta(hours=16))
        (tmp_path / "chain.pem").write_bytes(issued.chain_pem)
        (tmp_path / "root.pem").write_bytes(authority.root_pem)
        (tmp_path / "document.json").write_text(issued.document)
    scratch = tmp_path.with_name(tmp_path.name + "-scratch")
    scratch.mkdir()
    command = [sys.executable, str(CRASH), str(tmp_path), what, str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = done.stdout.split("\n")[:-1]
    assert len(outcomes) > 10  # each was a kill, but for the last
    if what == "install":
        turn = outcomes.index("new True")
        assert set(outcomes[:turn]) == {"old True"}
        assert set(outcomes[turn:]) == {"new True"}
    else:
        assert set(outcomes) == {"old True"}
