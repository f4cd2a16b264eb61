"""The protocol's messages. None shows what it carries when it is printed.

Clients are numbered by the order of their adverts' hashes, which everybody can check; a set of
clients is an integer whose bit i stands for client i.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from hansa.secagg.masks import Words
from hansa.secagg.session import Session

LEAF_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Advert:
    """A client's keys for one session.

    Attributes:
      name: the client.
      sealing_key: X25519 public key (32 bytes) that shares for this client are sealed to.
      masking_key: X25519 public key (32 bytes) that pairwise masks are derived from.
      signature: (64 bytes) over both keys and the session, by the client's signing key.
      document: the authority's word that the signing key is the client's.
    """

    name: str
    sealing_key: bytes = field(repr=False)
    masking_key: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    document: str = field(default="", repr=False)

    def signed(self, session: Session) -> bytes:
        """What the signature is over."""
        return b"hansa/secagg/advert/1\0" + b"".join(
            (
                session.digest,
                hashlib.sha256(self.name.encode()).digest(),
                self.sealing_key,
                self.masking_key,
            )
        )

    def leaf(self, session: Session) -> bytes:
        """The advert's hash (32 bytes)."""
        return hashlib.sha256(self.signed(session) + self.signature).digest()


@dataclass(frozen=True, slots=True)
class Roster:
    """Who takes part, as far as one client needs to know.

    Attributes:
      leaves: the hashes of all adverts, in increasing order, 32 bytes each.
      degree: neighbours of each client.
      threshold: shares that give a secret back.
      adverts: those of the client's neighbours and its own, by number.
    """

    leaves: bytes = field(repr=False)
    degree: int
    threshold: int
    adverts: Mapping[int, Advert] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shares:
    """A client's secrets, cut into shares that are sealed to the holders.

    Attributes:
      commitment: hash (32 bytes) of the seed of its own mask, so that a wrong share is noticed.
      sealed: a sealed share for each neighbour, by its number.
    """

    commitment: bytes = field(repr=False)
    sealed: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Inbox:
    """The sealed shares for one client, by the number of who sent them."""

    sealed: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Masked:
    """A client's vector under masks: (d,) ring elements, uniform to whoever lacks the seeds."""

    vector: Words = field(repr=False)


@dataclass(frozen=True, slots=True)
class Survivors:
    """Whose vectors are in the sum.

    Attributes:
      alive: who sent a vector in time.
      dropped: who shared its secrets and sent no vector.
    """

    alive: int
    dropped: int

    def signed(self, context: bytes) -> bytes:
        """What a vote is over."""
        return b"hansa/secagg/vote/1\0" + context + f"{self.alive:x}/{self.dropped:x}".encode()


@dataclass(frozen=True, slots=True)
class Vote:
    """A client's signature (64 bytes) over the survivors that it was shown."""

    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Votes:
    """The votes of a client's neighbourhood, by number."""

    signatures: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client reveals to cancel masks: for each client one share, of one secret only.

    Attributes:
      seeds: shares of the own-mask seeds of survivors, by number.
      keys: shares of the masking keys of the dropped, by number.
    """

    seeds: Mapping[int, bytes] = field(repr=False)
    keys: Mapping[int, bytes] = field(repr=False)


ToClient: TypeAlias = Roster | Inbox | Survivors | Votes
ToServer: TypeAlias = Advert | Shares | Masked | Vote | Answer
Message: TypeAlias = Any
"""What a driver hands over: whoever takes it checks its type first."""


def root_of(leaves: bytes) -> bytes:
    """The hash (32 bytes) over all adverts."""
    return hashlib.sha256(b"hansa/secagg/roster/1\0" + leaves).digest()


def as_set(clients: Iterable[int]) -> int:
    """A set of clients as an integer."""
    bits = 0
    for client in clients:
        bits |= 1 << client
    return bits


def members(bits: int) -> Iterator[int]:
    """The clients of a set, in increasing order."""
    for client, bit in enumerate(reversed(f"{bits:b}")):
        if bit == "1":
            yield client
