"""Masked sums from beginning to end: bit for bit the plain sum, whoever vanishes and when."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import HansaError, RoundVoid, UpdateRejected
from hansa.secagg import (
    Advert,
    Answer,
    Floor,
    Inbox,
    Masked,
    Roster,
    Rule,
    Shares,
    Survivors,
    Vote,
    Votes,
    client_flow,
    drive,
    server_flow,
)
from hansa.secagg.graph import draw
from hansa.secagg.local import LocalMembers
from hansa.secagg.parameters import Scheme
from tests.support.cohort import Table, people, session, table

MODULI = (16, 24, 32)
FOLK = people(12)
CROWD = people(64)
SPARSE = Rule(corrupt=0.05, dropouts=0.1, active=False)  # 64 clients: degree 10, threshold 4
CURIOUS = Floor(threshold=0.3, active=False)


def some(count: int) -> list[str]:
    return list(FOLK.signing)[:count]


def seated(count: int, size: int = 10, bits: int = 32, **words: object) -> Table:
    """A complete graph of the first few of the folk, of whom almost half may vanish."""
    made = session(size, bits, Rule(corrupt=0.0, dropouts=0.4), **words)
    folk = replace(FOLK, signing={name: FOLK.signing[name] for name in some(count)})
    return table(made, folk, Floor(cohort=2))


def crowd(size: int = 40, bits: int = 24, seed: int = 1) -> Table:
    return table(session(size, bits, SPARSE), CROWD, CURIOUS, seed=seed)


# ------------------------------------------------------------------ the sum


@given(
    st.integers(2, 12),
    st.sampled_from(MODULI),
    st.one_of(st.integers(1, 40), st.integers(1, 5000)),
    st.integers(0, 2**32),
)
@settings(derandomize=True, deadline=None, max_examples=40)
def test_a_masked_sum_is_the_plain_sum_bit_for_bit(count, bits, size, seed):
    made, names = session(size, bits, Rule(corrupt=0.0, dropouts=0.4)), some(count)
    seats = table(made, replace(FOLK, signing={n: FOLK.signing[n] for n in names}), Floor(cohort=2))
    rng = np.random.default_rng(seed)
    seats.vectors = {n: rng.integers(0, 1 << bits, size, dtype=np.uint32) for n in names}
    seats.clients = {
        n: client_flow(made, FOLK.member(n, Floor(cohort=2)), v) for n, v in seats.vectors.items()
    }
    assert seats.finish().members == tuple(names)


STEPS = st.sampled_from(["never", Roster, Inbox, Survivors, Votes, "stays"])


@given(st.integers(4, 12), st.sampled_from(MODULI), st.integers(1, 300), st.data())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_clients_may_vanish_at_any_step_as_long_as_a_threshold_is_left(count, bits, size, data):
    """Whoever stays silent at a step stays silent; the sum is over those who sent a vector."""
    names, seats = some(count), seated(count, size, bits)
    vanish = {name: data.draw(STEPS) for name in names}
    joined = [name for name in names if vanish[name] != "never"]
    if len(joined) < 2:
        return
    threshold = seats.session.rule.scheme(len(joined)).threshold
    gone: set[str] = {name for name in names if vanish[name] == "never"}
    masked = joined
    try:
        seats.step(gone)
        for kind in (Roster, Inbox, Survivors, Votes):
            gone |= {name for name in names if vanish[name] is kind}
            if kind is Inbox:
                masked = [name for name in names if name not in gone]
            seats.step(gone)
    except RoundVoid:
        assert count - len(gone) < threshold
        return
    assert count - len(gone) >= threshold
    assert seats.finish().members == tuple(masked)


@pytest.mark.parametrize("bits", MODULI)
@pytest.mark.parametrize("kind", [None, Roster, Inbox, Survivors, Votes])
def test_one_client_may_vanish_before_each_step(bits, kind):
    seats, gone = seated(5, 1000, bits), ["c00002"]
    if kind is None:
        seats.step(gone)
    else:
        seats.until(kind)
    counted = kind in (Survivors, Votes)
    assert seats.finish(gone).members == tuple(n for n in some(5) if counted or n not in gone)


@pytest.mark.parametrize("bits", MODULI)
@pytest.mark.parametrize("type_", [np.uint8, np.uint16, np.uint32, np.uint64, np.dtype(">u4")])
def test_a_vector_may_have_any_unsigned_type(bits, type_):
    made = session(6, bits)
    values = [np.array([0, 1, 7, 99, 200, 255], type_)] * 3
    before = [value.copy() for value in values]
    clients = {
        n: client_flow(made, FOLK.member(n), v) for n, v in zip(some(3), values, strict=True)
    }
    found = drive(server_flow(made, some(3), FOLK.directory), clients)
    assert found.vector.tolist() == [0, 3, 21, 297, 600, 765]
    assert all((a == b).all() for a, b in zip(values, before, strict=True)), "a vector was changed"


def test_a_vector_may_be_made_when_it_is_due():
    made, asked = session(2), list[str]()

    def work(name: str) -> np.ndarray:
        asked.append(name)
        return np.array([1, 2], np.uint32)

    clients = {n: client_flow(made, FOLK.member(n), partial(work, n)) for n in some(3)}
    found = drive(server_flow(made, some(3), FOLK.directory), clients)
    assert found.vector.tolist() == [3, 6]
    assert sorted(asked) == some(3)


def test_who_was_refused_is_told_and_who_is_missing_never_answers():
    told: list[tuple[str, str]] = []
    made, members = session(3), LocalMembers()
    vector = np.ones(3, np.uint32)
    clients = {name: client_flow(made, members.member(name), vector) for name in some(5)}
    clients["c00001"] = client_flow(made, FOLK.member("c00001"), vector)  # a key nobody knows
    del clients["c00003"]
    members.member("c00001")

    def refused(name: str, error: HansaError) -> None:
        told.append((name, type(error).__name__))

    found = drive(server_flow(made, some(5), members), clients, refused)
    assert found.members == ("c00000", "c00002", "c00004")
    assert told == [("c00001", "UpdateRejected")]


def test_two_runs_have_other_transcripts():
    first = seated(4)
    again = seated(4)
    assert len(bytes.fromhex(first.finish().transcript)) == 32
    assert first.finish().transcript != again.finish().transcript, "keys are fresh"


# ------------------------------------------------------------------ a sparse graph


@given(st.integers(51, 200), st.binary(min_size=32, max_size=32))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_a_graph_is_regular_symmetric_and_connected(clients, root):
    scheme = SPARSE.scheme(clients)
    graph = draw(scheme, root)
    near = {node: graph.neighbours(node) for node in range(clients)}
    assert {len(found) for found in near.values()} == {scheme.degree}
    assert all(node in near[other] and node != other for node in near for other in near[node])
    reached, front = {0}, [0]
    while front:
        front = [other for node in front for other in near[node] - reached]
        reached.update(front)
    assert reached == set(range(clients))


def test_a_complete_graph_ties_everybody_to_everybody_else():
    graph = draw(Scheme(7, 6, 4), bytes(32))
    assert all(graph.neighbours(node) == set(range(7)) - {node} for node in range(7))


def test_graphs_follow_from_the_adverts_and_are_evenly_drawn():
    """Each of 59 others is a neighbour of node 0 in a tenth of 2000 graphs: 6 standard errors."""
    scheme, counts = Scheme(60, 6, 4), np.zeros(60)
    for root in range(2000):
        for other in draw(scheme, root.to_bytes(32, "big")).neighbours(0):
            counts[other] += 1
    assert draw(scheme, bytes(32)) == draw(scheme, bytes(32))
    assert counts[0] == 0
    share = 6 / 59
    assert np.abs(counts[1:] / 2000 - share).max() < 6 * np.sqrt(share * (1 - share) / 2000)


@pytest.mark.parametrize("bits", MODULI)
def test_a_masked_sum_over_a_sparse_graph_is_the_plain_sum(bits):
    assert crowd(bits=bits).finish().members == tuple(CROWD.signing)


def test_clients_may_vanish_at_every_step_over_a_sparse_graph():
    seats, names = crowd(), list(CROWD.signing)
    seats.step(names[:1])
    seats.step(names[:2])
    seats.step(names[:4])
    seats.step(names[:5])
    seats.step(names[:6])
    assert seats.finish().members == tuple(names[4:])


def test_over_a_sparse_graph_each_client_knows_its_neighbours_only():
    seats = crowd().step()
    assert SPARSE.scheme(64) == Scheme(64, 10, 4)
    assert {len(seats.due(name, Roster).adverts) for name in CROWD.signing} == {10}
    seats.step()
    assert {len(shares.sealed) for shares in seats.sent[Shares].values()} == {10}


def test_a_neighbourhood_below_the_threshold_voids_the_round():
    seats = crowd().step()
    near = {advert.name for advert in seats.due("c00000", Roster).adverts.values()}
    seats.until(Votes)
    with pytest.raises(RoundVoid, match="too few"):
        seats.step(silent=sorted(near)[:7])


# ------------------------------------------------------------------ too few, and again


@pytest.mark.parametrize(
    ("kind", "did"),
    [
        (None, "took part"),
        (Roster, "shared their secrets"),
        (Inbox, "sent their update"),
        (Survivors, "voted"),
    ],
)
def test_below_the_threshold_nothing_is_revealed_and_a_new_attempt_works(kind, did):
    seats = seated(5, cohort=3)
    if kind is not None:
        seats.until(kind)
    with pytest.raises(RoundVoid, match=f"2 clients {did}, 3 are needed"):
        seats.step(some(5)[2:])
    again = seated(5, cohort=3, attempt=1)
    again.step()
    for name, advert in seats.sent[Advert].items():
        assert again.sent[Advert].get(name) != advert
    assert again.finish().members == tuple(some(5))


def test_answers_below_the_threshold_void_the_round():
    seats = seated(5).until(Votes)
    with pytest.raises(RoundVoid, match="2 clients answered, 3 are needed"):
        seats.step(some(5)[2:])


def test_no_key_commitment_share_or_mask_of_one_attempt_comes_back_in_the_next():
    """The same clients with the same memory and vector, one attempt after the other."""
    seen: list[set[bytes]] = []
    members = {name: FOLK.member(name) for name in some(4)}
    zeros = np.zeros(50, np.uint32)
    for attempt in range(2):
        seats = seated(4, 50, attempt=attempt)
        seats.clients = {
            n: client_flow(seats.session, member, zeros) for n, member in members.items()
        }
        found: set[bytes] = set()
        while seats.ask is not None:
            seats.step()
        for replies in seats.sent.values():
            for reply in replies.values():
                found |= set(secret_words(reply))
        seen.append(found)
    assert len(seen[0]) == len(seen[1]) == 4 * (3 + 1 + 3 + 1 + 1 + 4)
    assert not seen[0] & seen[1]


def secret_words(message: object) -> list[bytes]:
    """All that a message carries that must be fresh."""
    match message:
        case Advert():
            return [message.sealing_key, message.masking_key, message.signature]
        case Shares():
            return [message.commitment, *message.sealed.values()]
        case Masked():
            return [message.vector.tobytes()]
        case Vote():
            return [message.signature]
        case Answer():
            return [*message.seeds.values(), *message.keys.values()]
    raise AssertionError(message)


# ------------------------------------------------------------------ when a step may end early


def enough_after(seats: Table) -> int:
    """After how many replies the step that is due says that it may end; that it then goes on."""
    assert seats.ask is not None
    for count, (name, message) in enumerate(seats.ask.messages.items()):
        if seats.ask.enough():
            return count
        seats.take(name, seats.clients[name].send(message))
    return len(seats.ask.messages)


@pytest.mark.parametrize("kind", [None, Roster, Inbox, Survivors])
def test_a_step_that_decides_who_is_in_does_not_end_early(kind):
    seats = seated(5)
    if kind is not None:
        seats.until(kind)
    assert enough_after(seats) == 5
    assert seats.advance().finish().members == tuple(some(5))


def test_answers_are_enough_once_every_secret_has_a_threshold_of_shares():
    seats = seated(5).until(Votes)
    assert enough_after(seats) == 3
    assert seats.advance().finish().members == tuple(some(5))


def test_answers_over_a_sparse_graph_are_enough_once_every_neighbourhood_has_a_threshold():
    seats = crowd().until(Votes)
    assert 4 < enough_after(seats) < 64
    assert seats.advance().finish().members == tuple(CROWD.signing)


# ------------------------------------------------------------------ replies that the server refuses


@pytest.mark.parametrize("kind", [None, Roster, Inbox, Survivors, Votes])
def test_a_late_reply_is_refused_and_changes_nothing(kind):
    seats = seated(5)
    if kind is not None:
        seats.until(kind)
    over = seats.ask
    assert over is not None
    late = seats.clients["c00004"].send(over.messages["c00004"])
    seats.step(["c00004"])
    with pytest.raises(UpdateRejected, match="after its step"):
        over.take("c00004", late)
    assert seats.finish(["c00004"]).members == tuple(
        some(5) if kind in (Survivors, Votes) else some(4)
    )


@pytest.mark.parametrize("kind", [None, Roster, Inbox, Survivors, Votes])
def test_a_reply_that_comes_twice_is_refused_and_counted_once(kind):
    seats = seated(4)
    if kind is not None:
        seats.until(kind)
    assert seats.ask is not None
    reply = seats.clients["c00001"].send(seats.ask.messages["c00001"])
    seats.take("c00001", reply)
    with pytest.raises(UpdateRejected, match="came twice"):
        seats.ask.take("c00001", reply)
    for name in ("c00000", "c00002", "c00003"):
        seats.take(name, seats.clients[name].send(seats.ask.messages[name]))
    assert seats.advance().finish().members == tuple(some(4))


def test_a_reply_of_somebody_who_was_not_asked_is_refused():
    """A member of the federation, with a good advert for this session."""
    seats = seated(4)
    assert seats.ask is not None
    advert = next(client_flow(seats.session, FOLK.member("c00011"), np.zeros(10, np.uint32)))
    with pytest.raises(UpdateRejected):
        seats.ask.take("c00011", advert)
    assert seats.finish().members == tuple(some(4))


def another_name(message: Any) -> Any:
    return replace(message, name="c00001")


def unsigned(message: Any) -> Any:
    return replace(message, signature=bytes(64))


def other_holder(message: Any) -> Any:
    return replace(message, sealed={**dict(list(message.sealed.items())[1:]), 99: b""})


def one_less(message: Any) -> Any:
    return replace(message, seeds=dict(list(message.seeds.items())[1:]))


def both_shares(message: Any) -> Any:
    return replace(message, keys=dict(list(message.seeds.items())[:1]))


REFUSED: list[tuple[type | None, Callable[[Any], Any], str]] = [
    (None, unsigned, "not signed by it for this session"),
    (None, another_name, "not signed by it for this session"),
    (None, lambda _: Vote(bytes(64)), "sent Vote where Advert was due"),
    (None, lambda _: None, "sent NoneType where Advert was due"),
    (Roster, other_holder, "others than its neighbours"),
    (Inbox, lambda _: Masked(np.zeros(9, "<u4")), "of shape"),
    (Inbox, lambda _: Masked(np.zeros(10, "<u2")), "uint16"),
    (Inbox, lambda _: Masked(np.zeros(10, "<f4")), "float32"),
    (Survivors, lambda _: Vote(bytes(64)), "not signed by it for these survivors"),
    (Votes, one_less, "other shares than were asked for"),
    (Votes, both_shares, "other shares than were asked for"),
]


@pytest.mark.parametrize(("kind", "twist", "words"), REFUSED)
def test_a_wrong_reply_is_refused_and_the_others_go_on(kind, twist, words):
    seats, liar = seated(5), "c00000"
    if kind is not None:
        seats.until(kind)
    assert seats.ask is not None
    reply = seats.clients[liar].send(seats.ask.messages[liar])
    with pytest.raises(UpdateRejected, match=words):
        seats.ask.take(liar, twist(reply))
    counted = kind in (Survivors, Votes)
    assert seats.finish([liar]).members == tuple(n for n in some(5) if counted or n != liar)


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), bytes(31), b"", "of both", "taken"])
@pytest.mark.parametrize("which", ["sealing_key", "masking_key"])
def test_keys_that_all_neighbours_would_refuse_stop_nobody_but_their_owner(which, key):
    """Signed by their owner; the keys of another client are taken once that one has sent them."""
    seats, liar = seated(5), "c00004"
    for name in some(4):
        seats.take(name, seats.clients[name].send(None))
    advert = seats.clients[liar].send(None)
    assert isinstance(advert, Advert)
    if key == "of both":
        key = advert.masking_key if which == "sealing_key" else advert.sealing_key
    if key == "taken":
        key = getattr(seats.sent[Advert]["c00001"], which)
    bad = replace(advert, **{which: key})
    bad = replace(bad, signature=FOLK.signing[liar].sign(bad.signed(seats.session)))
    assert seats.ask is not None
    with pytest.raises(UpdateRejected, match="not two fresh X25519 keys"):
        seats.ask.take(liar, bad)
    assert seats.advance().finish().members == tuple(some(4))


def test_an_advert_in_the_name_of_another_is_refused_even_if_its_sender_signed_it():
    seats, liar = seated(5), "c00004"
    advert = seats.clients[liar].send(None)
    assert isinstance(advert, Advert)
    bad = replace(advert, name="c00001")
    bad = replace(bad, signature=FOLK.signing[liar].sign(bad.signed(seats.session)))
    assert seats.ask is not None
    with pytest.raises(UpdateRejected, match="not signed by it"):
        seats.ask.take(liar, bad)
    assert seats.finish([liar]).members == tuple(some(4))


def test_a_cohort_for_which_no_threshold_is_safe_voids_the_round():
    made, folk = session(rule=Rule(0.4, 0.4)), replace(FOLK, signing=dict(FOLK.signing))
    with pytest.raises(RoundVoid, match="need a threshold"):
        table(made, folk).step()


# ------------------------------------------------------------------ wrong shares


WRONG = bytes(32) + b"\7"
"""An element of the field, another one than was dealt out."""


def wrong(answer: Answer, share: bytes = WRONG) -> Answer:
    return Answer(dict.fromkeys(answer.seeds, share), dict.fromkeys(answer.keys, share))


def answered(seats: Table, liars: Collection[int], share: bytes = WRONG) -> Table:
    """All answers; those of some, by their number in the cohort, are wrong."""
    assert seats.ask is not None
    for name in seats.ask.messages:
        votes = seats.due(name, Votes)
        reply = seats.clients[name].send(votes)
        assert isinstance(reply, Answer)
        (number,) = set(range(len(seats.ask.messages))) - votes.signatures.keys()
        seats.take(name, wrong(reply, share) if number in liars else reply)
    return seats.advance()


@pytest.mark.parametrize("liar", range(9))
def test_wrong_shares_of_one_client_do_no_harm_while_there_is_a_spare_one(liar):
    """Nine clients, a threshold of five."""
    seats = answered(seated(9).until(Votes), [liar])
    assert seats.finish().members == tuple(some(9))


@pytest.mark.parametrize("share", [b"", bytes(32), b"\xff" * 33, bytes(1000)])
def test_shares_that_are_none_do_no_harm_while_there_is_a_spare_one(share):
    seats = answered(seated(9).until(Votes), [0], share)
    assert seats.finish().members == tuple(some(9))


def test_wrong_shares_do_no_harm_when_a_key_is_put_together():
    seats = seated(9).until(Inbox)
    seats.step(["c00003"])
    seats.until(Votes)
    assert seats.ask is not None
    for name, message in seats.ask.messages.items():
        reply = seats.clients[name].send(message)
        assert isinstance(reply, Answer)
        seats.take(name, wrong(reply) if name == "c00005" else reply)
    assert seats.advance().finish().members == tuple(n for n in some(9) if n != "c00003")


@pytest.mark.parametrize("liars", [(0, 1), (2, 6), (1, 4), (0, 3, 6), (1, 3, 5, 7)])
def test_wrong_shares_of_several_do_no_harm_while_a_threshold_of_right_ones_is_left(liars):
    seats = answered(seated(9).until(Votes), liars)
    assert seats.finish().members == tuple(some(9))


def test_too_many_wrong_shares_void_the_round():
    with pytest.raises(RoundVoid, match="too few, or not those it gave out"):
        answered(seated(9).until(Votes), range(5))
