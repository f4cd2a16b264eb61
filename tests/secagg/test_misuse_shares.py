"""A coordinator that tampers with sealed shares, or helps a client to do so; wrong vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hansa.secagg import (
    Advert,
    Fault,
    Inbox,
    Masked,
    Shares,
    client_flow,
)
from hansa.secagg.agreement import KeyPair, seal
from hansa.secagg.messages import root_of
from tests.secagg.lies import (
    FOLK,
    ME,
    crowd,
    number,
    others,
    seated,
    signed,
    tell,
)
from tests.support.cohort import Table, roster


def exchanged_texts(seats: Table, honest: Inbox) -> Inbox:
    one, other, *_ = honest.sealed
    moved = {one: honest.sealed[other], other: honest.sealed[one]}
    return Inbox({**honest.sealed, **moved})


def changed(at: int) -> Callable[[Table, Inbox], Inbox]:
    def twist(seats: Table, honest: Inbox) -> Inbox:
        other, text = next(iter(honest.sealed.items()))
        bad = bytearray(text)
        bad[at] ^= 1
        return Inbox({**honest.sealed, other: bytes(bad)})

    return twist


def cut(length: int) -> Callable[[Table, Inbox], Inbox]:
    def twist(seats: Table, honest: Inbox) -> Inbox:
        other, text = next(iter(honest.sealed.items()))
        return Inbox({**honest.sealed, other: text[:length]})

    return twist


def my_own_back(seats: Table, honest: Inbox) -> Inbox:
    """What I sealed for another, as if it came from there: the key is the same both ways."""
    other = others(seats)[0]
    return Inbox({**honest.sealed, other: seats.sent[Shares][ME].sealed[other]})


def meant_for_another(seats: Table, honest: Inbox) -> Inbox:
    sender, holder = others(seats)[:2]
    (name,) = [name for name in seats.clients if number(seats, name) == sender]
    return Inbox({**honest.sealed, sender: seats.sent[Shares][name].sealed[holder]})


def of_another_attempt(seats: Table, honest: Inbox) -> Inbox:
    again = seated(attempt=1).until(Inbox)
    return Inbox({**honest.sealed, others(seats)[0]: again.due(ME, Inbox).sealed[others(again)[0]]})


def of_a_stranger(seats: Table, honest: Inbox) -> Inbox:
    return Inbox({**honest.sealed, 6: honest.sealed[others(seats)[0]]})


def under_my_number(seats: Table, honest: Inbox) -> Inbox:
    """It would take the place of the share that I keep myself."""
    return Inbox({**honest.sealed, number(seats): honest.sealed[others(seats)[0]]})


def first_few(count: int) -> Callable[[Table, Inbox], Inbox]:
    return lambda _, honest: Inbox(dict(list(honest.sealed.items())[:count]))


INBOXES: dict[str, tuple[Callable[[Table, Inbox], Inbox], Fault]] = {
    "texts exchanged": (exchanged_texts, Fault.SEALED),
    "a nonce changed": (changed(0), Fault.SEALED),
    "a share changed": (changed(20), Fault.SEALED),
    "a tag changed": (changed(-1), Fault.SEALED),
    "a text cut short": (cut(-1), Fault.SEALED),
    "a text that is a nonce": (cut(12), Fault.SEALED),
    "a text that is nothing": (cut(0), Fault.SEALED),
    "my own text back": (my_own_back, Fault.SEALED),
    "a text for another": (meant_for_another, Fault.SEALED),
    "a text of another attempt": (of_another_attempt, Fault.SEALED),
    "a text of a stranger": (of_a_stranger, Fault.SHARES),
    "a text under my own number": (under_my_number, Fault.SHARES),
    "two texts, with mine three shares": (first_few(2), Fault.TOO_FEW_SHARES),
    "no texts": (first_few(0), Fault.TOO_FEW_SHARES),
}


@pytest.mark.parametrize("lie", INBOXES)
def test_sealed_shares_that_are_not_the_neighbours_are_refused(lie):
    seats, (twist, fault) = seated().until(Inbox), INBOXES[lie]
    tell(seats, twist(seats, seats.due(ME, Inbox)), fault)


def test_a_threshold_of_shares_is_enough_and_one_less_is_not_on_a_sparse_graph():
    """There nobody holds a share of its own secrets."""
    seats = crowd().until(Inbox)
    tell(seats, first_few(3)(seats, seats.due(ME, Inbox)), Fault.TOO_FEW_SHARES)
    seats = crowd().until(Inbox)
    assert isinstance(seats.clients[ME].send(first_few(4)(seats, seats.due(ME, Inbox))), Masked)
    seats = seated().until(Inbox)
    assert isinstance(seats.clients[ME].send(first_few(3)(seats, seats.due(ME, Inbox))), Masked)


@pytest.mark.parametrize(
    ("bits", "vector"),
    [
        (32, np.zeros(9, np.uint32)),
        (32, np.zeros(11, np.uint32)),
        (32, np.zeros((10, 1), np.uint32)),
        (32, np.zeros(10, np.float32)),
        (32, np.zeros(10, np.int64)),
        (32, np.zeros(10, bool)),
        (32, np.array([0] * 9 + [1 << 32], np.uint64)),
        (24, np.array([0] * 9 + [1 << 24], np.uint32)),
        (16, np.array([0] * 9 + [1 << 16], np.uint32)),
    ],
)
def test_a_vector_that_does_not_fit_is_not_sent(bits, vector):
    seats = seated(bits=bits)
    seats.clients[ME] = client_flow(seats.session, FOLK.member(ME), vector)
    seats.until(Inbox)
    tell(seats, seats.due(ME, Inbox), Fault.VECTOR)


# ------------------------------------------------------------------ a neighbour that helps


@dataclass
class Accomplice:
    """A client that the coordinator speaks for: its signature is good, its messages are not.

    Attributes:
      place: its number.
      me: the number of the client that is lied to.
      key: of the advert, for sealing.
      context: of the cohort that it is in.
      inbox: what all others sealed for the client that is lied to.
      mine: the advert of the client that is lied to.
    """

    place: int
    me: int
    key: KeyPair
    context: bytes
    inbox: Inbox
    mine: Advert

    def sends(self, plain: bytes) -> Inbox:
        """Everybody's shares, and instead of two shares these bytes."""
        way = (self.place, self.me)
        key = self.key.agree(self.mine.sealing_key, self.context, b"sealing", way)
        return Inbox({**self.inbox.sealed, self.place: seal(key, plain, b"", self.context, way)})


