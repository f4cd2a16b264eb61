"""The client's half of the protocol: it believes nothing that it can check."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from hansa.core.vector import Vector
from hansa.secagg import masks
from hansa.secagg.agreement import KeyPair, commitment, derive, seal, unseal
from hansa.secagg.directory import Directory
from hansa.secagg.faults import Fault, Misuse
from hansa.secagg.floor import Floor, Memory
from hansa.secagg.graph import draw
from hansa.secagg.messages import (
    LEAF_BYTES,
    Advert,
    Answer,
    Inbox,
    Masked,
    Message,
    Roster,
    Shares,
    Survivors,
    ToServer,
    Vote,
    Votes,
    as_set,
    root_of,
)
from hansa.secagg.parameters import Scheme
from hansa.secagg.session import Session
from hansa.secagg.shamir import split

_Expected = TypeVar("_Expected")


@dataclass(frozen=True, slots=True)
class Member:
    """Who takes part, and by what it is recognised.

    Attributes:
      name: as the authority wrote it.
      sign: signs a message with the member's Ed25519 key: 64 bytes.
      document: the authority's word that the key is this member's.
      directory: checks the others.
      floor: what this member demands of every session.
      memory: which sessions it began.
    """

    name: str
    sign: Callable[[bytes], bytes] = field(repr=False)
    document: str = field(repr=False)
    directory: Directory = field(repr=False)
    floor: Floor
    memory: Memory = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a client stands once the cohort is fixed.

    Attributes:
      number: its own.
      scheme: degree and threshold.
      context: what all keys and signatures from now on are bound to.
      adverts: the neighbours', by number.
    """

    number: int
    scheme: Scheme
    context: bytes = field(repr=False)
    adverts: Mapping[int, Advert] = field(repr=False)


@dataclass(slots=True)
class _Secrets:
    """Everything that must not leave, except as the protocol says; forgotten at its end.

    Attributes:
      sealing: the key that shares are sealed with.
      masking: the key that pairwise masks are derived from.
      seed: (32 bytes) of the own mask.
      pairs: what this client and each neighbour seal to each other with.
      held: shares of both secrets of each neighbour.
    """

    sealing: KeyPair = field(repr=False)
    masking: KeyPair = field(repr=False)
    seed: bytes = field(repr=False)
    pairs: dict[int, bytes] = field(default_factory=dict, repr=False)
    held: dict[int, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)

    def forget(self) -> None:
        """Drops what this object holds; Python gives no promise about the memory itself."""
        self.pairs.clear()
        self.held.clear()
        self.seed = b""
        del self.sealing, self.masking


def client_flow(
    session: Session, member: Member, vector: Vector | Callable[[], Vector]
) -> Generator[ToServer, Message, None]:
    """Takes part in one masked sum.

    Yields an `Advert`, then, each in answer to what is sent in: `Shares` to a `Roster`, `Masked`
    to an `Inbox`, a `Vote` to `Survivors`, an `Answer` to `Votes`. Then it is over: what it held
    is gone, and a second question meets `StopIteration`.

    Args:
      session: what the sum is about, as this client computed it, not as it was told.
      member: who takes part.
      vector: (d,) ring elements, unsigned integers below 2**bits; or what makes them when due.

    Raises:
      Misuse: the other side does not lead the protocol as agreed, or demands less than the
        member's floor; nothing else is sent.
    """
    member.floor.check_session(session)
    member.memory.begin(session)
    secrets = _Secrets(KeyPair.fresh(), KeyPair.fresh(), os.urandom(32))
    try:
        advert = _advert(session, member, secrets)
        place = _join(session, member, advert, _due(Roster, (yield advert)))
        inbox = _due(Inbox, (yield _share(place, secrets)))
        _open(place, secrets, inbox)
        masked = _mask(session, place, secrets, vector() if callable(vector) else vector)
        del vector
        survivors = _due(Survivors, (yield masked))
        del masked
        _check_survivors(session, member, place, secrets, survivors)
        vote = Vote(member.sign(survivors.signed(place.context)))
        votes = _due(Votes, (yield vote))
        _check_votes(member, place, survivors, votes)
        answer = _answer(secrets, survivors)
    finally:
        secrets.forget()
    yield answer


def _due(kind: type[_Expected], message: Message) -> _Expected:
    if not isinstance(message, kind):
        raise Misuse(Fault.UNEXPECTED, f"{type(message).__name__} where {kind.__name__} was due")
    return message


