"""What the tests of a lying coordinator share: an honest table, one client that is lied to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.secagg import (
    Advert,
    Fault,
    Floor,
    Inbox,
    Misuse,
    Rule,
    Session,
    Votes,
)
from hansa.secagg.agreement import KeyPair
from hansa.secagg.messages import root_of
from tests.support.cohort import People, Table, people, session, table

FOLK = people(6)
CROWD = people(64)
RULE = Rule(corrupt=0.0, dropouts=0.4)  # six clients: a threshold of four
SPARSE = Rule(corrupt=0.05, dropouts=0.1, active=False)  # 64: degree 10, threshold 4
CURIOUS = Floor(threshold=0.3, active=False)
ME = "c00001"


@contextmanager
def refused(fault: Fault) -> Iterator[None]:
    """The one fault, by its name and in its words."""
    with pytest.raises(Misuse) as caught:
        yield
    assert caught.value.fault is fault
    assert fault.value in caught.value.message


def seated(folk: People = FOLK, floor: Floor | None = None, **words: Any) -> Table:
    return table(session(rule=RULE, **words), folk, floor)


def crowd(**words: Any) -> Table:
    return table(session(rule=SPARSE, **words), CROWD, CURIOUS)


def tell(seats: Table, message: object, fault: Fault) -> None:
    """One message to the client in question: it refuses, and is done for good."""
    with refused(fault):
        seats.clients[ME].send(message)
    with pytest.raises(StopIteration):
        seats.clients[ME].send(message)


def number(seats: Table, name: str = ME) -> int:
    """A client's number, by the hash of its advert."""
    advert = seats.sent[Advert][name]
    leaves = sorted(other.leaf(seats.session) for other in seats.sent[Advert].values())
    return leaves.index(advert.leaf(seats.session))


def others(seats: Table) -> list[int]:
    return [other for other in range(len(seats.clients)) if other != number(seats)]


def signed(advert: Advert, made: Session, folk: People = FOLK) -> Advert:
    """The same words signed by the client whose name is on them."""
    return replace(advert, signature=folk.signing[advert.name].sign(advert.signed(made)))


def fresh(name: str, made: Session) -> Advert:
    return signed(Advert(name, KeyPair.fresh().public, KeyPair.fresh().public, b""), made)


def zeros() -> np.ndarray:
    return np.zeros(10, np.uint32)


def context(seats: Table) -> bytes:
    made = seats.session
    leaves = sorted(advert.leaf(made) for advert in seats.sent[Advert].values())
    return made.context(made.rule.scheme(len(leaves)), root_of(b"".join(leaves)))


def voted(silent: str = "c00005", **words: Any) -> Table:
    """Up to the votes; one vanished after it had shared, and is dropped."""
    return seated(**words).until(Inbox).step([silent]).until(Votes)
