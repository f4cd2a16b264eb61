"""Who may sign: each member checks the others itself, by the root that it pinned."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hansa.errors import IdentityError
from hansa.identity import directory as directory_module
from hansa.identity.authority import SITE_LIFETIME, Authority
from hansa.identity.credentials import Credentials
from hansa.identity.directory import Directory
from tests.support.ca import FEDERATION, NOW, enrol, make_authority

WORDS = b"what was signed"


class Clock:
    """A time that a test moves on."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(authority: Authority, clock: Clock) -> Directory:
    return Directory(authority.root_pem, FEDERATION, clock)


@pytest.fixture(scope="module")
def kiel(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return enrol(authority, tmp_path_factory.mktemp("kiel") / "keys")


def verify(directory: Directory, site: Credentials, name: str = "kiel") -> str | None:
    signature = site.signing_key().sign(WORDS)
    return directory.verify(name, site.document, WORDS, signature)


def test_a_signature_tells_the_organisation(directory: Directory, kiel: Credentials) -> None:
    assert verify(directory, kiel) == "Klinikum Kiel"
    assert verify(directory, kiel) == "Klinikum Kiel", "from memory"


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(63), bytes(4096)])
def test_another_signature_tells_nothing(
    directory: Directory, kiel: Credentials, signature: bytes
) -> None:
    assert directory.verify("kiel", kiel.document, WORDS, signature) is None
    good = kiel.signing_key().sign(WORDS)
    assert directory.verify("kiel", kiel.document, WORDS + b"!", good) is None


@pytest.mark.parametrize("document", ["", "{}", "[" * 100_000, "null", "ü" * 1000])
def test_what_is_no_document_tells_nothing(
    directory: Directory, kiel: Credentials, document: str
) -> None:
    signature = kiel.signing_key().sign(WORDS)
    assert directory.verify("kiel", document, WORDS, signature) is None


def test_a_name_is_that_of_the_document(directory: Directory, kiel: Credentials) -> None:
    assert verify(directory, kiel, "riga") is None
    assert verify(directory, kiel, "") is None


def test_documents_of_strangers_and_of_other_federations_tell_nothing(
    directory: Directory, stranger: Authority, tmp_path: Path
) -> None:
    assert verify(directory, enrol(stranger, tmp_path / "a")) is None
    other = make_authority(tmp_path / "ca", "other")
    assert verify(directory, enrol(other, tmp_path / "b")) is None
    elsewhere = Directory(other.root_pem, FEDERATION, lambda: NOW)
    assert verify(elsewhere, enrol(other, tmp_path / "c")) is None


def test_the_coordinator_is_no_site(directory: Directory, authority: Authority) -> None:
    """Its document says that it is the coordinator, and its name is none of a site's."""
    coordinator = authority.issue_coordinator(["127.0.0.1"], NOW)
    assert verify(directory, coordinator, coordinator.name) is None


def test_a_document_is_good_for_its_time_also_from_memory(
    directory: Directory, kiel: Credentials, clock: Clock
) -> None:
    assert verify(directory, kiel)
    clock.now = NOW + SITE_LIFETIME + timedelta(minutes=10)
    assert verify(directory, kiel) is None
    clock.now = NOW - timedelta(days=1)
    assert verify(directory, kiel) is None
    clock.now = NOW
    assert verify(directory, kiel)


def test_who_is_revoked_tells_nothing_also_from_memory(
    directory: Directory, kiel: Credentials, authority: Authority
) -> None:
    assert verify(directory, kiel)
    directory.revoke(authority.sign_revocations(["kiel"], NOW))
    assert verify(directory, kiel) is None
    directory.revoke(authority.sign_revocations([], NOW + timedelta(seconds=1)))
    assert verify(directory, kiel), "a newer list took it back"


def test_an_older_list_undoes_nothing(
    directory: Directory, kiel: Credentials, authority: Authority
) -> None:
    directory.revoke(authority.sign_revocations(["kiel"], NOW))
    directory.revoke(authority.sign_revocations([], NOW - timedelta(seconds=1)))
    assert verify(directory, kiel) is None


def test_a_list_that_is_refused_changes_nothing(
    directory: Directory, kiel: Credentials, authority: Authority, stranger: Authority
) -> None:
    directory.revoke(authority.sign_revocations(["riga"], NOW))
    for text in (
        stranger.sign_revocations(["kiel"], NOW),
        authority.sign_revocations(["kiel"], NOW - timedelta(days=2)),
        authority.sign_revocations(["kiel"], NOW + timedelta(days=2)),
        "",
    ):
        with pytest.raises(IdentityError):
            directory.revoke(text)
        assert verify(directory, kiel)
        assert directory.revoked is not None
        assert directory.revoked.sites == ("riga",)


def test_memory_is_bounded(
    directory: Directory,
    authority: Authority,
    kiel: Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory_module, "KEPT", 2)
    for name in ("bremen", "riga", "visby"):
        assert verify(directory, enrol(authority, tmp_path / name, name, "One"), name) == "One"
    assert verify(directory, kiel)
    assert len(directory._known) == 2