def _advert(session: Session, member: Member, secrets: _Secrets) -> Advert:
    bare = Advert(member.name, secrets.sealing.public, secrets.masking.public, b"")
    return Advert(
        bare.name,
        bare.sealing_key,
        bare.masking_key,
        member.sign(bare.signed(session)),
        member.document,
    )


# ------------------------------------------------------------------ who takes part


def _join(session: Session, member: Member, mine: Advert, roster: Roster) -> _Place:
    """Checks the cohort as far as this client can see it."""
    leaves = [
        roster.leaves[start : start + LEAF_BYTES]
        for start in range(0, len(roster.leaves), LEAF_BYTES)
    ]
    if any(one >= other for one, other in pairwise(leaves)):
        raise Misuse(Fault.ADVERTS, f"{len(leaves)} adverts")
    member.floor.check_cohort(session, len(leaves))
    scheme = session.rule.scheme(len(leaves))
    if roster.threshold != scheme.threshold:
        raise Misuse(Fault.THRESHOLD, f"{roster.threshold} instead of {scheme.threshold}")
    if roster.degree != scheme.degree:
        raise Misuse(Fault.DEGREE, f"{roster.degree} instead of {scheme.degree}")
    member.floor.check_scheme(scheme)
    leaf = mine.leaf(session)
    if leaf not in leaves:
        raise Misuse(Fault.OWN_ADVERT, f"not among {len(leaves)}")
    number, root = leaves.index(leaf), root_of(roster.leaves)
    neighbours = draw(scheme, root).neighbours(number)
    if roster.adverts.keys() - {number} != neighbours:
        raise Misuse(Fault.NEIGHBOURS, f"{len(roster.adverts)} adverts for degree {scheme.degree}")
    if roster.adverts.get(number, mine) != mine:
        raise Misuse(Fault.OWN_ADVERT, "another one under my number")
    adverts = {number: mine, **{other: roster.adverts[other] for other in neighbours}}
    for other, advert in adverts.items():
        if advert.leaf(session) != leaves[other]:
            raise Misuse(Fault.ADVERTS, f"advert {other} is not the one that all were told of")
    _check_people(session, member, adverts, everybody=scheme.complete)
    del adverts[number]
    return _Place(number, scheme, session.context(scheme, root), adverts)


def _check_people(
    session: Session, member: Member, adverts: Mapping[int, Advert], *, everybody: bool
) -> None:
    """Each is somebody else, by the authority's word."""
    keys = [key for advert in adverts.values() for key in (advert.sealing_key, advert.masking_key)]
    names = {advert.name for advert in adverts.values()}
    if len(set(keys)) != len(keys) or len(names) != len(adverts):
        raise Misuse(
            Fault.DUPLICATE,
            f"{len(names)} names and {len(set(keys))} keys of {len(adverts)} clients",
        )
    organisations = set()
    for advert in adverts.values():
        organisation = member.directory.verify(
            advert.name, advert.document, advert.signed(session), advert.signature
        )
        if organisation is None:
            raise Misuse(Fault.SIGNATURE, f"'{advert.name[:80]}'")
        organisations.add(organisation)
    member.floor.check_organisations(len(organisations), len(adverts), everybody=everybody)


# ------------------------------------------------------------------ shares and masks


def _share(place: _Place, secrets: _Secrets) -> Shares:
    """Cuts both secrets into shares, seals one of each to every neighbour, keeps its own."""
    holders = sorted(place.adverts)
    if place.scheme.complete:
        holders.append(place.number)
    points, threshold = [holder + 1 for holder in holders], place.scheme.threshold
    seeds = split(secrets.seed, threshold, points)
    keys = split(secrets.masking.secret(), threshold, points)
    sealed = {}
    for holder, seed_share, key_share in zip(holders, seeds, keys, strict=True):
        if holder == place.number:
            secrets.held[holder] = seed_share, key_share
            continue
        public, way = place.adverts[holder].sealing_key, (place.number, holder)
        key = _agree(secrets.sealing, public, place.context, b"sealing", way)
        sealed[holder] = seal(key, seed_share, key_share, place.context, way)
        secrets.pairs[holder] = key
    return Shares(commitment(secrets.seed, place.context), sealed)


def _agree(
    key: KeyPair, public: bytes, context: bytes, purpose: bytes, pair: tuple[int, int]
) -> bytes:
    try:
        return key.agree(public, context, purpose, pair)
    except ValueError:
        raise Misuse(Fault.SIGNATURE, f"client {pair[1]} has a key that gives no secret") from None


