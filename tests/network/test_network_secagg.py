"""Masked rounds across the network: the same bits, and sites that vanish at every step."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hansa.coordinator import conversation
from hansa.coordinator.rows import Status
from hansa.core.contribute import Purpose
from hansa.core.job import Cohort, Rounds
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord
from hansa.errors import RoundVoid, Unavailable
from hansa.recipes import compile_plan
from hansa.secagg.messages import Advert, Answer, Masked, Shares, Vote
from hansa.site import outbox, rounds
from hansa.site.agent import LOG, Agent
from hansa.site.logbook import read
from hansa.wire.v1 import sites_pb2 as pb
from hansa.work.bundle import facts_of, load_task
from tests.support.federation import LONG, Place, expected, outcome, running
from tests.support.masked import (
    FOUR,
    RING,
    SOON,
    hang_up,
    masked_job,
    offered,
    play,
    scripted,
)
from tests.support.sitejob.task import SITES

CUT = Unavailable("the line was cut", fix="dial again")
SLACK = 1.5
"""Seconds that a busy machine may need beside the waits that are looked for."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "ABSENT", SOON)


def plan_of(**words: Any) -> Plan:
    wanted = masked_job(**words)
    return compile_plan(wanted, facts_of(wanted, load_task(wanted)))


# ------------------------------------------------------------------ the same bits


def test_masked_rounds_give_the_bits_of_rounds_without_masks(module_place: Place) -> None:
    """16, 24 and 32 bits, several chunks, and the measurement after the last round."""
    kinds: dict[str, dict[str, Any]] = {str(bits): {"bits": bits} for bits in RING}
    kinds["wide"] = {"task": "Wide", "bits": 24}
    twice = Rounds(count=2, deadline=LONG)

    async def whole() -> dict[str, tuple[Plan, list[RoundRecord], str]]:
        found = {}
        async with running(module_place) as federation:
            await federation.agents(*FOUR)
            jobs = {
                name: await federation.submit(masked_job(**words, rounds=twice))
                for name, words in kinds.items()
            }
            for name, (job_id, plan) in jobs.items():
                row = await federation.ended(job_id)
                assert (row.status, row.reason) == (Status.DONE, "")
                found[name] = plan, federation.records(job_id), federation.model(job_id)
        return found

    for name, (plan, records, model) in asyncio.run(whole()).items():
        assert [record.purpose for record in records][-1] is Purpose.EVALUATE
        for simulated in (
            expected(plan),
            expected(plan, masks=False),
            expected(plan_of(**kinds[name], masks=False, rounds=twice)),
        ):
            assert outcome(records) == outcome(simulated[1]), name
            assert model == simulated[0].model, name


def test_sites_that_are_slow_are_left_out_and_told(place: Place) -> None:
    """Five are asked, three are enough; one says no, and one more is needed for that."""
    place.write_site("bremen", hours="00:00-00:00")
    place.write_site("riga", {"delay": 1.0})
    for number, name in enumerate(("danzig", "kiel", "luebeck")):
        place.write_site(name, {"delay": 0.1 + 0.2 * number})
    wanted = masked_job(
        cohort=Cohort(population=5, sampler="fixed", size=3, over_selection=1.6),
        rounds=Rounds(count=1, deadline=LONG, quorum=3),
    )

    async def whole() -> tuple[Any, list[RoundRecord]]:
        async with running(place) as federation:
            await federation.agents(*SITES[:5])
            job_id, _ = await federation.submit(wanted)
            row = await federation.ended(job_id)
            return row, federation.records(job_id)

    row, records = asyncio.run(whole())
    assert row.status is Status.DONE
    assert all(record.members == ("danzig", "kiel", "luebeck") for record in records)


# ------------------------------------------------------------------ one is gone

STEPS = {1: Advert, 2: Shares, 3: Masked, 4: Vote, 5: Answer}


@pytest.mark.parametrize("step", STEPS)
def test_a_site_that_vanishes_after_a_message_delays_a_round_by_its_absence_only(
    place: Place, step: int
) -> None:
    """Before its masked update arrived it is not in the sum, afterwards it is."""

    async def whole() -> tuple[Plan, list[RoundRecord], float]:
        async with scripted(place, "kiel") as (federation, (kiel,)):
            job_id, plan = await offered(federation, [kiel], masked_job())
            player = await play(kiel, place)
            delivery = await player.steps(step)
            assert isinstance(player.last, STEPS[step])
            if step == 3:
                await kiel.hear("secagg")  # the update has arrived: there are survivors
            began = time.monotonic()
            await hang_up(kiel)
            await federation.reached(job_id, 1)
            seconds = time.monotonic() - began
            if delivery is not None:
                await delivery  # its receipt is checked there
            return plan, federation.records(job_id)[:1], seconds

    plan, records, seconds = asyncio.run(whole())
    without = {"kiel"} if step < 3 else set()
    assert outcome(records) == outcome(expected(plan, without)[1][:1])
    assert seconds < SOON + conversation.GRACE + SLACK
    for dropout in records[0].dropouts:
        assert dropout.reason == "does not attend any more"


def test_a_site_that_is_gone_before_its_advert_is_waited_for_as_in_every_round(
    place: Place,
) -> None:
    """It may come back while the others train; nothing was begun that it could spoil."""
    wanted = masked_job(rounds=Rounds(count=1, deadline=1.5))

    async def whole() -> tuple[Plan, list[RoundRecord]]:
        async with scripted(place, "kiel") as (federation, (kiel,)):
            job_id, plan = await offered(federation, [kiel], wanted)
            await kiel.hear("work")
            await hang_up(kiel)
            await federation.reached(job_id, 1)
            return plan, federation.records(job_id)[:1]

    plan, records = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan, {"kiel"})[1][:1])
    assert records[0].seconds < 1.5 + SLACK


