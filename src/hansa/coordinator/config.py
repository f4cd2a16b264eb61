"""A coordinator's folder: its settings, its authority, its keys, its state.

folder/               0700
  coordinator.toml    settings, may be edited
  ca/                 the federation's authority
  keys/               the coordinator's own certificate and receipt key
  secret.key          from which unforeseeable cohorts are drawn
  operator.json       how the command line reaches the people's door
  state.db            the store, unless `store` names a PostgreSQL
  blobs/  sums/       vectors and bundles; durable sums of open rounds
"""

from __future__ import annotations

import json
import os
import secrets
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.errors import HansaError, JobError
from hansa.identity.authority import Authority
from hansa.identity.keys import save_credentials
from hansa.identity.names import check_federation

SETTINGS = "coordinator.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `coordinator.toml` says.

    Attributes:
      federation: name of the federation.
      host: name or address under which sites reach the coordinator.
      listen: address to listen on.
      sites_port: the sites' door, mTLS.
      enrol_port: where invited sites join, TLS pinned by the invite.
      people_port: the people's door, HTTPS.
      store: URL of a PostgreSQL, or empty for SQLite in the folder.
    """

    federation: str
    host: str = "localhost"
    listen: str = "127.0.0.1"
    sites_port: int = 7431
    enrol_port: int = 7432
    people_port: int = 7433
    store: str = field(default="", repr=False)  # it may hold a password


def init(folder: Path, settings: Settings, now: datetime) -> Authority:
    """Makes a coordinator's folder.

    Raises:
      HansaError: the folder holds a coordinator already.
      IdentityError: the federation cannot have that name; nothing was made.
    """
    check_federation(settings.federation)
    if (folder / SETTINGS).exists():
        raise HansaError(
            f"{folder} holds a coordinator already", fix="choose another folder or use this one"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    authority = Authority.create(folder / "ca", settings.federation, now)
    renew_credentials(folder, settings, authority, now)
    write_private(folder / "secret.key", secrets.token_bytes(32))
    token = secrets.token_urlsafe(32)
    operator = {
        "url": f"https://{settings.host}:{settings.people_port}",
        "token": token,
        "root": authority.root_pem.decode("ascii"),
    }
    write_private(folder / "operator.json", json.dumps(operator).encode("utf-8"))
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in _words(settings).items()]
    write_private(folder / SETTINGS, "".join(lines).encode("utf-8"))
    return authority


def renew_credentials(
    folder: Path,
    settings: Settings,
    authority: Authority,
    now: datetime,
    signing_key: Ed25519PrivateKey | None = None,
) -> None:
    """Gives the coordinator a new TLS key and certificate.

    The receipt key stays what it was: who attends since before goes on to accept receipts, and
    receipts of last month verify like those of today.
    """
    hosts = tuple(dict.fromkeys((settings.host, "localhost", "127.0.0.1")))
    issued = authority.issue_coordinator(hosts, now, signing_key=signing_key)
    save_credentials(folder / "keys", issued)


def load(folder: Path) -> Settings:
    """Reads the settings.

    Raises:
      JobError: there are none, or they say something impossible.
    """
    path = folder / SETTINGS
    try:
        words = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise JobError(
            "there is no coordinator here", fix="run: hansa coordinator init", file=str(path)
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(str(error), fix="correct the file", file=str(path)) from error
    known = _words(Settings(federation=""))
    for name, value in words.items():
        if name not in known or type(value) is not type(known[name]):
            raise JobError(
                f"{name} = {value!r} is no setting of a coordinator",
                fix=f"use {', '.join(known)}, with numbers for ports and text for the rest",
                file=str(path),
            )
    if not words.get("federation"):
        raise JobError("the federation has no name", fix="set federation", file=str(path))
    return Settings(**words)


def operator_token(folder: Path) -> str:
    """The token of the operator that `init` made."""
    return str(json.loads((folder / "operator.json").read_text("utf-8"))["token"])


def store_url(folder: Path, settings: Settings) -> str:
    """Where the state is kept."""
    return settings.store or str(folder / "state.db")


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _words(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__slots__}


def utc_now() -> datetime:
    """The time, as certificates count it."""
    return datetime.now(UTC)
