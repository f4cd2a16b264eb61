"""Updates that find no room, or nobody who takes them: they wait, and count once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hansa.coordinator import serve
from hansa.coordinator.desk import Desk
from hansa.coordinator.intake import Intake
from hansa.core.job import Cohort, Rounds
from hansa.errors import RoundVoid, Unavailable
from tests.network.test_network_arrivals import THREE, by_hand, members
from tests.support.federation import Place, job, running
from tests.support.rawsite import raw_site


def test_a_full_buffer_takes_nothing_more_also_if_nobody_has_closed_it_yet(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, go = Intake.complete, asyncio.Event()

    async def late_to_see(self: Intake, *words: Any, **more: Any) -> Any:
        await go.wait()
        return await complete(self, *words, **more)

    async def whole() -> Any:
        monkeypatch.setattr(Intake, "complete", late_to_see)
        async with by_hand(place, *THREE) as (federation, job_id, sites):
            begun = [await site.work() for site in sites]
            sent = [asyncio.create_task(s.deliver(p)) for s, p in zip(sites, begun, strict=True)]
            await asyncio.sleep(0.5)
            go.set()
            await federation.reached(job_id, 1)
            first = members(federation, job_id, 0)
            (held,) = [s for s, p in zip(sites, begun, strict=True) if s.name not in first]
            quick = next(site for site in sites if site is not held)
            await quick.deliver(await quick.work())
            await asyncio.gather(*sent)
            return first, members(federation, job_id, 1), held.name

    first, second, held = asyncio.run(whole())
    assert len(first) == len(second) == 2
    assert held in second


def test_what_is_there_already_when_a_buffer_is_filled_is_held_with_its_bytes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three are received before the first one is added: the third finds no room."""
    add, received, all_there = Intake.add, list[str](), asyncio.Event()

    async def together(self: Intake, site: str, *words: Any) -> None:
        received.append(site)
        if len(received) == 3:
            all_there.set()
        await all_there.wait()
        await add(self, site, *words)

    async def whole() -> Any:
        monkeypatch.setattr(serve, "RECEIVE_BUFFERS", 3)
        monkeypatch.setattr(Intake, "add", together)
        async with by_hand(place, *THREE) as (federation, job_id, sites):
            begun = [await site.work() for site in sites]
            sent = [asyncio.create_task(s.deliver(p)) for s, p in zip(sites, begun, strict=True)]
            await federation.reached(job_id, 1)
            first = members(federation, job_id, 0)
            (held,) = [site for site in sites if site.name not in first]
            quick = next(site for site in sites if site is not held)
            await quick.deliver(await quick.work())
            await asyncio.gather(*sent)  # nobody was told that it came too late
            return first, members(federation, job_id, 1), held.name

    first, second, held = asyncio.run(whole())
    assert len(first) == len(second) == 2
    assert held in second


def test_until_a_job_goes_on_its_updates_are_asked_for_later_and_after_its_end_dropped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def whole() -> None:
        async with by_hand(place, *THREE, rounds=2) as (federation, job_id, (one, two, late)):
            begun = [await site.work() for site in (one, two, late)]
            await asyncio.gather(one.deliver(begun[0]), two.deliver(begun[1]))
            await federation.reached(job_id, 1)
            with monkeypatch.context() as patch:  # as before a new process has taken the job up
                patch.setattr(Desk, "stream", lambda *_: None)
                with pytest.raises(Unavailable):
                    await late.deliver(begun[2])
                await one.deliver(begun[0])
            again = [await site.work() for site in (one, two)]
            await asyncio.gather(*(s.deliver(p) for s, p in zip((one, two), again, strict=True)))
            await federation.coordinator.runner.cancel(job_id, "it is enough")
            await federation.ended(job_id)
            with pytest.raises(RoundVoid):
                await late.deliver(begun[2])
            for site, parcel in ((one, begun[0]), (two, again[1])):
                await site.deliver(parcel)

    asyncio.run(whole())


def test_a_round_goes_on_as_long_as_updates_come(place: Place) -> None:
    """One site works at a time, each for two thirds of the deadline."""

    async def whole() -> Any:
        async with AsyncExitStack() as stack:
            federation = await stack.enter_async_context(running(place))
            sites = [await stack.enter_async_context(raw_site(place, name)) for name in THREE]
            for site in sites:
                await site.attend()
            cohort = Cohort(population=3, sampler="arrival", buffer=2, concurrency=1)
            wanted = Rounds(count=1, deadline=1.2)
            job_id, _ = await federation.submit(job(rounds=wanted, cohort=cohort))
            for site in sites:
                await site.take_offer()
            hearing = {asyncio.create_task(site.hear("work")): site for site in sites}
            sent = []
            for _ in range(2):
                done, _ = await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
                (task,) = done
                site = hearing.pop(task)
                parcel = await site.prepared(task.result())
                await asyncio.sleep(0.8)
                sent.append(asyncio.create_task(site.deliver(parcel)))
            await asyncio.gather(*sent)
            await federation.reached(job_id, 1)
            for task in hearing:
                task.cancel()
            await asyncio.wait(hearing)
            return federation.records(job_id)[0]

    record = asyncio.run(whole())
    assert not record.void
    assert len(record.members) == 2
    assert record.seconds > 1.6


def test_who_is_gone_while_its_update_is_added_is_counted_and_asked_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, added = Intake.add, asyncio.Event()

    async def and_then_slow(self: Intake, site: str, *words: Any) -> None:
        await add(self, site, *words)
        if site == "kiel" and not added.is_set():
            added.set()
            await asyncio.sleep(0.5)

    async def whole() -> None:
        monkeypatch.setattr(Intake, "add", and_then_slow)
        async with by_hand(place, *THREE) as (federation, job_id, (one, _, gone)):
            parcel = await gone.work()
            sending = asyncio.create_task(gone.deliver(parcel))
            await added.wait()
            sending.cancel()
            await asyncio.wait([sending])
            await asyncio.gather(one.deliver(await one.work()), gone.deliver(parcel))
            assert members(federation, job_id, 0)["kiel"] == parcel.header.sha256
            assert (await gone.hear("work", 5.0)).round.round == 1

    asyncio.run(whole())