@pytest.mark.parametrize("step", [2, 3, 4])
def test_below_the_threshold_the_attempt_is_void_and_the_next_counts(
    place: Place, step: int
) -> None:
    """Two of four vanish; they come back for the next attempt, in which all keys are new."""

    async def whole() -> Any:
        names = ("kiel", "luebeck")
        async with scripted(place, *names) as (federation, raws):
            job_id, plan = await offered(federation, raws, masked_job())
            players = [await play(raw, place) for raw in raws]
            deliveries = await asyncio.gather(*(player.steps(step) for player in players))
            for raw in raws:
                await hang_up(raw)
            await federation.reached(job_id, 1)
            for delivery in deliveries:
                if delivery is not None:
                    with pytest.raises(RoundVoid):
                        await delivery
            for name in names:
                federation.agent(name)
            row = await federation.ended(job_id)
            records = federation.records(job_id)
            return plan, row, records, federation.model(job_id)

    plan, row, records, model = asyncio.run(whole())
    assert row.status is Status.DONE
    assert [record.void for record in records] == [True, False, False]
    assert [record.attempt for record in records] == [0, 1, 0]
    assert model == expected(plan)[0].model
    for name in ("bremen", "danzig"):
        entries = [e for e in read(place.site(name) / LOG) if e["kind"] in ("left", "received")]
        first = [e for e in entries if e["attempt"] == 0 and e["purpose"] == "train"]
        assert "received" not in [e["kind"] for e in first], "a receipt for the void attempt"


# ------------------------------------------------------------------ one is away for a moment


@pytest.mark.parametrize("kind", ["work", "roster", "inbox", "survivors", "votes"])
def test_a_message_of_the_coordinator_that_is_lost_with_its_connection_is_said_again(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "ABSENT", 5.0)
    lost: list[str] = []

    async def whole() -> tuple[Plan, list[RoundRecord]]:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            roster = federation.coordinator.roster
            push = roster.push

            def pushing(site: str, message: pb.ToSite) -> bool:
                body = message.WhichOneof("body")
                said = kind in (body, message.secagg.WhichOneof("body"))
                if said and site == "kiel" and not lost:
                    lost.append(kind)
                    roster.expel(site, CUT)
                    return False
                return push(site, message)

            monkeypatch.setattr(roster, "push", pushing)
            job_id, plan = await federation.submit(masked_job())
            await federation.reached(job_id, 1, 8)
            return plan, federation.records(job_id)[:1]

    plan, records = asyncio.run(whole())
    assert lost
    assert outcome(records) == outcome(expected(plan)[1][:1])


@pytest.mark.parametrize("kind", ["advert", "shares", "vote", "answer"])
def test_a_reply_that_is_lost_with_its_connection_is_said_again(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "ABSENT", 5.0)
    lost: list[str] = []

    async def whole() -> tuple[Plan, list[RoundRecord]]:
        async with running(place) as federation:

            class Losing(Agent):
                async def _say(self, message: pb.FromSite) -> None:
                    if message.secagg.WhichOneof("body") == kind and not lost:
                        lost.append(kind)
                        federation.coordinator.roster.expel(self.site, CUT)
                        return
                    await super()._say(message)

            await federation.agents("bremen", "danzig", "luebeck")
            federation.agent("kiel", Losing)
            await federation.attending("kiel")
            job_id, plan = await federation.submit(masked_job())
            await federation.reached(job_id, 1, 8)
            return plan, federation.records(job_id)[:1]

    plan, records = asyncio.run(whole())
    assert lost
    assert outcome(records) == outcome(expected(plan)[1][:1])


def test_one_that_repeats_itself_is_heard_once(place: Place) -> None:
    """After a lost connection a reply may come twice, the second time a step later."""

    async def whole() -> tuple[Plan, list[RoundRecord]]:
        async with scripted(place, "kiel") as (federation, (kiel,)):
            job_id, plan = await offered(federation, [kiel], masked_job())
            player = await play(kiel, place)
            advert = await player.make()
            await player.send(advert)
            await player.send(advert)
            shares = await player.make()
            for message in (advert, shares, shares, advert):
                await player.send(message)
            delivery = await player.send(await player.make())
            vote = await player.make()
            for message in (shares, vote, vote):
                await player.send(message)
            answer = await player.make()
            for message in (vote, answer, answer):
                await player.send(message)
            assert delivery is not None
            await delivery
            return plan, federation.records(job_id)[:1]

    plan, records = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan)[1][:1])


def test_a_receipt_is_written_down_although_the_job_is_over_at_that_moment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents: list[Agent] = []
    deliver = outbox.deliver

    async def delivering(package: Any, connected: Any) -> str:
        why_not = await deliver(package, connected)
        for agent in agents:  # this round only: the next one may have begun
            if agent.site == package.receipt.site:
                asyncio.get_running_loop().call_soon(agent._rounds.withdraw, package.header.round)
        return why_not

    monkeypatch.setattr(rounds, "deliver", delivering)

    async def whole() -> None:
        async with running(place) as federation:
            agents.extend(each.agent for each in await federation.agents(*FOUR))
            job_id, _ = await federation.submit(masked_job(rounds=Rounds(count=2, deadline=LONG)))
            await federation.ended(job_id)
            await asyncio.sleep(0.2)

    asyncio.run(whole())
    for site in FOUR:
        kinds = [entry["kind"] for entry in read(place.site(site) / LOG)]
        assert kinds == ["verdict", *["left", "received"] * 3], site