def accomplice(seats: Table, masking_key: bytes) -> Accomplice:
    """Plays up to the shares, with this masking key in one advert."""
    key, name, made = KeyPair.fresh(), "c00002", seats.session
    adverts = dict(seats.step().sent[Advert])
    adverts[name] = signed(Advert(name, key.public, masking_key, b""), made)
    rosters = {other: roster(made, adverts.values(), other) for other in adverts}
    places = {
        other: next(iter(set(range(len(adverts))) - found.adverts.keys()))
        for other, found in rosters.items()
    }
    sealed = {}
    for other in adverts.keys() - {name}:
        shares = seats.clients[other].send(rosters[other])
        assert isinstance(shares, Shares)
        if other != ME:
            sealed[places[other]] = shares.sealed[places[ME]]
    context = made.context(made.rule.scheme(len(adverts)), root_of(rosters[ME].leaves))
    return Accomplice(places[name], places[ME], key, context, Inbox(sealed), adverts[ME])


def test_two_shares_of_a_neighbour_are_taken():
    seats = seated()
    helper = accomplice(seats, KeyPair.fresh().public)
    assert isinstance(seats.clients[ME].send(helper.sends(bytes(66))), Masked)


@pytest.mark.parametrize("count", [0, 33, 65, 67])
def test_a_sealed_text_that_does_not_hold_two_shares_is_refused(count):
    seats = seated()
    tell(seats, accomplice(seats, KeyPair.fresh().public).sends(bytes(count)), Fault.SEALED)


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), bytes(31), bytes(33)])
def test_a_masking_key_that_gives_no_secret_is_refused(key):
    seats = seated()
    tell(seats, accomplice(seats, key).sends(bytes(66)), Fault.SIGNATURE)


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), bytes(31), bytes(33)])
def test_a_sealing_key_that_gives_no_secret_is_refused(key):
    seats = seated().step()
    adverts = dict(seats.sent[Advert])
    adverts["c00002"] = signed(replace(adverts["c00002"], sealing_key=key), seats.session)
    tell(seats, roster(seats.session, adverts.values(), ME), Fault.SIGNATURE)
