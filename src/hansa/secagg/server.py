"""The server's half of the protocol: it carries messages, adds up and cancels masks.

It is honest here. That it cannot gain by lying is what the client's half makes sure of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np

from hansa.core.vector import Vector
from hansa.errors import HansaError, RoundVoid, UpdateRejected
from hansa.secagg import masks
from hansa.secagg.agreement import usable
from hansa.secagg.cancel import Cohort, cancel
from hansa.secagg.directory import Directory
from hansa.secagg.graph import draw
from hansa.secagg.messages import (
    Advert,
    Answer,
    Inbox,
    Masked,
    Message,
    Roster,
    Shares,
    Survivors,
    ToClient,
    Vote,
    Votes,
    as_set,
    root_of,
)
from hansa.secagg.parameters import Scheme
from hansa.secagg.session import Session

_Reply = TypeVar("_Reply")

LATE: Final = "came after its step of the secure aggregation was over"


@dataclass(frozen=True, slots=True)
class Ask(Generic[_Reply]):
    """One step: what to send, and what to do with each reply as it comes.

    Attributes:
      reply: the type that is due.
      messages: what each client is sent, by name; None is what a client is told before its advert.
      take: checks a client's reply and takes it in; raises UpdateRejected if it is none, or if
        the step is over. Called once for each client, by one thread at a time.
      enough: whether the step may end, although not everybody replied.
    """

    reply: type[_Reply]
    messages: Mapping[str, ToClient | None] = field(repr=False)
    take: Callable[[str, Message], None] = field(repr=False)
    enough: Callable[[], bool] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sum:
    """What came of it.

    Attributes:
      vector: (d,) uint32, the sum modulo 2**bits.
      members: whose vectors are in it, sorted.
      transcript: hash of who took part, who survived and by which parameters, in hexadecimal.
    """

    vector: Vector = field(repr=False)
    members: tuple[str, ...]
    transcript: str


@dataclass(slots=True)
class _Step(Generic[_Reply]):
    """Collects one reply of each client until it is closed.

    Attributes:
      kind: the type that is due.
      asked: what each client is sent.
      check: raises UpdateRejected if a reply is none; takes in what is not to be kept.
      keep: whether replies are kept; otherwise only that they came.
    """

    kind: type[_Reply]
    asked: Mapping[str, ToClient | None]
    check: Callable[[str, _Reply], None]
    keep: bool = True
    replies: dict[str, _Reply] = field(default_factory=dict)
    came: set[str] = field(default_factory=set)
    open: bool = True

    def take(self, name: str, message: Message) -> None:
        """One client's reply."""
        if not self.open or name not in self.asked or name in self.came:
            raise UpdateRejected(
                f"a message of '{name[:80]}' " + ("came twice" if name in self.came else LATE),
                fix="take part in the next attempt",
            )
        if not isinstance(message, self.kind):
            raise UpdateRejected(
                f"'{name[:80]}' sent {type(message).__name__} where {self.kind.__name__} was due",
                fix="follow the protocol",
            )
        self.check(name, message)
        self.came.add(name)
        if self.keep:
            self.replies[name] = message


def server_flow(
    session: Session, invited: Sequence[str], directory: Directory
) -> Generator[Ask[Message], None, Sum]:
    """Leads one masked sum; yields each step and is resumed when it is over.

    Args:
      session: what the sum is about.
      invited: names of the clients that may take part.
      directory: checks adverts and votes, so that a lying client does not stop the others.

    Raises:
      RoundVoid: too few clients are left; nothing is revealed, and a new attempt starts afresh.
    """
    taken: set[bytes] = set()
    step = _Step(
        Advert,
        dict.fromkeys(invited),
        lambda name, m: _check_advert(session, directory, taken, name, m),
    )
    yield from _ask(step, lambda: False)
    cohort = _fix(session, step.replies)

    shared = _Step(Shares, _rosters(cohort), lambda name, m: _check_shares(cohort, name, m))
    yield from _ask(shared, lambda: False)
    sharing = {cohort.numbers[name]: shares for name, shares in shared.replies.items()}
    _need(len(sharing), _least(session, cohort.scheme), "shared their secrets")

    total = np.zeros(session.size, masks.word(session.bits))
    masked = _Step(
        Masked, _inboxes(cohort, sharing), lambda _, m: _add(session, total, m), keep=False
    )
    yield from _ask(masked, lambda: False)
    alive = as_set(cohort.numbers[name] for name in masked.came)
    _need(alive.bit_count(), _least(session, cohort.scheme), "sent their update")

    survivors = Survivors(alive, as_set(sharing) & ~alive)
    message = survivors.signed(cohort.context)
    voting = _Step(
        Vote,
        dict.fromkeys(masked.came, survivors),
        lambda name, m: _check_vote(cohort, directory, name, message, m),
    )
    yield from _ask(voting, lambda: False)
    _need(len(voting.replies), cohort.scheme.threshold, "voted")

    answers = _Step(
        Answer,
        _votes(cohort, voting.replies),
        lambda name, m: _check_answer(cohort, survivors, sharing, name, m),
    )
    yield from _ask(answers, lambda: _reconstructible(cohort, survivors, answers.replies))
    _need(len(answers.replies), min(cohort.scheme.threshold, len(voting.replies)), "answered")
    commitments = {number: shares.commitment for number, shares in sharing.items()}
    revealed = {cohort.numbers[name]: answer for name, answer in answers.replies.items()}
    cancel(session, cohort, survivors, commitments, revealed, total)
    return Sum(
        total.astype(np.uint32, copy=False),
        tuple(sorted(masked.came)),
        hashlib.sha256(message).hexdigest(),
    )


