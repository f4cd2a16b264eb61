"""A coordinator that lies about who takes part: each lie has its own name, and nothing is sent.

`Table` leads an honest run up to the lie; what an honest coordinator would send is then twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.errors import Refused
from hansa.secagg import (
    Advert,
    Fault,
    Roster,
    Rule,
    Session,
    Shares,
    client_flow,
)
from hansa.secagg.agreement import KeyPair
from hansa.secagg.messages import LEAF_BYTES
from tests.secagg.lies import (
    FOLK,
    ME,
    crowd,
    fresh,
    number,
    seated,
    signed,
    tell,
    zeros,
)
from tests.support.cohort import Table, roster, session


def substituted_keys(adverts: dict[str, Advert], made: Session) -> None:
    """Both keys are the coordinator's; it has no signing key for them."""
    mine = fresh("c00002", made)
    adverts["c00002"] = replace(mine, signature=adverts["c00002"].signature)


def substituted_masking_key(adverts: dict[str, Advert], made: Session) -> None:
    adverts["c00002"] = replace(adverts["c00002"], masking_key=KeyPair.fresh().public)


def substituted_sealing_key(adverts: dict[str, Advert], made: Session) -> None:
    adverts["c00002"] = replace(adverts["c00002"], sealing_key=KeyPair.fresh().public)


def keys_in_exchanged_places(adverts: dict[str, Advert], made: Session) -> None:
    was = adverts["c00002"]
    adverts["c00002"] = replace(was, sealing_key=was.masking_key, masking_key=was.sealing_key)


def signed_by_somebody_else(adverts: dict[str, Advert], made: Session) -> None:
    was = adverts["c00002"]
    signature = Ed25519PrivateKey.generate().sign(was.signed(made))
    adverts["c00002"] = replace(was, signature=signature)


def another_name(adverts: dict[str, Advert], made: Session) -> None:
    adverts["c00002"] = replace(adverts["c00002"], name="c00099")


def replayed(**words: Any) -> Callable[[dict[str, Advert], Session], None]:
    """An advert that the client made and signed, for a session that differs in one word."""

    def twist(adverts: dict[str, Advert], made: Session) -> None:
        adverts["c00002"] = fresh("c00002", replace(made, **words))

    return twist


def one_name_twice(adverts: dict[str, Advert], made: Session) -> None:
    """A client that signed two adverts for one session counts once."""
    adverts["again"] = fresh("c00002", made)


def one_key_twice(masking: bool, sealing: bool) -> Callable[[dict[str, Advert], Session], None]:
    def twist(adverts: dict[str, Advert], made: Session) -> None:
        was, other = adverts["c00002"], adverts["c00003"]
        copy = replace(
            was,
            masking_key=other.masking_key if masking else was.masking_key,
            sealing_key=other.sealing_key if sealing else was.sealing_key,
        )
        adverts["c00002"] = signed(copy, made)

    return twist


def one_key_for_both(adverts: dict[str, Advert], made: Session) -> None:
    was = adverts["c00002"]
    adverts["c00002"] = signed(replace(was, masking_key=was.sealing_key), made)


def my_key_at_another(adverts: dict[str, Advert], made: Session) -> None:
    copy = replace(adverts["c00002"], masking_key=adverts[ME].masking_key)
    adverts["c00002"] = signed(copy, made)


ADVERTS: dict[str, tuple[Callable[[dict[str, Advert], Session], None], Fault]] = {
    "both keys are the coordinator's": (substituted_keys, Fault.SIGNATURE),
    "the masking key is the coordinator's": (substituted_masking_key, Fault.SIGNATURE),
    "the sealing key is the coordinator's": (substituted_sealing_key, Fault.SIGNATURE),
    "two keys in exchanged places": (keys_in_exchanged_places, Fault.SIGNATURE),
    "signed by somebody else": (signed_by_somebody_else, Fault.SIGNATURE),
    "a name that nobody has": (another_name, Fault.SIGNATURE),
    "replayed from the round before": (replayed(round=2), Fault.SIGNATURE),
    "replayed from the attempt before": (replayed(attempt=5), Fault.SIGNATURE),
    "replayed from an evaluation": (replayed(purpose="evaluate"), Fault.SIGNATURE),
    "replayed from another job": (replayed(job="job-2"), Fault.SIGNATURE),
    "replayed from another federation": (replayed(federation="elbe"), Fault.SIGNATURE),
    "replayed under another nonce": (replayed(nonce="11" * 32), Fault.SIGNATURE),
    "of a client with another plan": (replayed(plan="00" * 32), Fault.SIGNATURE),
    "of a client with another model": (replayed(model="00" * 32), Fault.SIGNATURE),
    "of a client with another rule": (replayed(rule=Rule(0.1)), Fault.SIGNATURE),
    "of a client with another smallest cohort": (replayed(cohort=5), Fault.SIGNATURE),
    "of a client with another size": (replayed(size=11), Fault.SIGNATURE),
    "of a client with another modulus": (replayed(bits=24), Fault.SIGNATURE),
    "one client twice": (one_name_twice, Fault.DUPLICATE),
    "one masking key under two names": (one_key_twice(True, False), Fault.DUPLICATE),
    "one sealing key under two names": (one_key_twice(False, True), Fault.DUPLICATE),
    "both keys under two names": (one_key_twice(True, True), Fault.DUPLICATE),
    "one key for both purposes": (one_key_for_both, Fault.DUPLICATE),
    "my own key under another name": (my_key_at_another, Fault.DUPLICATE),
}


