"""A coordinator that gives one client another model: masks and keys fit one session only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from hansa.errors import UpdateRejected
from hansa.secagg import (
    Advert,
    Fault,
    Inbox,
    Rule,
    Session,
    Shares,
    client_flow,
)
from hansa.secagg.agreement import KeyPair
from hansa.secagg.parameters import Scheme
from tests.secagg.lies import (
    FOLK,
    ME,
    RULE,
    refused,
    zeros,
)
from tests.support.cohort import roster, session, table


def other_model() -> Session:
    return session(rule=RULE, model="ee" * 32)


def test_an_honest_coordinator_refuses_a_client_with_another_model():
    seats = table(session(rule=RULE), FOLK, sessions={ME: other_model()})
    advert = seats.clients[ME].send(None)
    assert seats.ask is not None
    with pytest.raises(UpdateRejected, match="not signed by it for this session"):
        seats.ask.take(ME, advert)


@pytest.mark.parametrize("view", [session(rule=RULE), other_model()])
def test_whoever_is_given_another_model_and_everybody_else_refuse_each_others_adverts(view):
    """Whichever session the coordinator orders the adverts by."""
    clients = {
        name: client_flow(
            other_model() if name == ME else session(rule=RULE), FOLK.member(name), zeros()
        )
        for name in FOLK.signing
    }
    adverts = [a for c in clients.values() if isinstance(a := c.send(None), Advert)]
    with refused(Fault.SIGNATURE if view.model == other_model().model else Fault.OWN_ADVERT):
        clients[ME].send(roster(view, adverts, ME))
    with refused(Fault.OWN_ADVERT if view.model == other_model().model else Fault.SIGNATURE):
        clients["c00002"].send(roster(view, adverts, "c00002"))


@dataclass(frozen=True)
class Credulous:
    """A directory that believes everything."""

    def verify(self, name: str, document: str, message: bytes, signature: bytes) -> str | None:
        return name


def test_even_clients_that_check_no_signature_open_nothing_that_was_made_for_another_model():
    """Every key is derived from the session: neither shares nor masks fit across two models."""
    made = {name: other_model() if name == ME else session(rule=RULE) for name in FOLK.signing}
    clients = {
        name: client_flow(made[name], replace(FOLK.member(name), directory=Credulous()), zeros())
        for name in FOLK.signing
    }
    adverts = [a for c in clients.values() if isinstance(a := c.send(None), Advert)]
    rosters = {name: roster(made[name], adverts, name) for name in clients}
    shares = {name: client.send(rosters[name]) for name, client in clients.items()}
    (mine,) = set(range(6)) - rosters[ME].adverts.keys()
    sealed = {}
    for place, advert in rosters[ME].adverts.items():
        other = shares[advert.name]
        assert isinstance(other, Shares)
        sealed[place] = next(iter(other.sealed.values()))
    assert mine not in sealed
    with refused(Fault.SEALED):
        clients[ME].send(Inbox(sealed))


def test_masks_of_two_models_do_not_cancel():
    one, other = KeyPair.fresh(), KeyPair.fresh()
    scheme = RULE.scheme(6)
    here, there = (made.context(scheme, bytes(32)) for made in (session(rule=RULE), other_model()))
    mine = one.agree(other.public, here, b"pair", (0, 1))
    assert mine == other.agree(one.public, here, b"pair", (1, 0))
    assert mine != other.agree(one.public, there, b"pair", (1, 0))


@pytest.mark.parametrize(
    "words",
    [
        {"federation": "elbe"},
        {"job": "job-2"},
        {"purpose": "evaluate"},
        {"round": 4},
        {"attempt": 1},
        {"plan": "00" * 32},
        {"model": "00" * 32},
        {"size": 11},
        {"bits": 24},
        {"cohort": 3},
        {"rule": Rule(0.2)},
        {"rule": Rule(dropouts=0.1)},
        {"rule": Rule(active=False)},
        {"nonce": "11" * 32},
    ],
)
def test_every_word_of_a_session_is_in_all_that_is_derived_from_it(words):
    one, other, scheme = session(), session(**words), Scheme(6, 5, 4)
    assert one.digest != other.digest
    assert one.context(scheme, bytes(32)) != other.context(scheme, bytes(32))


@pytest.mark.parametrize("scheme", [Scheme(7, 5, 4), Scheme(6, 4, 4), Scheme(6, 5, 3)])
def test_the_graph_and_the_threshold_are_in_all_that_is_derived(scheme):
    one = session().context(Scheme(6, 5, 4), bytes(32))
    assert one != session().context(scheme, bytes(32))
    assert one != session().context(Scheme(6, 5, 4), b"\1" + bytes(31))
