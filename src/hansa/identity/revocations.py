"""Who was revoked, in the authority's own words, so that members need not ask the coordinator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.identity.statements import Kind, open_statement, refused, sign_statement

MAX_LIST: Final = 256 << 10
"""Most characters of a list that are looked at: some thousand names."""

FRESH_SECONDS: Final = 24 * 3600
"""How old a list may be; certificates live as long."""

AHEAD_SECONDS: Final = 300
"""How far another clock may be ahead."""

_STATEMENT: Final = Kind("revocations", "the list of revoked sites", b"hansa/revocations/1\0")


@dataclass(frozen=True, slots=True)
class RevocationList:
    """All that is revoked at one moment.

    Attributes:
      federation: the federation.
      issued: the moment, seconds since 1970.
      sites: names that are refused, sorted.
    """

    federation: str
    issued: int
    sites: tuple[str, ...]


def sign_revocations(
    federation: str,
    sites: Iterable[str],
    now: datetime,
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> str:
    """The list with the authority's signature, as text."""
    listed = RevocationList(federation, int(now.timestamp()), tuple(sorted(sites)))
    return sign_statement(_STATEMENT, listed, issuer, key)


def read_revocations(text: str, root_pem: bytes, federation: str, now: datetime) -> RevocationList:
    """The list, after its signature was followed to the pinned root.

    Raises:
      IdentityError: signature, federation or time is wrong.
    """
    inner, _ = open_statement(_STATEMENT, text, root_pem, MAX_LIST)
    try:
        sites = tuple(str(site) for site in inner["sites"])
        listed = RevocationList(str(inner["federation"]), int(inner["issued"]), sites)
    except (KeyError, TypeError, ValueError):
        raise refused(_STATEMENT, "is of another version of Hansa") from None
    age = now.timestamp() - listed.issued
    if listed.federation != federation:
        raise refused(_STATEMENT, f"is of federation '{listed.federation}', not of '{federation}'")
    if not -AHEAD_SECONDS <= age <= FRESH_SECONDS:
        raise refused(_STATEMENT, f"was issued {age:,.0f} s ago, at most {FRESH_SECONDS:,} will do")
    return listed