@pytest.mark.parametrize("lie", ADVERTS)
def test_adverts_that_are_not_what_the_site_signed_now_are_refused(lie):
    """All the rest is consistent with the lie: hashes, numbers, degree and threshold."""
    seats = seated().step()
    adverts, (twist, fault) = dict(seats.sent[Advert]), ADVERTS[lie]
    twist(adverts, seats.session)
    tell(seats, roster(seats.session, adverts.values(), ME), fault)


def test_the_same_roster_without_a_lie_is_taken():
    seats = seated().step()
    made = roster(seats.session, seats.sent[Advert].values(), ME)
    assert made == seats.due(ME, Roster)
    assert isinstance(seats.clients[ME].send(made), Shares)


# ------------------------------------------------------------------ the roster


def left_out(seats: Table, honest: Roster) -> Roster:
    found = [advert for name, advert in seats.sent[Advert].items() if name != ME]
    return roster(seats.session, found, "c00002")


def exchanged_for_another_of_mine(seats: Table, honest: Roster) -> Roster:
    """Even one with my own signature: it is not the one that I made now."""
    found = {**seats.sent[Advert], ME: fresh(ME, seats.session)}
    return roster(seats.session, found.values(), ME)


def another_under_my_number(seats: Table, honest: Roster) -> Roster:
    return replace(honest, adverts={**honest.adverts, number(seats): fresh(ME, seats.session)})


def one_neighbour_less(seats: Table, honest: Roster) -> Roster:
    return replace(honest, adverts=dict(list(honest.adverts.items())[1:]))


def one_neighbour_more(seats: Table, honest: Roster) -> Roster:
    return replace(
        honest, adverts={**honest.adverts, len(seats.clients): fresh("c00002", seats.session)}
    )


def no_neighbours(seats: Table, honest: Roster) -> Roster:
    return replace(honest, adverts={})


def a_leaf_more(seats: Table, honest: Roster) -> Roster:
    """A client that is nobody, to make the cohort look larger."""
    return replace(honest, leaves=honest.leaves + b"\xff" * LEAF_BYTES, degree=honest.degree + 1)


def half_a_leaf_more(seats: Table, honest: Roster) -> Roster:
    return replace(honest, leaves=honest.leaves + b"\xff" * 16, degree=honest.degree + 1)


def exchanged_adverts(seats: Table, honest: Roster) -> Roster:
    one, other, *_ = honest.adverts
    moved = {one: honest.adverts[other], other: honest.adverts[one]}
    return replace(honest, adverts={**honest.adverts, **moved})


def another_advert_than_its_hash(seats: Table, honest: Roster) -> Roster:
    """The coordinator tells all of one advert, and this client of another that is signed, too."""
    place = number(seats, "c00002")
    return replace(honest, adverts={**honest.adverts, place: fresh("c00002", seats.session)})


def leaves_turned_round(seats: Table, honest: Roster) -> Roster:
    """Who stands where is the coordinator's choice no more."""
    count = len(honest.leaves)
    leaves = [honest.leaves[at : at + LEAF_BYTES] for at in range(0, count, LEAF_BYTES)]
    last = len(leaves) - 1
    adverts = {last - place: advert for place, advert in honest.adverts.items()}
    return replace(honest, leaves=b"".join(reversed(leaves)), adverts=adverts)


