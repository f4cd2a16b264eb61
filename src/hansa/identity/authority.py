"""The built-in authority of a federation: a root, an intermediate that signs, and its two products.

    root (10 years) ──► intermediate (1 year) ──► site's certificate and node document (24 hours)
                                              └─► coordinator's certificate and document (30 days)

    folder/                    0700
      root.pem                 what every member pins
      root.key                 needed once a year; keep it elsewhere in between
      intermediate-0001.pem    the authority that signs, and its predecessors
      intermediate-0001.key    the newest one's key only

The names in a certificate come from the invite, never from the request.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.errors import IdentityError
from hansa.identity import certificates as certs
from hansa.identity import files, renewal
from hansa.identity.credentials import Credentials, signing_key_pem
from hansa.identity.documents import NodeDocument, sign_document
from hansa.identity.names import (
    COORDINATOR,
    Role,
    check_federation,
    check_organisation,
    check_site,
    spiffe_id,
)
from hansa.identity.requests import check_request
from hansa.identity.revocations import sign_revocations
from hansa.identity.trust import Trust, check_window

SITE_LIFETIME: Final = timedelta(hours=24)
COORDINATOR_LIFETIME: Final = timedelta(days=30)

MAX_LIFETIME: Final = timedelta(days=90)
"""Longest lifetime of a member's certificate: what is revoked should also end by itself."""

_ROOT: Final = "root"
_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*", re.ASCII
)


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """What a site gets, and what the coordinator writes down about it.

    Attributes:
      chain_pem: the certificate and the intermediate.
      document: node document that binds the site's name to its Ed25519 key.
      serial_hex: serial number of the certificate, 40 hexadecimal digits.
      not_before: first moment.
      not_after: last moment.
      public_key_sha256: SHA-256 of the TLS public key.
    """

    chain_pem: bytes
    document: str
    serial_hex: str
    not_before: datetime
    not_after: datetime
    public_key_sha256: str


