"""A coordinator that lies to all sites of a masked round at once, or that asks a second time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import secrets
from typing import Any

import pytest

from hansa.coordinator import conversation
from hansa.coordinator.shelf import Shelf
from hansa.core.job import Rounds
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord
from hansa.secagg import server
from hansa.secagg.agreement import KeyPair
from hansa.site.agent import LOG
from hansa.site.logbook import read
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Federation, Place, expected, outcome, running
from tests.support.masked import FOUR, SOON, Overheard, masked_job, round_of

VICTIM = "kiel"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(conversation, "ABSENT", SOON)
    caplog.set_level(logging.INFO)


@pytest.fixture
def credulous(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A server that checks neither adverts nor votes, so that only the sites are in its way."""
    monkeypatch.setattr(server, "_check_advert", lambda *_: None)
    monkeypatch.setattr(server, "_check_vote", lambda *_: None)
    return monkeypatch


async def _one_attempt(federation: Federation) -> tuple[Plan, RoundRecord]:
    job_id, plan = await federation.submit(masked_job())
    await federation.reached(job_id, 1)
    return plan, federation.records(job_id)[0]


def _refusals(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Why each site left the protocol, as the coordinator heard it."""
    found = {}
    for record in caplog.records:
        if record.name == "hansa.coordinator.conversation" and " left the " in record.getMessage():
            found[record.getMessage().split()[1]] = record.getMessage()
    return found


def test_a_key_of_the_coordinators_own_in_a_sites_name_is_refused_by_all(
    place: Place, credulous: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All are told of the same advert, which only its site could have signed."""
    fix = server._fix

    def substituting(session: Any, adverts: Any) -> Any:
        forged = dataclasses.replace(adverts[VICTIM], sealing_key=KeyPair.fresh().public)
        return fix(session, {**adverts, VICTIM: forged})

    credulous.setattr(server, "_fix", substituting)

    async def whole() -> RoundRecord:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            return (await _one_attempt(federation))[1]

    assert asyncio.run(whole()).void
    refusals = _refusals(caplog)
    assert "(own advert)" in refusals.pop(VICTIM)
    assert refusals.keys() == set(FOUR) - {VICTIM}
    assert all(
        f"(signature): an advert that its site did not sign for this session: '{VICTIM}'" in words
        for words in refusals.values()
    )


def test_a_site_that_was_given_another_model_agrees_with_nobody(
    place: Place, credulous: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its masks would not cancel, and what it sends would be read alone."""

    async def whole() -> RoundRecord:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            roster = federation.coordinator.roster
            push, other = roster.push, place.coordinator / "other.model"
            shelf = federation.coordinator.runner._floor.shelf

            def pushing(site: str, message: pb.ToSite) -> bool:
                if site == VICTIM and message.WhichOneof("body") == "work":
                    content = bytearray(shelf_content(shelf, message.work.model_sha256))
                    content[3] ^= 1
                    other.write_bytes(content)
                    message.work.model_sha256 = hashlib.sha256(content).hexdigest()
                    stack.enter_context(
                        shelf.offering(message.work.model_sha256, other, frozenset({VICTIM}))
                    )
                return push(site, message)

            with contextlib.ExitStack() as stack:
                roster.push = pushing  # type: ignore[method-assign]
                return (await _one_attempt(federation))[1]

    def shelf_content(shelf: Shelf, name: str) -> bytes:
        with shelf.reading(name, "bremen") as item:
            return bytes(item.read(0, item.size))

    assert asyncio.run(whole()).void
    refusals = _refusals(caplog)
    assert "(own advert)" in refusals.pop(VICTIM)
    assert refusals.keys() == set(FOUR) - {VICTIM}
    assert all("(signature)" in words for words in refusals.values())
    assert not [e for site in FOUR for e in read(place.site(site) / LOG) if e["kind"] == "left"]


def test_an_honest_server_refuses_the_advert_of_a_site_with_another_model(place: Place) -> None:
    """The same mistake without a lie: the round goes on without the site."""

    async def whole() -> tuple[Plan, RoundRecord]:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            roster = federation.coordinator.roster
            push = roster.push

            def pushing(site: str, message: pb.ToSite) -> bool:
                if site == VICTIM and message.WhichOneof("body") == "work":
                    message.work.nonce = bytes(32)
                return push(site, message)

            roster.push = pushing  # type: ignore[method-assign]
            job_id, plan = await federation.submit(masked_job(rounds=Rounds(count=1, deadline=1.5)))
            await federation.reached(job_id, 1)
            return plan, federation.records(job_id)[0]

    plan, record = asyncio.run(whole())
    assert outcome([record]) == outcome(expected(plan, {VICTIM})[1][:1])


@pytest.mark.parametrize("sorted_out", [False, True])
def test_two_sets_of_survivors_cannot_both_be_unmasked(
    place: Place,
    credulous: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sorted_out: bool,
) -> None:
    """Half of the sites is told that one vanished: each half sees too few votes of its own."""
    halves = {"kiel": "luebeck", "luebeck": "kiel", "bremen": "danzig", "danzig": "bremen"}

    async def whole() -> RoundRecord:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            roster = federation.coordinator.roster
            push, numbers = roster.push, dict[str, int]()

            def pushing(site: str, message: pb.ToSite) -> bool:
                ask = message.secagg
                if ask.HasField("roster"):
                    numbers.update({a.name: n for n, a in ask.roster.adverts.items()})
                if ask.HasField("survivors") and site in ("kiel", "luebeck"):
                    gone = 1 << numbers["bremen"]
                    ask.survivors.alive = bytes([ask.survivors.alive[0] & ~gone])
                    ask.survivors.dropped = bytes([gone])
                if ask.HasField("votes") and sorted_out:
                    signature = ask.votes.signatures[numbers[halves[site]]]
                    ask.votes.signatures.clear()
                    ask.votes.signatures[numbers[halves[site]]] = signature
                return push(site, message)

            roster.push = pushing  # type: ignore[method-assign]
            return (await _one_attempt(federation))[1]

    assert asyncio.run(whole()).void
    refusals = _refusals(caplog)
    assert refusals.keys() == set(FOUR)
    named = ("(votes)",) if sorted_out else ("(split view)", "(unknown client)")
    assert all(any(name in words for name in named) for words in refusals.values())


def test_after_the_answer_and_for_an_attempt_that_was_begun_nothing_new_is_said(
    place: Place,
) -> None:
    async def whole() -> list[pb.FromSite]:
        async with running(place) as federation:
            await federation.agents(*(site for site in FOUR if site != VICTIM))
            victim = federation.agent(VICTIM, Overheard)
            await federation.attending(VICTIM)
            roster = federation.coordinator.roster
            push, orders, votes = roster.push, list[pb.ToSite](), list[pb.ToSite]()
            released = asyncio.Event()

            def pushing(site: str, message: pb.ToSite) -> bool:
                if site != VICTIM:
                    return push(site, message)
                if message.WhichOneof("body") == "work":
                    orders.append(message)
                    if message.work.round.round > 0 and not released.is_set():
                        return True  # the next order would end what the old one begins
                done = push(site, message)
                if message.secagg.HasField("votes"):
                    votes.append(message)
                    for number in votes[0].secagg.votes.signatures:
                        second = pb.ToSite()
                        second.CopyFrom(message)
                        second.secagg.votes.signatures[number] = secrets.token_bytes(64)
                        push(site, second)
                return done

            roster.push = pushing  # type: ignore[method-assign]
            job_id, _ = await federation.submit(masked_job(rounds=Rounds(count=2, deadline=LONG)))
            await federation.reached(job_id, 1)
            agent = victim.agent
            assert isinstance(agent, Overheard)
            for _ in range(200):  # while its first round is not over there, it says nothing at all
                for nonce in (orders[0].work.nonce, bytes(32)):
                    again = pb.ToSite()
                    again.CopyFrom(orders[0])
                    again.work.nonce = nonce
                    push(VICTIM, again)
                await asyncio.sleep(0.1)
                if any(m.HasField("declined") for m in agent.said):
                    break
            released.set()
            for order in orders[1:]:
                push(VICTIM, order)
            await federation.ended(job_id)
            return agent.said

    said = asyncio.run(whole())
    first = [m for m in said if round_of(m) == 0]
    answers = {m.SerializeToString() for m in first if m.secagg.HasField("answer")}
    assert len(answers) == 1, "two different answers"
    declined = [m.declined.reason for m in first if m.HasField("declined")]
    assert any("(repeated)" in reason for reason in declined)
    adverts = {m.SerializeToString() for m in first if m.secagg.HasField("advert")}
    assert len(adverts) == 1
