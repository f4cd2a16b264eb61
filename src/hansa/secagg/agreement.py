"""Keys that two clients agree on through a coordinator that learns none of them.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869) with the session's context, AES-256-GCM (SP 800-38D) with
a random nonce. Each key serves one purpose between two clients in one session.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hansa.secagg.faults import Fault, Misuse
from hansa.secagg.shamir import SHARE_BYTES

_NONCE = 12


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A fresh X25519 key, for one session."""

    private: X25519PrivateKey = field(repr=False)
    public: bytes

    @classmethod
    def fresh(cls) -> KeyPair:
        """A new key from the operating system's entropy."""
        private = X25519PrivateKey.generate()
        return cls(private, private.public_key().public_bytes_raw())

    @classmethod
    def of(cls, secret: bytes) -> KeyPair:
        """The key of 32 secret bytes that were shared out."""
        private = X25519PrivateKey.from_private_bytes(secret)
        return cls(private, private.public_key().public_bytes_raw())

    def secret(self) -> bytes:
        """(32 bytes) of the private key."""
        return self.private.private_bytes_raw()

    def agree(self, public: bytes, context: bytes, purpose: bytes, pair: tuple[int, int]) -> bytes:
        """The key (32 bytes) that both of a pair of clients derive, whoever is asked.

        Raises:
          ValueError: the public key is one of the few points that give no secret.
        """
        shared = self.private.exchange(X25519PublicKey.from_public_bytes(public))
        return derive(shared, context, purpose, *sorted(pair))


def usable(public: bytes) -> bool:
    """Whether a public key gives secrets to agree on."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return False
    return True


def derive(secret: bytes, context: bytes, purpose: bytes, *numbers: int) -> bytes:
    """A key (32 bytes) for one purpose in one session."""
    info = b"hansa/secagg/" + purpose + b"/1\0" + context
    info += b"".join(number.to_bytes(4, "big") for number in numbers)
    return HKDF(hashes.SHA256(), 32, None, info).derive(secret)


def commitment(seed: bytes, context: bytes) -> bytes:
    """What binds a client to the seed of its own mask: a hash of 32 bytes."""
    return hashlib.sha256(b"hansa/secagg/commitment/1\0" + context + seed).digest()


def seal(
    key: bytes, seed_share: bytes, key_share: bytes, context: bytes, way: tuple[int, int]
) -> bytes:
    """Two shares for one holder; `way` is who sends them and who may open them."""
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, seed_share + key_share, _bound(context, way))


def unseal(key: bytes, sealed: bytes, context: bytes, way: tuple[int, int]) -> tuple[bytes, bytes]:
    """The two shares that a neighbour sealed.

    Raises:
      Misuse: the text was changed, is another one's, or is of another session.
    """
    try:
        both = AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(context, way))
    except (InvalidTag, ValueError):
        raise Misuse(Fault.SEALED, f"from client {way[0]}") from None
    if len(both) != 2 * SHARE_BYTES:
        raise Misuse(Fault.SEALED, f"{len(both)} bytes from client {way[0]}")
    return both[:SHARE_BYTES], both[SHARE_BYTES:]


def _bound(context: bytes, way: tuple[int, int]) -> bytes:
    return context + way[0].to_bytes(4, "big") + way[1].to_bytes(4, "big")