@dataclass(frozen=True, slots=True)
class Authority:
    """A federation's authority with the key that signs; `create` or `load` one.

    Attributes:
      folder: where it is kept.
      federation: the name of the federation.
      root: the root certificate.
      intermediates: certificates of the authorities below it, newest first; the newest signs.
    """

    folder: Path
    federation: str
    root: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]
    _key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @classmethod
    def create(cls, folder: Path, federation: str, now: datetime) -> Self:
        """Makes a new authority in a folder of its own.

        Raises:
          IdentityError: the name cannot be one, the folder holds an authority already, or others
            can enter it.
        """
        check_federation(federation)
        files.make_folder(folder)
        if (folder / f"{_ROOT}.pem").exists() or (folder / f"{_ROOT}.key").exists():
            raise IdentityError(
                f"{folder} holds an authority already",
                fix="name another folder; who deletes an authority makes all its sites join again",
            )
        now = now.replace(microsecond=0)
        key = certs.new_key()
        root = certs.make_root(key, federation, now)
        files.write(folder / f"{_ROOT}.key", certs.key_pem(key))
        files.write(folder / f"{_ROOT}.pem", certs.to_pem(root), 0o644)
        _make_intermediate(folder, 1, root, federation, now)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads an authority; the root's key need not be there.

        Raises:
          IdentityError: there is none, it is not complete, or others can read its keys.
        """
        try:
            files.check_mode(folder, folder.stat())
            root = certs.read_chain((folder / f"{_ROOT}.pem").read_bytes(), "root.pem")[0]
            paths = _intermediate_paths(folder)
            key_path = paths[0].with_suffix(".key")
            key = certs.read_key(files.read_private(key_path), str(key_path))
            below = tuple(certs.read_chain(path.read_bytes(), path.name)[0] for path in paths)
            if (folder / f"{_ROOT}.key").exists():
                files.read_private(folder / f"{_ROOT}.key")
        except (FileNotFoundError, IndexError):
            raise IdentityError(
                f"{folder} holds no complete authority",
                fix="run: hansa coordinator init, or restore the folder from its backup",
            ) from None
        if certs.key_sha256(key.public_key()) != certs.key_sha256(below[0].public_key()):
            raise IdentityError(
                f"{key_path} does not belong to {paths[0]}", fix="restore both from one backup"
            )
        for certificate, path in zip(below, paths, strict=True):
            if not certs.issued_by(certificate, root):
                raise IdentityError(
                    f"{path} was not appointed by root.pem", fix="restore both from one backup"
                )
        return cls(folder, certs.federation_of(root), root, below, key)

    @classmethod
    def open(cls, folder: Path, now: datetime) -> Authority:
        """Reads an authority that is about to work, with a new intermediate if that is due.

        Without the root's key the old one goes on until it expires, four months later.

        Raises:
          IdentityError: as `load` and `renew`.
        """
        found = cls.load(folder)
        with_root = (folder / f"{_ROOT}.key").exists()
        return found.renew(now) if with_root and found.due(now) else found

    @property
    def root_pem(self) -> bytes:
        """The certificate that every member pins."""
        return certs.to_pem(self.root)

    @property
    def root_fingerprint(self) -> str:
        """SHA-256 of the root certificate, in hexadecimal."""
        return certs.fingerprint(self.root)

    @property
    def trust(self) -> Trust:
        """What `identify` needs to recognise members."""
        return Trust(
            self.federation, self.root_pem, tuple(certs.to_pem(c) for c in self.intermediates)
        )

    def due(self, now: datetime) -> bool:
        """Whether the intermediate should be renewed."""
        newest = self.intermediates[0]
        return renewal.due(
            newest.not_valid_before_utc,
            newest.not_valid_after_utc,
            certs.serial_hex(newest),
            now,
        )

    def renew(self, now: datetime) -> Authority:
        """The authority with a new intermediate; the old one is still recognised.

        Raises:
          IdentityError: the root's key is not there, or the root itself expired.
        """
        root = self.root
        check_window("the root", root.not_valid_before_utc, root.not_valid_after_utc, now)
        paths = _intermediate_paths(self.folder)
        number = int(paths[0].stem.rpartition("-")[2]) + 1
        _make_intermediate(
            self.folder, number, self.root, self.federation, now.replace(microsecond=0)
        )
        for path in paths:
            path.with_suffix(".key").unlink(missing_ok=True)
        return Authority.load(self.folder)

    def issue_site(
        self,
        csr_pem: bytes,
        site: str,
        organisation: str,
        now: datetime,
        lifetime: timedelta = SITE_LIFETIME,
    ) -> IssuedCertificate:
        """A certificate and a node document for a site that was invited, or renews.

        Raises:
          IdentityError: the request does not pass its checks, or the authority expired.
        """
        check_site(site)
        check_organisation(organisation)
        request = check_request(csr_pem, self.federation, site)
        window = self._window(now, lifetime)
        leaf = self._leaf(request.tls_key, Role.SITE, site, organisation, (), window)
        return IssuedCertificate(
            certs.to_pem(leaf) + certs.to_pem(self.intermediates[0]),
            self._document(Role.SITE, site, organisation, request.signing_key, window),
            certs.serial_hex(leaf),
            *window,
            certs.key_sha256(request.tls_key),
        )

    def issue_coordinator(
        self,
        hosts: Sequence[str],
        now: datetime,
        lifetime: timedelta = COORDINATOR_LIFETIME,
        signing_key: Ed25519PrivateKey | None = None,
    ) -> Credentials:
        """A fresh TLS key with its certificate, and a receipt-signing key with its node document.

        Args:
          hosts: DNS names and IP addresses under which sites reach it; at least one.
          now: the moment of issue.
          lifetime: of the certificate and the node document.
          signing_key: the receipt-signing key that it has already; a new one if it is None.

        Raises:
          IdentityError: a host is neither, or the authority expired.
        """
        names = [_host(host) for host in hosts]
        if not names:
            raise IdentityError(
                "the coordinator has no host name", fix="name at least one DNS name or IP address"
            )
        window = self._window(now, lifetime)
        key, signing = certs.new_key(), signing_key or Ed25519PrivateKey.generate()
        organisation = self.federation
        leaf = self._leaf(
            key.public_key(), Role.COORDINATOR, COORDINATOR, organisation, names, window
        )
        public = signing.public_key().public_bytes_raw()
        return Credentials.of(
            certs.key_pem(key),
            certs.to_pem(leaf) + certs.to_pem(self.intermediates[0]),
            self.root_pem,
            signing_key_pem(signing),
            self._document(Role.COORDINATOR, COORDINATOR, organisation, public, window),
        )

    def sign_revocations(self, sites: Iterable[str], now: datetime) -> str:
        """The list of revoked sites, for members that check each other."""
        return sign_revocations(self.federation, sites, now, self.intermediates[0], self._key)

    def _leaf(
        self,
        key: ec.EllipticCurvePublicKey,
        role: Role,
        name: str,
        organisation: str,
        hosts: Sequence[x509.GeneralName],
        window: tuple[datetime, datetime],
    ) -> x509.Certificate:
        uri = x509.UniformResourceIdentifier(spiffe_id(self.federation, role, name))
        return certs.make_leaf(
            key,
            self.intermediates[0],
            self._key,
            role,
            (name, organisation),
            [uri, *hosts],
            window,
        )

    def _document(
        self,
        role: Role,
        name: str,
        organisation: str,
        signing_key: bytes,
        window: tuple[datetime, datetime],
    ) -> str:
        document = NodeDocument(
            self.federation,
            role.value,
            name,
            organisation,
            signing_key.hex(),
            int(window[0].timestamp()),
            int(window[1].timestamp()),
        )
        return sign_document(document, self.intermediates[0], self._key)

    def _window(self, now: datetime, lifetime: timedelta) -> tuple[datetime, datetime]:
        """First and last moment of what is issued; nothing outlives the authority."""
        if not timedelta(0) < lifetime <= MAX_LIFETIME:
            raise IdentityError(
                f"a lifetime of {lifetime} is not possible",
                fix=f"choose one above 0 and up to {MAX_LIFETIME.days} days",
            )
        newest = self.intermediates[0]
        until = newest.not_valid_after_utc
        if now > until:
            raise IdentityError(
                f"the authority expired at {until:%Y-%m-%d %H:%M:%S} UTC",
                fix=f"put root.key back into {self.folder} and restart the coordinator",
            )
        start = now.replace(microsecond=0)
        return start - certs.SKEW, min(start + lifetime, until)


def _make_intermediate(
    folder: Path, number: int, root: x509.Certificate, federation: str, now: datetime
) -> None:
    """Appoints the next intermediate: its key first, so that a certificate never lacks one."""
    root_path = folder / f"{_ROOT}.key"
    try:
        root_key = certs.read_key(files.read_private(root_path), str(root_path))
    except FileNotFoundError:
        raise IdentityError(
            f"{root_path} is needed to appoint the next intermediate",
            fix="put it back for a moment",
        ) from None
    key = certs.new_key()
    certificate = certs.make_intermediate(key, root, root_key, federation, now)
    base = folder / f"intermediate-{number:04d}"
    files.write(base.with_suffix(".key"), certs.key_pem(key))
    files.write(base.with_suffix(".pem"), certs.to_pem(certificate), 0o644)


def _intermediate_paths(folder: Path) -> list[Path]:
    """Certificates of the intermediates, newest first."""
    return sorted(folder.glob("intermediate-*.pem"), reverse=True)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise IdentityError(
            f"{host[:80]!r} is neither a DNS name nor an IP address",
            fix="write it without scheme, port and brackets; international names in ASCII",
        )
    return x509.DNSName(host.lower())
