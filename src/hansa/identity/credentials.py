"""What a member proves itself with: its keys, the certificates over them, the root it trusts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.errors import IdentityError
from hansa.identity.certificates import UNREADABLE, key_sha256, read_chain, read_key, to_pem
from hansa.identity.documents import open_document
from hansa.identity.names import Role
from hansa.identity.peer import read_certificate
from hansa.identity.trust import Trust


@dataclass(frozen=True, slots=True)
class Credentials:
    """One consistent set of keys and certificates; `of` makes sure that it is one.

    Attributes:
      federation: the federation.
      role: site or coordinator.
      name: the member.
      organisation: whose member it is.
      key_pem: private TLS key.
      chain_pem: the leaf certificate and the intermediate, as TLS sends them.
      root_pem: the pinned root, the only thing that is trusted.
      signing_key_pem: private Ed25519 key.
      document: node document that binds the name to the Ed25519 key.
      serial: of the leaf, 40 hexadecimal digits.
      not_before: first moment of the leaf.
      not_after: last moment of the leaf.
    """

    federation: str
    role: Role
    name: str
    organisation: str
    key_pem: bytes = field(repr=False)
    chain_pem: bytes = field(repr=False)
    root_pem: bytes = field(repr=False)
    signing_key_pem: bytes = field(repr=False)
    document: str = field(repr=False)
    serial: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(
        cls,
        key_pem: bytes,
        chain_pem: bytes,
        root_pem: bytes,
        signing_key_pem: bytes,
        document: str,
    ) -> Self:
        """The set, after it was proved that its parts belong together. Says nothing of time.

        Raises:
          IdentityError: the chain does not lead to the root, or a key is not the certified one.
        """
        trust = Trust.of_chain(root_pem, chain_pem)
        leaf = read_chain(chain_pem)[0]
        peer = read_certificate(to_pem(leaf), trust).peer
        if key_sha256(read_key(key_pem, "tls.key").public_key()) != peer.public_key_sha256:
            raise _mixed("the certificate is for another TLS key")
        bound = open_document(document, root_pem)
        own = read_signing_key(signing_key_pem, "signing.key").public_key().public_bytes_raw()
        if bound.signing_key != own.hex():
            raise _mixed("the node document is for another signing key")
        if (bound.federation, bound.role, bound.name) != (
            trust.federation,
            peer.role.value,
            peer.name,
        ):
            raise _mixed(f"the node document is of {bound.role} '{bound.name}'")
        return cls(
            trust.federation,
            peer.role,
            peer.name,
            peer.organisation,
            key_pem,
            chain_pem,
            root_pem,
            signing_key_pem,
            document,
            peer.serial,
            peer.not_before,
            peer.not_after,
        )

    def signing_key(self) -> Ed25519PrivateKey:
        """The private Ed25519 key, ready to sign."""
        return read_signing_key(self.signing_key_pem, "signing.key")


def signing_key_pem(key: Ed25519PrivateKey) -> bytes:
    """A private Ed25519 key as unencrypted PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_signing_key(pem: bytes, where: str) -> Ed25519PrivateKey:
    """An Ed25519 private key.

    Raises:
      IdentityError: the bytes are something else; they are not shown.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except UNREADABLE:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{where} holds no Ed25519 private key", fix=f"restore {where}")
    return key


def _mixed(reason: str) -> IdentityError:
    return IdentityError(
        f"keys and certificates do not belong together: {reason}",
        fix="ask for a new certificate; for a site that joins, with a new invite",
    )