def _open(place: _Place, secrets: _Secrets, inbox: Inbox) -> None:
    """Opens what the neighbours sealed; one bad text ends it all."""
    if not inbox.sealed.keys() <= place.adverts.keys():
        raise Misuse(Fault.SHARES, f"{sorted(inbox.sealed.keys() - place.adverts.keys())[:8]}")
    if len(inbox.sealed) + len(secrets.held) < place.scheme.threshold:
        raise Misuse(
            Fault.TOO_FEW_SHARES,
            f"{len(inbox.sealed) + len(secrets.held)}, needed are {place.scheme.threshold}",
        )
    for other, sealed in inbox.sealed.items():
        way = (other, place.number)
        secrets.held[other] = unseal(secrets.pairs[other], sealed, place.context, way)


def _mask(session: Session, place: _Place, secrets: _Secrets, vector: Vector) -> Masked:
    """Adds the own mask and one for each neighbour that shared its secrets."""
    if vector.shape != (session.size,) or vector.dtype.kind != "u":
        raise Misuse(Fault.VECTOR, f"{vector.dtype.name} of shape {vector.shape}")
    if int(vector.max()) >> session.bits:
        raise Misuse(Fault.VECTOR, f"elements beyond 2**{session.bits}")
    words = vector.astype(masks.word(session.bits))
    plus, minus = [derive(secrets.seed, place.context, b"own", place.number)], list[bytes]()
    for other in secrets.held.keys() - {place.number}:
        public, pair = place.adverts[other].masking_key, (place.number, other)
        seed = _agree(secrets.masking, public, place.context, b"pair", pair)
        (plus if place.number < other else minus).append(seed)
    masks.apply(words, session.bits, plus, minus)
    return Masked(words)


# ------------------------------------------------------------------ who survived, and the answer


def _check_survivors(
    session: Session, member: Member, place: _Place, secrets: _Secrets, survivors: Survivors
) -> None:
    alive, dropped = survivors.alive, survivors.dropped
    if (alive | dropped) >> place.scheme.clients:  # or negative: bits without end
        raise Misuse(Fault.UNKNOWN_CLIENT, f"beyond client {place.scheme.clients - 1}")
    if alive & dropped:
        raise Misuse(Fault.OVERLAP, f"{(alive & dropped).bit_count()} clients")
    if not alive >> place.number & 1:
        raise Misuse(Fault.NOT_SURVIVING, f"client {place.number}")
    shared, near = as_set(secrets.held) | 1 << place.number, as_set(place.adverts)
    if near & ~shared & (alive | dropped):
        raise Misuse(Fault.UNKNOWN_CLIENT, f"{(near & ~shared & (alive | dropped)).bit_count()}")
    if shared & ~(alive | dropped):
        raise Misuse(Fault.MISSING_CLIENT, f"{(shared & ~(alive | dropped)).bit_count()}")
    member.floor.check_cohort(session, alive.bit_count())
    if alive.bit_count() < place.scheme.threshold:
        raise Misuse(Fault.COHORT, f"{alive.bit_count()} survivors, below the threshold")


def _check_votes(member: Member, place: _Place, survivors: Survivors, votes: Votes) -> None:
    """Enough of those who hold shares saw the same survivors; a forged vote is no vote.

    Two different sets of survivors cannot both get enough votes: the threshold is above half of
    the holders and the corrupt together (Bonawitz et al., section 6.2).
    """
    message, seen = survivors.signed(place.context), int(place.scheme.complete)
    for other, signature in votes.signatures.items():
        if seen >= place.scheme.threshold:
            return
        if other == place.number:
            continue
        advert = place.adverts.get(other)
        if advert is None or not survivors.alive >> other & 1:
            raise Misuse(Fault.UNKNOWN_CLIENT, f"client {other} voted")
        if not member.directory.verify(advert.name, advert.document, message, signature):
            raise Misuse(Fault.SPLIT_VIEW, f"the vote of client {other}")
        seen += 1
    if seen < place.scheme.threshold:
        raise Misuse(Fault.VOTES, f"{seen}, needed are {place.scheme.threshold}")


def _answer(secrets: _Secrets, survivors: Survivors) -> Answer:
    """For each client that shared with this one exactly one of its two shares."""
    seeds, keys = {}, {}
    for other, (seed_share, key_share) in secrets.held.items():
        if survivors.alive >> other & 1:
            seeds[other] = seed_share
        else:
            keys[other] = key_share
    return Answer(seeds, keys)
