"""A member's keys on its disk: made there, never sent, replaced as one unit.

    identity/                0700
      current -> 2           which set is used: one symbolic link, replaced by one rename
      1/                     the set before
      2/  tls.key  signing.key  chain.pem  root.pem  document.json
      3/  tls.key  signing.key          keys that wait for their certificate

A set is complete before `current` names it, so a crash at any instruction leaves the old set or the
new one. Waiting keys are used again by the next request: an enrolment whose answer was lost can be
repeated with the same keys.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.errors import IdentityError
from hansa.identity import files
from hansa.identity.certificates import key_pem, new_key, read_key
from hansa.identity.credentials import Credentials, read_signing_key, signing_key_pem
from hansa.identity.names import check_federation, check_site
from hansa.identity.requests import make_request

CURRENT: Final = "current"
TLS_KEY: Final = "tls.key"
SIGNING_KEY: Final = "signing.key"
CHAIN: Final = "chain.pem"
ROOT: Final = "root.pem"
DOCUMENT: Final = "document.json"


@dataclass(frozen=True, slots=True)
class SiteRequest:
    """What a site sends to get a certificate; public.

    Attributes:
      csr_pem: PKCS #10 request over both keys.
      signing_key: (32 bytes) Ed25519 public key, also inside the request.
    """

    csr_pem: bytes
    signing_key: bytes


def make_site_keys(folder: Path, site: str, federation: str) -> SiteRequest:
    """Makes a site's keys and a request for their certificate.

    The TLS key is new for each certificate; the signing key stays the site's own for as long as the
    folder exists. Keys that still wait for a certificate are used again.

    Raises:
      IdentityError: a name cannot be one, or others can read the folder.
    """
    check_site(site)
    check_federation(federation)
    files.make_folder(folder)
    waiting = _set(folder, _current(folder) + 1)
    if not waiting.exists():
        _make_set(folder, waiting)
    tls = read_key(files.read_private(waiting / TLS_KEY), str(waiting / TLS_KEY))
    signing = _read_signing(waiting)
    csr = make_request(tls, signing, federation, site)
    return SiteRequest(csr, signing.public_key().public_bytes_raw())


def install_credentials(
    folder: Path, chain_pem: bytes, root_pem: bytes, document: str
) -> Credentials:
    """Puts the waiting keys to use with the certificate that was issued for them.

    Args:
      folder: the folder that `make_site_keys` was given.
      chain_pem: the certificate chain as received.
      root_pem: the root as pinned by the invite, never as received.
      document: the node document as received.

    Raises:
      IdentityError: no keys wait, or what was received does not belong to them; the set in use
        stays as it was.
    """
    waiting = _set(folder, _current(folder) + 1)
    try:
        tls = files.read_private(waiting / TLS_KEY)
        signing = files.read_private(waiting / SIGNING_KEY)
    except FileNotFoundError:
        raise IdentityError(
            f"no keys in {folder} wait for a certificate", fix="make a request first"
        ) from None
    credentials = Credentials.of(tls, chain_pem, root_pem, signing, document)
    _write_public(waiting, credentials)
    _use(folder, waiting)
    return credentials


def save_credentials(folder: Path, credentials: Credentials) -> None:
    """Writes a whole set, keys included, and puts it to use: for the coordinator's own.

    Raises:
      IdentityError: others can read the folder.
    """
    files.make_folder(folder)
    waiting = _set(folder, _current(folder) + 1)
    if waiting.exists():
        shutil.rmtree(waiting)
    waiting.mkdir(mode=0o700)
    files.write(waiting / TLS_KEY, credentials.key_pem)
    files.write(waiting / SIGNING_KEY, credentials.signing_key_pem)
    _write_public(waiting, credentials)
    _use(folder, waiting)


def load_credentials(folder: Path) -> Credentials:
    """The set in use, proved to be consistent; whether it is still valid depends on the time.

    Raises:
      IdentityError: there is none, others can read the keys, or files were mixed up.
    """
    number = _current(folder)
    if number == 0:
        raise IdentityError(f"{folder} holds no credentials", fix="run: hansa site join INVITE")
    used = _set(folder, number)
    try:
        return Credentials.of(
            files.read_private(used / TLS_KEY),
            (used / CHAIN).read_bytes(),
            (used / ROOT).read_bytes(),
            files.read_private(used / SIGNING_KEY),
            (used / DOCUMENT).read_text("ascii"),
        )
    except FileNotFoundError as error:
        raise IdentityError(
            f"{error.filename} is missing", fix="restore it, or join again with a new invite"
        ) from None
    except UnicodeDecodeError:
        raise IdentityError(
            f"{used / DOCUMENT} is not text", fix="restore it, or join again with a new invite"
        ) from None


def _make_set(folder: Path, waiting: Path) -> None:
    """Makes both keys beside their place, then renames: no set ever lacks a key."""
    number = _current(folder)
    signing = _read_signing(_set(folder, number)) if number else Ed25519PrivateKey.generate()
    beside = folder / f".{secrets.token_hex(8)}"
    beside.mkdir(mode=0o700)
    files.write(beside / TLS_KEY, key_pem(new_key()))
    files.write(beside / SIGNING_KEY, signing_key_pem(signing))
    beside.rename(waiting)
    files.sync_folder(folder)


def _write_public(place: Path, credentials: Credentials) -> None:
    files.write(place / CHAIN, credentials.chain_pem, 0o644)
    files.write(place / ROOT, credentials.root_pem, 0o644)
    files.write(place / DOCUMENT, credentials.document.encode("ascii"), 0o644)


def _use(folder: Path, place: Path) -> None:
    """Points `current` at a complete set, then drops all but it and the one before.

    The one before stays for a reader that followed the link a moment ago.
    """
    link = folder / f".{secrets.token_hex(8)}"
    link.symlink_to(place.name)
    link.replace(folder / CURRENT)
    files.sync_folder(folder)
    for old in folder.iterdir():
        leftover = old.name.startswith(".")
        if old.is_symlink():
            if leftover:
                old.unlink()
        elif leftover or (old.name.isdecimal() and int(old.name) < int(place.name) - 1):
            shutil.rmtree(old)


def _current(folder: Path) -> int:
    """Number of the set in use; 0 if there is none yet."""
    try:
        return int((folder / CURRENT).readlink().name)
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise IdentityError(
            f"{folder / CURRENT} is not a link to a set of keys",
            fix="point it at the newest complete folder beside it",
        ) from error


def _set(folder: Path, number: int) -> Path:
    return folder / str(number)


def _read_signing(place: Path) -> Ed25519PrivateKey:
    return read_signing_key(files.read_private(place / SIGNING_KEY), str(place / SIGNING_KEY))
