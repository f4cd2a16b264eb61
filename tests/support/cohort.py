"""Clients of a masked sum in one process, with real keys, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.core.vector import Vector
from hansa.secagg import Floor, Member, Rule, Session
from hansa.secagg.floor import InProcess


@dataclass(frozen=True)
class PublicKeys:
    """A directory whose documents are raw public keys that it knows by name."""

    keys: Mapping[str, Ed25519PublicKey]
    organisations: Mapping[str, str] = field(default_factory=dict)

    def verify(self, name: str, document: str, message: bytes, signature: bytes) -> str | None:
        """The member's organisation, which is its name unless another was given."""
        try:
            self.keys[name].verify(signature, message)
        except (KeyError, InvalidSignature):
            return None
        return self.organisations.get(name, name)


@dataclass(frozen=True)
class People:
    """Some clients and who checks them."""

    signing: Mapping[str, Ed25519PrivateKey]
    directory: PublicKeys

    def member(self, name: str, floor: Floor | None = None) -> Member:
        """One of them, with an empty memory."""
        return Member(
            name,
            self.signing[name].sign,
            "",
            self.directory,
            floor or Floor(),
            InProcess(),
        )


def people(count: int, organisations: Mapping[str, str] | None = None) -> People:
    """`count` clients with keys of their own."""
    signing = {f"c{number:05d}": Ed25519PrivateKey.generate() for number in range(count)}
    public = {name: key.public_key() for name, key in signing.items()}
    return People(signing, PublicKeys(public, organisations or {}))


def session(size: int = 10, bits: int = 32, rule: Rule | None = None, **words: object) -> Session:
    """A session of a fresh nonce-like round."""
    made = Session(
        federation="hanse",
        job="job-1",
        purpose="train",
        round=3,
        attempt=0,
        plan="ab" * 32,
        model="cd" * 32,
        size=size,
        bits=bits,
        cohort=2,
        rule=rule or Rule(),
        nonce="00" * 32,
    )
    return replace(made, **words)  # type: ignore[arg-type]  # the words are the session's own


def vectors(names: list[str], size: int, bits: int, seed: int) -> dict[str, Vector]:
    """(size,) random ring elements for each name."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 1 << bits, size, dtype=np.uint32) for name in names}


def plain_sum(parts: list[Vector], size: int, bits: int) -> Vector:
    """The sum modulo 2**bits, without any of the code under test."""
    total = np.zeros(size, np.uint64)
    for part in parts:
        total += part.astype(np.uint64)
    return (total % (1 << bits)).astype(np.uint32)


Refused = Callable[[str, Exception], None]
