"""Deadlines, quorums, void rounds, slow sites, sites that go and come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from hansa.coordinator import intake
from hansa.coordinator.rows import Status
from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Cohort, Rounds
from hansa.errors import IdentityError, RoundVoid
from hansa.site.agent import Agent
from tests.support.federation import LONG, Federation, Place, expected, job, outcome, running
from tests.support.rawsite import RawSite, raw_site
from tests.support.sitejob.task import SITES

THREE = ("bremen", "danzig", "kiel")


@asynccontextmanager
async def by_hand(place: Place, *names: str) -> AsyncIterator[list[RawSite]]:
    """Sites that attend and do what the test does."""
    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(raw_site(place, name)) for name in names]
        for site in sites:
            await site.attend()
        yield sites


async def offered(federation: Federation, sites: list[RawSite], **words: Any) -> tuple[str, Any]:
    job_id, plan = await federation.submit(job(**words))
    for site in sites:
        await site.take_offer()
    return job_id, plan


def test_a_round_is_closed_at_its_deadline_without_who_is_late(place: Place) -> None:
    deadline = 1.0

    async def whole() -> Any:
        async with running(place) as federation, by_hand(place, "kiel") as (late,):
            await federation.agents("bremen", "danzig")
            rounds = Rounds(count=1, deadline=deadline)
            job_id, plan = await offered(federation, [late], rounds=rounds)
            parcel = await late.work()
            withdrawn = await late.hear("withdraw")
            with pytest.raises(RoundVoid, match="the round is over"):
                await late.deliver(parcel)
            await late.deliver(await late.work())  # the measurement afterwards
            await federation.ended(job_id)
            return plan, federation.records(job_id), withdrawn

    plan, records, withdrawn = asyncio.run(whole())
    told = expected(plan, {"kiel"})[1]
    assert outcome(records[:1]) == outcome(told[:1])
    assert records[1].members == THREE
    assert records[0].dropouts[0].reason == "sent no update within 1 s" == withdrawn.reason
    assert (withdrawn.round.round, withdrawn.round.purpose) == (0, "train")
    assert deadline <= records[0].seconds < deadline + 1


def test_a_round_below_its_quorum_is_void_and_tried_again(place: Place) -> None:
    """One update of two that are needed: void. Two: it counts, and the model is theirs."""

    async def whole() -> Any:
        async with (
            running(place) as federation,
            by_hand(place, "danzig", "kiel") as (silent, second),
        ):
            await federation.agents("bremen")
            rounds = Rounds(count=1, deadline=0.8, quorum=2, attempts=3)
            job_id, plan = await offered(federation, [silent, second], rounds=rounds)
            before = federation.model(job_id)
            await second.work()
            await federation.reached(job_id, 1)
            assert federation.model(job_id) == before
            again = await second.hear("work")
            assert (again.round.round, again.round.attempt) == (0, 1)
            assert again.model_sha256 == before
            await second.deliver(await second.prepared(again))
            await federation.reached(job_id, 2)
            await second.deliver(await second.work())
            row = await federation.ended(job_id)
            return plan, row, federation.records(job_id)

    plan, row, (void, counted, last) = asyncio.run(whole())
    assert (void.void, void.attempt, void.members, void.metrics) == (True, 0, ("bremen",), {})
    assert (counted.void, counted.attempt) == (False, 1)
    assert counted.members == ("bremen", "kiel")
    assert last.purpose is Purpose.EVALUATE
    assert row.status is Status.DONE
    assert counted.model == expected(plan, {"danzig"})[0].model


def test_a_round_that_stays_void_fails_the_job_and_leaves_the_model(place: Place) -> None:
    async def whole() -> Any:
        async with (
            running(place) as federation,
            by_hand(place, "danzig", "kiel") as (silent, leaving),
        ):
            await federation.agents("bremen")
            rounds = Rounds(count=2, deadline=0.5, quorum=2, attempts=2)
            job_id, _ = await offered(federation, [silent, leaving], rounds=rounds)
            before = federation.model(job_id)
            for _ in range(2):
                await leaving.decline((await leaving.hear("work")).round, "no power")
            row = await federation.ended(job_id)
            assert federation.model(job_id) == before
            assert (await silent.hear("withdraw")).round.attempt == 0
            while (await silent.hear("withdraw")).HasField("round"):
                pass  # the last withdrawal is that of the whole job
            return row, federation.records(job_id)

    row, records = asyncio.run(whole())
    assert row.status is Status.FAILED
    assert "round 0 was void 2 times: at most 1 of the 2 updates that it needs" in row.reason
    assert [record.attempt for record in records] == [0, 1]
    assert all(record.void for record in records)
    reasons = {dropout.client: dropout.reason for dropout in records[0].dropouts}
    assert reasons == {"danzig": "sent no update within 0.5 s", "kiel": "no power"}


def test_with_over_selection_a_round_closes_at_its_goal(place: Place) -> None:
    """Three are asked, two are enough; the third is told that it was not needed."""

    async def whole() -> Any:
        async with running(place) as federation, by_hand(place, *THREE) as sites:
            job_id, plan = await offered(
                federation,
                sites,
                rounds=Rounds(count=1, deadline=LONG, quorum=2),
                cohort=Cohort(population=3, sampler="fixed", size=2, over_selection=1.5),
            )
            parcels = [await site.work() for site in sites]
            began = time.monotonic()
            await asyncio.gather(sites[2].deliver(parcels[2]), sites[0].deliver(parcels[0]))
            withdrawn = await sites[1].hear("withdraw")
            with pytest.raises(RoundVoid):
                await sites[1].deliver(parcels[1])
            assert time.monotonic() - began < 5
            last = [(site, await site.work()) for site in (sites[0], sites[1])]
            await asyncio.gather(*(site.deliver(parcel) for site, parcel in last))
            await federation.ended(job_id)
            return plan, federation.records(job_id), withdrawn

    plan, records, withdrawn = asyncio.run(whole())
    assert records[0].cohort == THREE
    assert records[0].members == ("bremen", "kiel")
    assert "was not needed" in records[0].dropouts[0].reason
    assert withdrawn.reason == records[0].dropouts[0].reason
    assert records[0].model == expected(plan, {"danzig"})[1][0].model


def test_a_site_that_comes_back_is_pushed_its_work_again(place: Place) -> None:
    async def whole() -> Any:
        async with running(place) as federation:
            await federation.agents("bremen", "danzig")
            async with by_hand(place, "kiel") as (first,):
                rounds = Rounds(count=1, deadline=LONG)
                job_id, plan = await offered(federation, [first], rounds=rounds)
                order = await first.hear("work")
            async with by_hand(place, "kiel") as (second,):
                await second.take_offer()
                again = await second.hear("work")
                assert again.round == order.round
                assert again.model_sha256 == order.model_sha256
                assert again.seconds < order.seconds <= LONG
                await second.deliver(await second.prepared(again))
                await second.deliver(await second.work())
            await federation.ended(job_id)
            return plan, federation.records(job_id)

    plan, records = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan)[1])


def test_agents_that_restart_in_the_middle_change_nothing(place: Place) -> None:
    place.write_site("kiel", {"delay": 0.5})

    async def whole() -> Any:
        async with running(place) as federation:
            *_, agent = await federation.agents(*THREE)
            job_id, plan = await federation.submit(job())
            await federation.reached(job_id, 1)
            await asyncio.sleep(0.2)
            await agent.stop()
            await federation.agents("kiel")
            await federation.ended(job_id)
            return plan, federation.records(job_id)

    plan, records = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan)[1])


def test_a_coordinator_that_restarts_in_the_middle_changes_nothing(place: Place) -> None:
    """Agents stay and reconnect; what was durable is not asked for again."""
    place.write_site("kiel", {"delay": 0.3})

    async def whole() -> Any:
        async with AsyncExitStack() as stack:
            async with running(place) as federation:
                for name in THREE:
                    agent = Agent(place.site(name), lambda _: None)
                    task = asyncio.create_task(agent.run())
                    stack.push_async_callback(asyncio.wait, [task])
                    stack.callback(task.cancel)
                await federation.attending(*THREE)
                job_id, plan = await federation.submit(job())
                await federation.reached(job_id, 1)
            async with running(place) as federation:
                row = await federation.ended(job_id)
                records = federation.records(job_id)
            return plan, row, records

    plan, row, records = asyncio.run(whole())
    assert (row.status, row.reason) == (Status.DONE, "")
    assert outcome(records) == outcome(expected(plan)[1])


def test_a_newer_connection_of_a_site_displaces_the_older(place: Place) -> None:
    async def whole() -> None:
        async with (
            running(place) as federation,
            by_hand(place, "kiel") as (older,),
            by_hand(place, "kiel") as (newer,),
        ):
            reason = await older.cut_off(seconds=1)
            assert isinstance(reason, IdentityError)
            assert "'kiel' attends by a newer connection" in reason.message
            assert newer.name in federation.coordinator.roster.present

    asyncio.run(whole())


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_cancelling_a_job_answers_everybody_who_waits(
    place: Place, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PATIENCE", 0.2)

    async def whole() -> Any:
        async with running(place) as federation, by_hand(place, *SITES[:5]) as sites:
            job_id, _ = await offered(
                federation,
                sites,
                rounds=Rounds(count=1, deadline=LONG, quorum=5),
                aggregation=Aggregation(rule=rule, weighting="uniform"),  # type: ignore[arg-type]
                cohort=Cohort(population=5),
            )
            before = federation.model(job_id)
            parcel, second = await sites[0].work(), await sites[1].work()
            waiting = asyncio.create_task(sites[0].deliver(parcel))
            await asyncio.sleep(1.0)
            assert not waiting.done(), "one update alone was made durable"
            await asyncio.to_thread(federation.remote.cancel, job_id, "wrong data")
            row = await federation.ended(job_id)
            with pytest.raises(RoundVoid, match="the job has ended"):
                async with asyncio.timeout(2):
                    await waiting
            for site in sites:
                withdrawn = await site.hear("withdraw")
                assert (withdrawn.job, withdrawn.HasField("round")) == (job_id, False)
            with pytest.raises(RoundVoid):
                await sites[1].deliver(second)
            assert federation.model(job_id) == before
            return row

    row = asyncio.run(whole())
    assert (row.status, row.reason) == (Status.CANCELLED, "wrong data")
