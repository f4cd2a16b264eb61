"""Who is calling: a certificate turned into a member, checked on every call.

TLS has checked the chain when the connection was made, but a connection outlives its certificate,
its revocation and even its authority. So every call is checked again:

    certificate ──read, cached──► name, federation, issuer, usage ──at `now`──► validity, revocation

What never changes for the same bytes under the same authorities is remembered; what depends on time
or on a list of revoked ones is not.

| certificate                          | answer                                    |
|--------------------------------------|-------------------------------------------|
| valid, right role                    | Peer                                      |
| no or several URI names              | refused: the id must be unambiguous       |
| other federation                     | refused, both named                       |
| not signed by one of the authorities | refused                                   |
| usage of the other role              | refused: a server is not a client         |
| before or after its time             | refused, with both times                  |
| serial or site revoked               | refused                                   |
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID

from hansa.errors import IdentityError
from hansa.identity.certificates import (
    UNREADABLE,
    USAGE_OF_ROLE,
    issued_by,
    key_sha256,
    read_chain,
    read_one,
    serial_hex,
)
from hansa.identity.names import Role, read_spiffe_id
from hansa.identity.trust import Trust, check_window

_REMEMBERED = 8192
"""Certificates whose reading is remembered: about 16 MiB of them."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A member of the federation, as its certificate says.

    Attributes:
      name: the site's name, or `coordinator`.
      role: site or coordinator.
      organisation: whose member it is.
      serial: of the certificate, 40 hexadecimal digits.
      not_before: first moment of the certificate.
      not_after: last moment of the certificate.
      public_key_sha256: SHA-256 of the TLS public key.
    """

    name: str
    role: Role
    organisation: str
    serial: str
    not_before: datetime
    not_after: datetime
    public_key_sha256: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a certificate says for ever, and the authority that vouches for it."""

    peer: Peer
    issuer_not_before: datetime
    issuer_not_after: datetime


def identify(
    cert_pem: bytes,
    trust: Trust,
    now: datetime,
    *,
    role: Role = Role.SITE,
    revoked_sites: AbstractSet[str] = frozenset(),
    revoked_serials: AbstractSet[str] = frozenset(),
) -> Peer:
    """The member that a certificate stands for.

    Args:
      cert_pem: the leaf certificate as the TLS layer saw it.
      trust: the federation's authorities.
      now: the moment of the call.
      role: what the caller must be.
      revoked_sites: names that may not call any more, whatever their certificate.
      revoked_serials: certificates that may not be used any more, 40 hexadecimal digits each.

    Raises:
      IdentityError: the certificate does not allow the call; the message says why.
    """
    reading = read_certificate(cert_pem, trust)
    peer = reading.peer
    if peer.role is not role:
        raise IdentityError(
            f"'{peer.name}' is a {peer.role.value}; only a {role.value} may do this",
            fix=f"use the certificate of a {role.value}",
        )
    check_window(f"the certificate of '{peer.name}'", peer.not_before, peer.not_after, now)
    check_window(
        "the authority's certificate", reading.issuer_not_before, reading.issuer_not_after, now
    )
    if role is Role.SITE and peer.name in revoked_sites:
        raise IdentityError(
            f"'{peer.name}' was revoked", fix="ask the coordinator's administrator for a new invite"
        )
    if peer.serial in revoked_serials:
        raise IdentityError(
            f"certificate {peer.serial} of '{peer.name}' was revoked",
            fix="use the newest certificate, or join again with a new invite",
        )
    return peer


@lru_cache(maxsize=_REMEMBERED)
def read_certificate(cert_pem: bytes, trust: Trust) -> Reading:
    """What a certificate says, after its signature was checked. Says nothing of time.

    Raises:
      IdentityError: it is not a certificate that these authorities issued to a member.
    """
    leaf = read_chain(cert_pem)[0]
    issuer = _issuer(leaf, trust)  # before anything else in it is looked at
    try:
        uris, usages, organisation = _claims(leaf)
    except UNREADABLE as error:
        raise _refused("lacks what every certificate of a federation has") from error
    if len(uris) != 1:
        raise _refused(f"has {len(uris)} URI names instead of one")
    federation, role, name = read_spiffe_id(uris[0])
    if federation != trust.federation:
        raise _refused(f"is of federation '{federation}', this is '{trust.federation}'")
    if usages != [USAGE_OF_ROLE[role]]:
        raise _refused(f"of '{name}' is not for use as a {role.value}")
    peer = Peer(
        name,
        role,
        organisation,
        serial_hex(leaf),
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
        key_sha256(leaf.public_key()),
    )
    return Reading(peer, issuer.not_valid_before_utc, issuer.not_valid_after_utc)


def _claims(leaf: x509.Certificate) -> tuple[list[str], list[x509.ObjectIdentifier], str]:
    extensions = leaf.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    organisation = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return (
        names.get_values_for_type(x509.UniformResourceIdentifier),
        list(usage),
        str(organisation[0].value) if organisation else "",
    )


def _issuer(leaf: x509.Certificate, trust: Trust) -> x509.Certificate:
    root = read_one(trust.root_pem)
    for pem in trust.intermediates:
        authority = read_one(pem)
        if issued_by(leaf, authority) and issued_by(authority, root):
            return authority
    raise _refused(f"is not signed by an authority of federation '{trust.federation}'")


def _refused(reason: str) -> IdentityError:
    return IdentityError(
        f"the certificate {reason}",
        fix="use the certificate that the federation's coordinator issued",
    )
