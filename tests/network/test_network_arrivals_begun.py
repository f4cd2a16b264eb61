"""What sites go on with after a restart of the coordinator: it counts, and nobody is asked twice.

A site says in its first words what it has begun.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hansa.core.job import Rounds
from hansa.site import desk, rounds
from hansa.site.agent import LOG, Agent
from hansa.site.logbook import read
from tests.network.test_network_arrivals import THREE, arrival, by_hand, members, rounds_of
from tests.support.federation import LONG, Place, job, running
from tests.support.rawsite import RawSite, raw_site

QUIET = 0.7
"""Seconds in which a site is told what it is told."""


async def quiet(site: RawSite) -> asyncio.Task[Any]:
    """Checks that a site is told of no work for a while; returns the next word of it."""
    hearing = asyncio.create_task(site.hear("work"))
    await asyncio.sleep(QUIET)
    assert not hearing.done(), hearing
    return hearing


async def back(place: Place, stack: AsyncExitStack, name: str, *begun: Any) -> RawSite:
    """A site that comes back, and says what it goes on with."""
    site = await stack.enter_async_context(raw_site(place, name))
    await site.attend(begun=[order.header.round for order in begun])
    await site.take_offer()
    return site


def test_what_a_site_goes_on_with_counts_and_it_is_not_asked_anew(place: Place) -> None:
    async def whole() -> Any:
        async with by_hand(place, *THREE) as (federation, job_id, (one, two, late)):
            old = await late.work()
            await rounds_of(federation, job_id, [one, two], 1)
            fresh = await one.work()
        async with running(place) as again, AsyncExitStack() as stack:
            one = await back(place, stack, "bremen", fresh)
            two = await back(place, stack, "danzig")
            late = await back(place, stack, "kiel", old)
            assert (await two.hear("work")).round.round == 1
            hearing = [await quiet(one), await quiet(late)]
            await asyncio.gather(late.deliver(old), one.deliver(fresh))
            await again.reached(job_id, 2)
            assert [(await each).round.round for each in hearing] == [2, 2]
            (await quiet(two)).cancel()  # it was asked already, and is still at work
            return old, fresh, members(again, job_id, 1), again.records(job_id)[1]

    old, fresh, counted, record = asyncio.run(whole())
    assert counted == {"kiel": old.header.sha256, "bremen": fresh.header.sha256}
    assert record.ages == (1, 1)
    assert not record.dropouts


def test_one_that_was_counted_before_is_answered_and_asked_for_the_next(place: Place) -> None:
    """Its update was in the round that was closed; only the receipt was lost."""

    async def whole() -> None:
        async with by_hand(place, *THREE) as (federation, job_id, (one, two, late)):
            first = await one.work()
            await asyncio.gather(one.deliver(first), two.deliver(await two.work()))
            await late.work()
            await federation.reached(job_id, 1)
        async with running(place) as again, AsyncExitStack() as stack:
            one = await back(place, stack, "bremen", first)
            two = await back(place, stack, "danzig")
            parcel = await two.work()
            hearing = await quiet(one)
            await one.deliver(first)
            order = await hearing
            assert order.round.round == 1
            await asyncio.gather(one.deliver(await one.prepared(order)), two.deliver(parcel))
            await again.reached(job_id, 2)
            assert members(again, job_id, 1).keys() == {"bremen", "danzig"}
            assert (await one.hear("work")).round.round == 2

    asyncio.run(whole())


@pytest.mark.parametrize(
    "said", ["never opened", "of the future", "another job", "too old", "gone"]
)
def test_what_cannot_be_gone_on_with_is_asked_anew(place: Place, said: str) -> None:
    async def whole() -> None:
        words = arrival(max_staleness=1)["cohort"] if said == "too old" else arrival()["cohort"]
        async with AsyncExitStack() as stack:
            federation = await stack.enter_async_context(running(place))
            sites = [await stack.enter_async_context(raw_site(place, name)) for name in THREE]
            for site in sites:
                await site.attend()
            job_id, _ = await federation.submit(
                job(rounds=Rounds(count=5, deadline=LONG), cohort=words)
            )
            for site in sites:
                await site.take_offer()
            one, two, late = sites
            await asyncio.gather(one.deliver(await one.work()), late.deliver(await late.work()))
            await federation.reached(job_id, 1)
            old = await late.work()
            await rounds_of(federation, job_id, [one, two], 3)
            blobs = federation.coordinator.runner._floor.blobs
            model = federation.records(job_id)[0].model
        changed: dict[str, dict[str, Any]] = {
            "never opened": {"attempt": 7}, "of the future": {"round": 4},
            "another job": {"job": "another"},
        }  # fmt: skip
        if said == "gone":
            blobs.path(model).unlink()
        async with running(place) as again, AsyncExitStack() as stack:
            late = await back(place, stack, "kiel", old.with_header(**changed.get(said, {})))
            order = await late.hear("work")
            assert order.round.round == 3
            assert again.records(job_id)[-1].round == 2

    asyncio.run(whole())


def test_who_comes_back_and_is_at_work_still_is_not_told_again(place: Place) -> None:
    """The coordinator was there all the time; whoever says nothing is told, as ever."""

    async def whole() -> Any:
        async with by_hand(place, *THREE) as (federation, job_id, (one, two, late)):
            parcel = await late.work()
            late.stream.cancel()
            await rounds_of(federation, job_id, [one, two], 1)
            async with AsyncExitStack() as stack:
                again = await back(place, stack, "kiel", parcel)
                (await quiet(again)).cancel()
                again.stream.cancel()
                forgot = await back(place, stack, "kiel")
                assert (await forgot.hear("work")).round.round == 0
                await asyncio.gather(forgot.deliver(parcel), one.deliver(await one.work()))
                return members(federation, job_id, 1)

    assert asyncio.run(whole()).keys() == {"bremen", "kiel"}


def test_an_agent_says_what_it_goes_on_with(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """kiel trains from before the first restart to after the second, and is asked once."""
    trained, training, go = desk.work, threading.Event(), threading.Event()

    def slowly(accepted: Any, site: str, asked: Any, contribution: Any) -> Any:
        if site == "kiel" and asked.round == 0:
            training.set()
            go.wait(LONG)
        return trained(accepted, site, asked, contribution)

    async def whole() -> Any:
        monkeypatch.setattr(rounds, "work", slowly)
        agents = [asyncio.create_task(Agent(place.site(name), print).run()) for name in THREE]
        try:
            async with running(place) as federation:
                await federation.attending(*THREE)
                wanted = Rounds(count=60, deadline=LONG)
                job_id, _ = await federation.submit(job(rounds=wanted, **arrival()))
                await asyncio.to_thread(training.wait, LONG)
                await federation.reached(job_id, 1)
            async with running(place) as again:
                await again.attending(*THREE)
                since = len(again.records(job_id))
                await again.reached(job_id, since + 2)
            async with running(place) as third:
                await third.attending(*THREE)
                go.set()
                await third.ended(job_id)
                counted = [members(third, job_id, number).get("kiel") for number in range(60)]
                return counted, third.records(job_id)
        finally:
            go.set()
            for agent in agents:
                agent.cancel()
            await asyncio.wait(agents)

    counted, records = asyncio.run(whole())
    said = [entry for entry in read(place.site("kiel") / LOG) if entry.get("purpose") == "train"]
    assert said[0]["kind"] == "left"
    assert said[0]["round"] == 0, "it was asked for another round before it was done with this one"
    assert [e["kind"] for e in said if e["round"] == 0] == ["left", "received"]
    where = counted.index(said[0]["sha256"])
    assert where >= 3
    assert len(records[where].ages) == where + 1
