"""Invites: one line of text with which one site joins, once.

    hansa-invite-1.<base64url of: 8 bytes of SHA-256, then canonical JSON>

The line holds a one-time token and the root certificate, so that the site verifies the coordinator
from the first byte that it receives: there is no moment of blind trust. The eight bytes tell a
damaged copy from a whole one; they are no signature, for whoever holds the line holds the secret.

The coordinator keeps SHA-256 of the token alone. The token has 256 random bits, so there is nothing
to guess and a slow hash would protect nothing more.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hansa.core import canonical
from hansa.errors import IdentityError
from hansa.identity.authority import Authority
from hansa.identity.certificates import UNREADABLE, federation_of, fingerprint, to_pem
from hansa.identity.names import Role, check_federation, check_organisation, check_site
from hansa.identity.trust import check_window

PREFIX: Final = "hansa-invite-"
VERSION: Final = "1"
LIFETIME: Final = timedelta(hours=24)
MAX_LIFETIME: Final = timedelta(days=7)
TOKEN_BYTES: Final = 32

MAX_TEXT: Final = 16 << 10
"""Most characters of an invite that are looked at."""

_CHECK_BYTES: Final = 8
_ADDRESS = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class InviteRecord:
    """What the coordinator keeps of an invite: enough to recognise the token, not to use it.

    Attributes:
      token_hash: SHA-256 of the token, in hexadecimal.
      site: the invited name.
      organisation: whose site it is.
      role: always a site.
      created: when it was made.
      expires: until when it can be used.
      ca_fingerprint: SHA-256 of the root certificate, in hexadecimal.
    """

    token_hash: str
    site: str
    organisation: str
    role: Role
    created: datetime
    expires: datetime
    ca_fingerprint: str


@dataclass(frozen=True, slots=True)
class Invite:
    """What a site reads from the line it was given.

    Attributes:
      federation: the federation.
      site: the name that the site will have.
      organisation: whose site it is.
      coordinator_address: host and port of the sites' door.
      enrol_address: host and port where the site joins.
      token: the secret, (32 bytes).
      expires: until when it can be used.
      ca_fingerprint: SHA-256 of the root certificate, in hexadecimal.
      root_pem: the root certificate, to be pinned.
    """

    federation: str
    site: str
    organisation: str
    coordinator_address: str
    enrol_address: str
    token: bytes = field(repr=False)
    expires: datetime
    ca_fingerprint: str
    root_pem: bytes = field(repr=False)


def create_invite(
    site: str,
    organisation: str,
    coordinator_address: str,
    enrol_address: str,
    authority: Authority,
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> tuple[InviteRecord, str]:
    """What the coordinator keeps, and the line to give to the site.

    Raises:
      IdentityError: a name, an address or the lifetime is not possible.
    """
    check_site(site)
    check_organisation(organisation)
    for address in (coordinator_address, enrol_address):
        _check_address(address)
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise IdentityError(
            f"an invite cannot be valid for {lifetime}",
            fix=f"choose a time above 0 and up to {MAX_LIFETIME.days} days",
        )
    now = now.replace(microsecond=0)
    expires, token = now + lifetime, secrets.token_bytes(TOKEN_BYTES)
    root = authority.root
    record = InviteRecord(
        token_hash(token),
        site,
        organisation,
        Role.SITE,
        now,
        expires,
        authority.root_fingerprint,
    )
    body = {
        "federation": authority.federation,
        "site": site,
        "organisation": organisation,
        "coordinator": coordinator_address,
        "enrol": enrol_address,
        "token": _encode(token),
        "expires": int(expires.timestamp()),
        "ca_fingerprint": authority.root_fingerprint,
        "root": _encode(root.public_bytes(serialization.Encoding.DER)),
    }
    content = canonical.dumps(body).encode("ascii")
    return record, f"{PREFIX}{VERSION}.{_encode(_check(content) + content)}"


def parse_invite(text: str, now: datetime) -> Invite:
    """Reads an invite as it was pasted; white space and line breaks inside it do not matter.

    Raises:
      IdentityError: it is no invite, of another version, incomplete, damaged or expired.
    """
    if len(text) > MAX_TEXT:
        raise _refused(f"the text has {len(text):,} characters, an invite has at most {MAX_TEXT:,}")
    compact = "".join(text.split())
    if not compact.startswith(PREFIX):
        raise _refused(f"the text does not start with '{PREFIX}'")
    version, _, payload = compact.removeprefix(PREFIX).partition(".")
    if version != VERSION and version.isdecimal():
        raise IdentityError(
            f"the invite has version {version[:9]}, this is Hansa with version {VERSION}",
            fix="use the same version of Hansa as the coordinator",
        )
    invite = _read(_content(payload if version == VERSION else ""))
    if now > invite.expires:
        raise IdentityError(
            f"the invite for '{invite.site}' expired at {invite.expires:%Y-%m-%d %H:%M:%S} UTC",
            fix="ask the coordinator's administrator for a new one: hansa invite " + invite.site,
        )
    return invite


def token_hash(token: bytes) -> str:
    """SHA-256 of a token, in hexadecimal: what the coordinator keeps and looks up by."""
    return hashlib.sha256(token).hexdigest()


def check_token(record: InviteRecord, token: bytes, now: datetime) -> None:
    """Checks that a token is the record's and can still be used; in constant time.

    Whether it was used before is for the store to say, in the transaction that uses it.

    Raises:
      IdentityError: it is not.
    """
    if not hmac.compare_digest(token_hash(token), record.token_hash):
        raise IdentityError(
            "the token is not one of an open invite",
            fix="ask the coordinator's administrator for a new invite",
        )
    check_window(f"the invite for '{record.site}'", record.created, record.expires, now)


def _content(payload: str) -> bytes:
    """The JSON inside, proved whole."""
    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    content = raw[_CHECK_BYTES:]
    if not content or raw[:_CHECK_BYTES] != _check(content) or _encode(raw) != payload:
        raise _refused("the invite is incomplete or was changed on its way")
    return content


def _read(content: bytes) -> Invite:
    """The invite in JSON that came through whole, but from a stranger."""
    try:
        body: Any = json.loads(content)
        root = x509.load_der_x509_certificate(_decode(body["root"]))
        invite = Invite(
            check_federation(body["federation"]),
            check_site(body["site"]),
            check_organisation(body["organisation"]),
            _check_address(body["coordinator"]),
            _check_address(body["enrol"]),
            _decode(body["token"]),
            datetime.fromtimestamp(body["expires"], UTC),
            body["ca_fingerprint"],
            to_pem(root),
        )
    except (*UNREADABLE, AttributeError, LookupError, OverflowError, OSError, RecursionError):
        raise _refused("the invite lacks something that every invite has") from None
    named = (fingerprint(root), federation_of(root))
    if named != (invite.ca_fingerprint, invite.federation) or len(invite.token) != TOKEN_BYTES:
        raise _refused("the invite contradicts itself")
    return invite


def _check_address(address: str) -> str:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65_536:
        raise IdentityError(
            f"{address[:80]!r} is not an address",
            fix="write host:port, such as fl.example.org:8443",
        )
    return address


def _check(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECK_BYTES]


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _refused(reason: str) -> IdentityError:
    return IdentityError(reason, fix="copy the whole line that `hansa invite` printed")