def a_leaf_twice(seats: Table, honest: Roster) -> Roster:
    """One client counted twice."""
    last, place = honest.leaves[-LEAF_BYTES:], len(seats.clients) - 1
    adverts = dict(honest.adverts)
    if place in adverts:
        adverts[place + 1] = adverts[place]
    else:
        adverts[place + 1] = seats.sent[Advert][ME]
    return replace(honest, leaves=honest.leaves + last, adverts=adverts, degree=honest.degree + 1)


def no_leaves(seats: Table, honest: Roster) -> Roster:
    return replace(honest, leaves=b"")


def only_me(seats: Table, honest: Roster) -> Roster:
    return replace(honest, leaves=seats.sent[Advert][ME].leaf(seats.session), adverts={})


ROSTERS: dict[str, tuple[Callable[[Table, Roster], Roster], Fault]] = {
    "my advert left out": (left_out, Fault.OWN_ADVERT),
    "my advert exchanged": (exchanged_for_another_of_mine, Fault.OWN_ADVERT),
    "another advert under my number": (another_under_my_number, Fault.OWN_ADVERT),
    "one neighbour less": (one_neighbour_less, Fault.NEIGHBOURS),
    "one neighbour more": (one_neighbour_more, Fault.NEIGHBOURS),
    "no neighbours": (no_neighbours, Fault.NEIGHBOURS),
    "one client more than there are": (a_leaf_more, Fault.NEIGHBOURS),
    "half a hash more": (half_a_leaf_more, Fault.NEIGHBOURS),
    "adverts in exchanged places": (exchanged_adverts, Fault.ADVERTS),
    "another advert than all know": (another_advert_than_its_hash, Fault.ADVERTS),
    "hashes in another order": (leaves_turned_round, Fault.ADVERTS),
    "one hash twice": (a_leaf_twice, Fault.ADVERTS),
    "a threshold of one": (lambda _, made: replace(made, threshold=1), Fault.THRESHOLD),
    "a threshold of none": (lambda _, made: replace(made, threshold=0), Fault.THRESHOLD),
    "one below the threshold": (
        lambda _, made: replace(made, threshold=made.threshold - 1),
        Fault.THRESHOLD,
    ),
    "one above the threshold": (
        lambda _, made: replace(made, threshold=made.threshold + 1),
        Fault.THRESHOLD,
    ),
    "one below the degree": (lambda _, made: replace(made, degree=made.degree - 1), Fault.DEGREE),
    "one above the degree": (lambda _, made: replace(made, degree=made.degree + 1), Fault.DEGREE),
    "nobody": (no_leaves, Fault.COHORT),
    "nobody but me": (only_me, Fault.COHORT),
}


@pytest.mark.parametrize("lie", ROSTERS)
def test_a_roster_that_does_not_follow_from_the_adverts_is_refused(lie):
    seats, (twist, fault) = seated().step(), ROSTERS[lie]
    tell(seats, twist(seats, seats.due(ME, Roster)), fault)


def test_a_roster_may_hold_my_own_advert():
    seats = seated().step()
    honest = seats.due(ME, Roster)
    mine = {number(seats): seats.sent[Advert][ME]}
    assert isinstance(
        seats.clients[ME].send(replace(honest, adverts={**honest.adverts, **mine})), Shares
    )


@pytest.mark.parametrize("lie", ["one neighbour less", "no neighbours", "one below the degree"])
def test_lies_about_a_sparse_graph_are_refused(lie):
    seats, (twist, fault) = crowd().step(), ROSTERS[lie]
    tell(seats, twist(seats, seats.due(ME, Roster)), fault)


def test_another_clients_neighbours_are_refused():
    """So many that it could be a neighbourhood, chosen by the coordinator."""
    seats = crowd().step()
    other = seats.due("c00002", Roster)
    adverts = {place: a for place, a in other.adverts.items() if place != number(seats)}
    tell(seats, replace(other, adverts=adverts), Fault.NEIGHBOURS)


def test_a_cohort_for_which_no_threshold_is_safe_is_refused():
    made = session(rule=Rule(corrupt=0.4, dropouts=0.4))
    clients = {name: client_flow(made, FOLK.member(name), zeros()) for name in FOLK.signing}
    adverts = [client.send(None) for client in clients.values()]
    leaves = sorted(advert.leaf(made) for advert in adverts if isinstance(advert, Advert))
    with pytest.raises(Refused, match="need a threshold"):
        clients[ME].send(Roster(b"".join(leaves), 5, 4, {}))