def _ask(step: _Step[_Reply], enough: Callable[[], bool]) -> Generator[Ask[Message], None, None]:
    """Yields a step until it is over; whatever comes later is refused."""
    try:
        yield Ask(step.kind, step.asked, step.take, enough)
    finally:
        step.open = False


# ------------------------------------------------------------------ who takes part


def _check_advert(
    session: Session, directory: Directory, taken: set[bytes], name: str, advert: Advert
) -> None:
    """What one client's neighbours would refuse; found here it stops nobody else."""
    signed = advert.signed(session)
    if advert.name != name or not directory.verify(name, advert.document, signed, advert.signature):
        raise UpdateRejected(
            f"the advert of '{name[:80]}' is not signed by it for this session",
            fix="use the site's own signing key, and a document that is valid now",
        )
    keys = {advert.sealing_key, advert.masking_key}
    if len(keys) < 2 or keys & taken or not all(map(usable, keys)):
        raise UpdateRejected(
            f"the keys of '{name[:80]}' are not two fresh X25519 keys", fix="follow the protocol"
        )
    taken |= keys


def _fix(session: Session, adverts: Mapping[str, Advert]) -> Cohort:
    """The cohort: numbered by the hashes of the adverts."""
    _need(len(adverts), max(session.cohort, 2), "took part")
    ordered = sorted(adverts.values(), key=lambda advert: advert.leaf(session))
    leaves = b"".join(advert.leaf(session) for advert in ordered)
    try:
        scheme = session.rule.scheme(len(ordered))
    except HansaError as error:
        raise RoundVoid(error.message, fix=error.fix) from error
    root = root_of(leaves)
    return Cohort(
        scheme,
        draw(scheme, root),
        session.context(scheme, root),
        leaves,
        tuple(ordered),
        {advert.name: number for number, advert in enumerate(ordered)},
    )


def _rosters(cohort: Cohort) -> dict[str, ToClient | None]:
    rosters: dict[str, ToClient | None] = {}
    for number, advert in enumerate(cohort.adverts):
        near = {other: cohort.adverts[other] for other in cohort.graph.neighbours(number)}
        rosters[advert.name] = Roster(
            cohort.leaves, cohort.scheme.degree, cohort.scheme.threshold, near
        )
    return rosters


# ------------------------------------------------------------------ shares, updates, votes


def _check_shares(cohort: Cohort, name: str, shares: Shares) -> None:
    if shares.sealed.keys() != cohort.graph.neighbours(cohort.numbers[name]):
        raise UpdateRejected(
            f"'{name}' sealed shares for others than its neighbours", fix="follow the protocol"
        )


def _inboxes(cohort: Cohort, sharing: Mapping[int, Shares]) -> dict[str, ToClient | None]:
    inboxes: dict[str, ToClient | None] = {}
    for number in sharing:
        near = cohort.graph.neighbours(number) & sharing.keys()
        sealed = {other: sharing[other].sealed[number] for other in near}
        inboxes[cohort.adverts[number].name] = Inbox(sealed)
    return inboxes


def _add(session: Session, total: masks.Words, masked: Masked) -> None:
    vector = masked.vector
    if vector.shape != total.shape or vector.dtype != total.dtype:
        raise UpdateRejected(
            f"a masked update is {vector.dtype.name} of shape {vector.shape}, the plan says "
            f"{total.dtype.name} of {total.shape}",
            fix="encode the update as the plan says",
        )
    total += vector
    if session.bits == 24:
        total &= np.uint32((1 << 24) - 1)


def _check_vote(
    cohort: Cohort, directory: Directory, name: str, message: bytes, vote: Vote
) -> None:
    advert = cohort.adverts[cohort.numbers[name]]
    if not directory.verify(name, advert.document, message, vote.signature):
        raise UpdateRejected(
            f"the vote of '{name}' is not signed by it for these survivors",
            fix="follow the protocol",
        )


def _votes(cohort: Cohort, votes: Mapping[str, Vote]) -> dict[str, ToClient | None]:
    cast = {cohort.numbers[name]: vote.signature for name, vote in votes.items()}
    found: dict[str, ToClient | None] = {}
    for name in votes:
        near = cohort.graph.neighbours(cohort.numbers[name]) & cast.keys()
        found[name] = Votes({other: cast[other] for other in sorted(near)})
    return found


def _check_answer(
    cohort: Cohort, survivors: Survivors, sharing: Mapping[int, Shares], name: str, answer: Answer
) -> None:
    number = cohort.numbers[name]
    near = as_set(cohort.graph.neighbours(number) & sharing.keys())
    near |= int(cohort.scheme.complete) << number
    if (
        as_set(answer.seeds) != near & survivors.alive
        or as_set(answer.keys) != near & survivors.dropped
    ):
        raise UpdateRejected(
            f"the answer of '{name}' holds other shares than were asked for",
            fix="follow the protocol",
        )


def _reconstructible(cohort: Cohort, survivors: Survivors, answers: Mapping[str, Answer]) -> bool:
    """Whether every secret that is needed has enough shares."""
    if cohort.scheme.complete:
        return len(answers) >= cohort.scheme.threshold
    answered = as_set(cohort.numbers[name] for name in answers)
    needed = survivors.alive | survivors.dropped
    return all(
        (as_set(cohort.graph.neighbours(number)) & answered).bit_count() >= cohort.scheme.threshold
        for number in range(cohort.scheme.clients)
        if needed >> number & 1
    )


def _least(session: Session, scheme: Scheme) -> int:
    """Fewest clients with which it can go on."""
    return max(session.cohort, scheme.threshold if scheme.complete else 2)


def _need(have: int, least: int, did: str) -> None:
    if have < least:
        raise RoundVoid(
            f"{have} clients {did}, {least} are needed for a masked sum",
            fix="wait for more clients; the next attempt starts afresh",
        )
