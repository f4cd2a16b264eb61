"""Clients of a masked sum in one process, with real keys, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.core.vector import Vector
from hansa.secagg import (
    Advert,
    Ask,
    Floor,
    Inbox,
    Masked,
    Member,
    Roster,
    Rule,
    Session,
    Sum,
    client_flow,
    server_flow,
)
from hansa.secagg.drive import Client
from hansa.secagg.floor import InProcess
from hansa.secagg.graph import draw
from hansa.secagg.messages import root_of

Kind = TypeVar("Kind")


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


@dataclass
class Table:
    """An honest coordinator and its clients, paused before whatever a test wants to twist.

    Attributes:
      session: what the sum is about.
      people: who has which key.
      vectors: each client's (d,) ring elements.
      clients: the generators, by name.
      server: the honest coordinator.
      ask: the step that is due; None once the sum is there.
      sent: every reply, by its type and the name of who sent it.
      sum: the result.
    """

    session: Session
    people: People
    vectors: Mapping[str, Vector]
    clients: dict[str, Client]
    server: Generator[Ask[Any], None, Sum]
    ask: Ask[Any] | None = None
    sent: dict[type, dict[str, Any]] = field(default_factory=dict)
    sum: Sum | None = None

    def step(self, silent: Collection[str] = ()) -> Self:
        """Carries the step that is due to all clients but the silent ones, and their replies."""
        assert self.ask is not None
        for name, message in self.ask.messages.items():
            if name not in silent:
                self.take(name, self.clients[name].send(message))
        return self.advance()

    def take(self, name: str, reply: object) -> None:
        """Hands one reply to the coordinator."""
        assert self.ask is not None
        self.ask.take(name, reply)
        self.sent.setdefault(type(reply), {})[name] = reply

    def advance(self) -> Self:
        """Ends the step that is due."""
        try:
            self.ask = next(self.server)
        except StopIteration as end:
            self.ask, self.sum = None, end.value
        return self

    def until(self, kind: type, silent: Collection[str] = ()) -> Self:
        """Goes on until the clients are due to get this message."""
        while self.ask is not None and kind not in map(type, self.ask.messages.values()):
            self.step(silent)
        return self

    def finish(self, silent: Collection[str] = ()) -> Sum:
        """Goes on to the end; a sum that is not the plain one is an error."""
        while self.ask is not None:
            self.step(silent)
        assert self.sum is not None
        assert self.sum.vector.dtype == np.uint32
        assert (self.sum.vector == self.plain(self.sum.members)).all()
        return self.sum

    def due(self, name: str, kind: type[Kind]) -> Kind:
        """What the honest coordinator has for a client now."""
        assert self.ask is not None
        message = self.ask.messages[name]
        assert isinstance(message, kind)
        return message

    def plain(self, names: Iterable[str]) -> Vector:
        """The sum of some clients' vectors without masks."""
        parts = [self.vectors[name] for name in names]
        return plain_sum(parts, self.session.size, self.session.bits)


def table(
    session: Session,
    folk: People,
    floor: Floor | None = None,
    sessions: Mapping[str, Session] | None = None,
    seed: int = 1,
) -> Table:
    """Everybody at the table, nothing said yet.

    Args:
      session: the coordinator's.
      folk: who takes part.
      floor: what each client demands.
      sessions: what some clients believe the sum is about, where it differs.
      seed: of the vectors.
    """
    names = list(folk.signing)
    parts = vectors(names, session.size, session.bits, seed)
    clients = {
        name: client_flow(
            (sessions or {}).get(name, session), folk.member(name, floor), parts[name]
        )
        for name in names
    }
    found = Table(session, folk, parts, clients, server_flow(session, names, folk.directory))
    return found.advance()


def roster(session: Session, adverts: Iterable[Advert], name: str) -> Roster:
    """What an honest coordinator would send one client if these were all adverts."""
    ordered = sorted(adverts, key=lambda advert: advert.leaf(session))
    leaves = b"".join(advert.leaf(session) for advert in ordered)
    scheme = session.rule.scheme(len(ordered))
    number = [advert.name for advert in ordered].index(name)
    near = draw(scheme, root_of(leaves)).neighbours(number)
    return Roster(
        leaves, scheme.degree, scheme.threshold, {other: ordered[other] for other in sorted(near)}
    )


def masked_update(folk: People, vector: Vector, bits: int, attempt: int) -> Vector:
    """What a coordinator sees of the vector of the first of some clients."""
    made = session(len(vector), bits, attempt=attempt)
    seats = table(made, folk)
    seats.clients["c00000"] = client_flow(made, folk.member("c00000"), vector)
    seats.step().step()
    masked = seats.clients["c00000"].send(seats.due("c00000", Inbox))
    assert isinstance(masked, Masked)
    return masked.vector
