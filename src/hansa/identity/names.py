"""Names of federations and sites, and the SPIFFE ids that carry them in certificates.

| member      | SPIFFE id                          |
|-------------|------------------------------------|
| site        | `spiffe://<federation>/site/<name>` |
| coordinator | `spiffe://<federation>/coordinator` |

The alphabet is the part of SPIFFE's that is safe as a file name and never needs an escape
(SPIFFE-ID, section 2), so that one name has one spelling.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from hansa.errors import IdentityError

COORDINATOR: Final = "coordinator"
"""The name of the coordinator in a federation; there is one."""

MAX_ORGANISATION: Final = 64
"""Most characters of an organisation's name (X.520, upper bound of organizationName)."""

_FEDERATION = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_SITE = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?", re.ASCII)
_SPIFFE = re.compile(
    rf"spiffe://(?P<federation>{_FEDERATION.pattern})"
    rf"/(?:site/(?P<site>{_SITE.pattern})|coordinator)",
    re.ASCII,
)


class Role(Enum):
    """What a member of a federation is."""

    SITE = "site"
    COORDINATOR = "coordinator"


def check_federation(name: str) -> str:
    """Returns the name of a federation unchanged.

    Raises:
      IdentityError: it cannot be one.
    """
    if not _FEDERATION.fullmatch(name):
        raise IdentityError(
            f"{name[:80]!r} cannot be the name of a federation",
            fix="use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first and last",
        )
    return name


def check_site(name: str) -> str:
    """Returns the name of a site unchanged.

    Raises:
      IdentityError: it cannot be one.
    """
    if not _SITE.fullmatch(name) or name == COORDINATOR:
        raise IdentityError(
            f"{name[:80]!r} cannot be the name of a site",
            fix="use 1 to 63 of a-z, 0-9, '_' and '-', a letter or digit first and last, "
            f"and not '{COORDINATOR}'",
        )
    return name


def check_organisation(name: str) -> str:
    """Returns the name of an organisation unchanged.

    Raises:
      IdentityError: it cannot be one.
    """
    if not 0 < len(name) <= MAX_ORGANISATION or not name.isprintable() or name != name.strip():
        raise IdentityError(
            f"{name[:80]!r} cannot be the name of an organisation",
            fix=f"use 1 to {MAX_ORGANISATION} printable characters, no space first or last",
        )
    return name


def spiffe_id(federation: str, role: Role, name: str) -> str:
    """The SPIFFE id of a member."""
    if role is Role.COORDINATOR:
        return f"spiffe://{federation}/coordinator"
    return f"spiffe://{federation}/site/{name}"


def read_spiffe_id(uri: str) -> tuple[str, Role, str]:
    """Federation, role and name of a member.

    Raises:
      IdentityError: the URI is not written by Hansa.
    """
    found = _SPIFFE.fullmatch(uri)
    if found is None:
        raise IdentityError(
            f"{uri[:200]!r} is not the SPIFFE id of a site or a coordinator",
            fix="use the certificate that the federation's coordinator issued",
        )
    site = found["site"]
    role = Role.SITE if site is not None else Role.COORDINATOR
    return found["federation"], role, site if site is not None else COORDINATOR
