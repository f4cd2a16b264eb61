"""Buffers over the network: what counts where, and once, whoever is slow or sends again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from hansa.coordinator.rows import Status
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.job import Cohort, Rounds
from hansa.core.round import Opening
from hansa.core.vector import Vector, sha256
from hansa.errors import HansaError, RoundVoid
from tests.support.federation import LONG, Federation, Place, job, running
from tests.support.rawsite import Parcel, RawSite, raw_site
from tests.support.sitejob.task import SITES

THREE = ("bremen", "danzig", "kiel")


def arrival(population: int = 3, buffer: int = 2, **words: Any) -> dict[str, Any]:
    cohort = {"buffer": buffer, "concurrency": population, **words}
    return {"cohort": Cohort(population=population, sampler="arrival", **cohort)}


@asynccontextmanager
async def by_hand(
    place: Place, *names: str, rounds: int = 3, deadline: float = LONG, **words: Any
) -> AsyncIterator[tuple[Federation, str, list[RawSite]]]:
    """A running job whose sites do what the test does."""
    async with AsyncExitStack() as stack:
        federation = await stack.enter_async_context(running(place))
        sites = [await stack.enter_async_context(raw_site(place, name)) for name in names]
        for site in sites:
            await site.attend()
        wanted = Rounds(count=rounds, deadline=deadline)
        job_id, _ = await federation.submit(job(rounds=wanted, **arrival(len(names)), **words))
        for site in sites:
            await site.take_offer()
        yield federation, job_id, sites


def members(federation: Federation, job_id: str, number: int) -> dict[str, str]:
    """The durable members of a round, with the hashes of their updates."""
    opening = Opening(Purpose.TRAIN, number, 0, (), "")
    fold = federation.coordinator.store.folded(job_id, opening)
    return {} if fold is None else dict(zip(fold.members, fold.receipts, strict=True))


def step(model: Vector, parcels: list[tuple[Parcel, int]]) -> Vector:
    """Algorithm 1 in float64: the sum of weighted deltas by the weight of all."""
    total, weight = np.zeros(len(model)), 0.0
    for parcel, age in parcels:
        vector = np.frombuffer(parcel.content, "<f4").astype(np.float64)
        total += vector[: len(model)] * (1 + age) ** -0.5
        weight += vector[len(model)]
    return model + total / weight


def test_a_late_update_counts_in_the_next_buffer_for_less(place: Place) -> None:
    async def whole() -> Any:
        async with by_hand(place, *THREE) as (federation, job_id, (one, two, late)):
            orders = [await site.hear("work") for site in (one, two, late)]
            assert {order.round.round for order in orders} == {0}
            first = np.frombuffer(await one.fetch(orders[0].model_sha256), "<f4")
            begun = [await s.prepared(o) for s, o in zip((one, two, late), orders, strict=True)]
            await asyncio.gather(one.deliver(begun[0]), two.deliver(begun[1]))
            again = [await site.hear("work") for site in (one, two)]
            assert {order.round.round for order in again} == {1}
            second = np.frombuffer(await one.fetch(again[0].model_sha256), "<f4")
            np.testing.assert_allclose(
                second, step(first, [(begun[0], 0), (begun[1], 0)]), rtol=0, atol=1e-6
            )
            fresh = await one.prepared(again[0])
            await asyncio.gather(late.deliver(begun[2]), one.deliver(fresh))
            order = await late.hear("work")
            assert order.round.round == 2
            third = np.frombuffer(await late.fetch(order.model_sha256), "<f4")
            expected = step(second, [(begun[2], 1), (fresh, 0)])
            np.testing.assert_allclose(third, expected, rtol=0, atol=1e-6)
            unweighted = step(second, [(begun[2], 0), (fresh, 0)])
            assert np.abs(third - unweighted).max() > 1e-4, "the test has no power"
            # Sent again, an update of each round has its receipt and counts no second time.
            for site, parcel in ((late, begun[2]), (one, begun[0]), (one, fresh)):
                await site.deliver(parcel)
            other = begun[2].with_content(bytes(len(begun[2].content)))
            with pytest.raises(RoundVoid, match="another update"):
                await late.deliver(other)
            records = federation.records(job_id)
            hashes = [members(federation, job_id, number) for number in (0, 1)]
            assert hashes[1] == {
                "kiel": begun[2].header.sha256,
                "bremen": fresh.header.sha256,
            }
            assert hashes[0].keys() == {"bremen", "danzig"}
            return records

    records = asyncio.run(whole())
    assert [r.members for r in records[:2]] == [("bremen", "danzig"), ("bremen", "kiel")]
    assert [r.ages for r in records[:2]] == [(2,), (1, 1)]
    assert all(sorted(r.cohort) == list(THREE) and not r.dropouts for r in records[:2])


def test_what_comes_while_a_round_is_closed_is_held_for_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closing = Store.close_round, asyncio.Event()

    async def whole() -> Any:
        loop = asyncio.get_running_loop()

        def slowly(self: Store, *words: Any) -> None:
            loop.call_soon_threadsafe(closing.set)
            time.sleep(0.5)
            close(self, *words)

        async with by_hand(place, *THREE) as (federation, job_id, sites):
            begun = [await site.work() for site in sites]
            monkeypatch.setattr(Store, "close_round", slowly)
            early = [
                asyncio.create_task(s.deliver(p)) for s, p in zip(sites[:2], begun, strict=False)
            ]
            await closing.wait()
            monkeypatch.setattr(Store, "close_round", close)
            held = asyncio.create_task(sites[2].deliver(begun[2]))
            await asyncio.gather(*early)
            await sites[0].deliver(await sites[0].work())
            await held
            return [members(federation, job_id, number) for number in (0, 1)]

    first, second = asyncio.run(whole())
    assert first.keys() == {"bremen", "danzig"}
    assert second.keys() == {"bremen", "kiel"}


def test_all_at_once_no_buffer_holds_more_than_it_may(place: Place) -> None:
    """Six sites send at one moment, again and again; two are in each round."""

    async def whole() -> Any:
        async with by_hand(place, *SITES, rounds=9) as (federation, job_id, sites):

            async def site(it: RawSite) -> list[str]:
                sent: list[str] = []
                while True:
                    order = await it.hear("work")
                    if order.round.purpose == "evaluate":
                        await it.deliver(await it.prepared(order))
                        return sent
                    parcel = await it.prepared(order)
                    try:
                        await it.deliver(parcel)
                    except RoundVoid:  # training was over
                        continue
                    sent.append(parcel.header.sha256)

            tasks = [asyncio.create_task(site(it)) for it in sites]
            row = await federation.ended(job_id)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return (
                row,
                federation.records(job_id),
                [members(federation, job_id, number) for number in range(9)],
            )

    row, records, counted = asyncio.run(whole())
    assert row.status is Status.DONE
    assert [len(record.members) for record in records] == [2] * 10
    assert max(len(record.ages) for record in records) > 1
    hashes = [sha for each in counted for sha in each.values()]
    assert len(hashes) == len(set(hashes)) == 18


def test_a_site_that_was_not_asked_is_not_counted(place: Place) -> None:
    async def whole() -> None:
        async with by_hand(place, *THREE) as (federation, job_id, (one, two, late)):
            begun = [await site.work() for site in (one, two, late)]
            with pytest.raises(RoundVoid, match="not asked for round 1"):
                await late.deliver(begun[2].with_header(round=1))
            await asyncio.gather(one.deliver(begun[0]), two.deliver(begun[1]))
            await federation.reached(job_id, 1)
            with pytest.raises(RoundVoid, match="not asked for round 1"):
                await late.deliver(begun[2].with_header(round=1))
            assert members(federation, job_id, 1) == {}
            await asyncio.gather(one.deliver(await one.work()), late.deliver(begun[2]))
            assert members(federation, job_id, 1).keys() == {"bremen", "kiel"}

    asyncio.run(whole())


async def rounds_of(federation: Federation, job_id: str, sites: list[RawSite], until: int) -> None:
    """These sites work until so many rounds are closed."""
    while len(federation.records(job_id)) < until:
        parcels = [await site.work() for site in sites]
        await asyncio.gather(*(s.deliver(p) for s, p in zip(sites, parcels, strict=True)))
        await federation.reached(job_id, int(parcels[0].header.round.round) + 1)


def test_models_of_who_is_at_work_can_be_fetched_until_it_is_done(place: Place) -> None:
    async def whole() -> None:
        async with by_hand(place, *THREE, rounds=5) as (federation, job_id, (one, two, late)):
            begun = [await site.work() for site in (one, late)]
            await asyncio.gather(one.deliver(begun[0]), late.deliver(begun[1]))
            order = await late.hear("work")
            assert order.round.round == 1  # the first model is kept for ever
            await rounds_of(federation, job_id, [one, two], 3)
            floor = federation.coordinator.runner._floor
            named = frozenset(floor.housekeeping._named())
            await asyncio.to_thread(floor.blobs.sweep, named, time.time() + 60)
            with pytest.raises(HansaError):
                floor.blobs.size(order.model_sha256)
            content = await late.fetch(order.model_sha256)
            assert sha256(np.frombuffer(content, "<f4")) == order.model_sha256

    asyncio.run(whole())


def test_a_model_is_not_offered_any_longer_than_somebody_works_on_it(place: Place) -> None:
    async def whole() -> None:
        async with by_hand(place, *THREE, rounds=5) as (federation, job_id, (one, two, late)):
            order = await late.hear("work")
            parcel = await late.prepared(order)
            await rounds_of(federation, job_id, [one, two], 1)
            assert await late.fetch(order.model_sha256)
            await asyncio.gather(late.deliver(parcel), one.deliver(await one.work()))
            with pytest.raises(HansaError, match="nothing with SHA-256"):
                await late.fetch(order.model_sha256)

    asyncio.run(whole())


def test_whoever_is_too_old_is_told_to_stop(place: Place) -> None:
    async def whole() -> Any:
        words = arrival(max_staleness=1)["cohort"]
        async with AsyncExitStack() as stack:
            federation = await stack.enter_async_context(running(place))
            sites = [await stack.enter_async_context(raw_site(place, name)) for name in THREE]
            for site in sites:
                await site.attend()
            wanted = Rounds(count=4, deadline=LONG)
            job_id, _ = await federation.submit(job(rounds=wanted, cohort=words))
            for site in sites:
                await site.take_offer()
            one, two, late = sites
            parcel = await late.work()
            await rounds_of(federation, job_id, [one, two], 2)
            withdrawn = await late.hear("withdraw")
            with pytest.raises(RoundVoid, match=r"dropped out|not asked|rounds old"):
                await late.deliver(parcel)
            await rounds_of(federation, job_id, [one, two], 3)
            order = await late.hear("work")
            return withdrawn, federation.records(job_id), order

    withdrawn, records, order = asyncio.run(whole())
    assert withdrawn.round.round == 0
    assert "2 rounds old" in withdrawn.reason
    assert [(d.client, d.reason) for d in records[2].dropouts] == [("kiel", withdrawn.reason)]
    assert order.round.round == 3


def test_whoever_is_slower_than_the_deadline_is_told_and_holds_nobody_up(place: Place) -> None:
    async def whole() -> Any:
        async with by_hand(place, *THREE, rounds=4, deadline=1.5) as (federation, job_id, sites):
            one, two, late = sites
            parcel = await late.work()
            began = time.monotonic()
            await rounds_of(federation, job_id, [one, two], 3)
            took = time.monotonic() - began
            withdrawn = await late.hear("withdraw")
            with pytest.raises(RoundVoid):
                await late.deliver(parcel)
            await rounds_of(federation, job_id, [one, two], 4)
            return took, withdrawn, federation.records(job_id)

    took, withdrawn, records = asyncio.run(whole())
    assert took < 1.4, "three rounds before the slow one's time was over"
    assert withdrawn.reason == "sent no update within 1.5 s"
    assert [(d.client, d.reason) for d in records[3].dropouts] == [("kiel", withdrawn.reason)]


def test_a_buffer_that_is_not_filled_is_void_and_tried_again(place: Place) -> None:
    async def whole() -> Any:
        async with by_hand(place, *THREE, rounds=1, deadline=0.7) as (federation, job_id, sites):
            one, two, _ = sites
            sent = asyncio.create_task(one.deliver(await one.work()))
            await federation.reached(job_id, 1)
            await sent
            parcels = []
            for site in (one, two):
                while (order := await site.hear("work")).round.attempt == 0:
                    pass
                parcels.append(await site.prepared(order))
            await asyncio.gather(*(s.deliver(p) for s, p in zip((one, two), parcels, strict=True)))
            return federation.records(job_id)

    void, counted = asyncio.run(whole())[:2]
    assert (void.void, void.members) == (True, ("bremen",))
    assert (counted.void, counted.attempt, counted.members) == (False, 1, ("bremen", "danzig"))


def test_who_declines_is_written_down_and_may_begin_again_in_the_next_round(place: Place) -> None:
    async def whole() -> Any:
        async with by_hand(place, *THREE) as (federation, job_id, (one, two, late)):
            await late.decline((await late.hear("work")).round, "no power")
            await rounds_of(federation, job_id, [one, two], 1)
            assert (await late.hear("work")).round.round == 1
            return federation.records(job_id)[0]

    record = asyncio.run(whole())
    assert [(d.client, d.reason) for d in record.dropouts] == [("kiel", "no power")]


def test_who_comes_back_is_told_the_work_that_it_began(place: Place) -> None:
    async def whole() -> Any:
        async with by_hand(place, *THREE) as (federation, job_id, (one, two, late)):
            order = await late.hear("work")
            late.stream.cancel()
            await rounds_of(federation, job_id, [one, two], 1)
            async with raw_site(place, "kiel") as back:
                await back.attend()
                await back.take_offer()
                again = await back.hear("work")
                parcel = await back.prepared(again)
                await asyncio.gather(back.deliver(parcel), one.deliver(await one.work()))
                return order, again, members(federation, job_id, 1)

    order, again, counted = asyncio.run(whole())
    assert (again.round.round, again.model_sha256) == (0, order.model_sha256)
    assert counted.keys() == {"bremen", "kiel"}


def test_no_more_sites_are_asked_than_may_work(place: Place) -> None:
    """One at a time: who declines makes room for the next one."""

    async def whole() -> Any:
        words = Cohort(population=3, sampler="arrival", buffer=2, concurrency=1)
        async with AsyncExitStack() as stack:
            federation = await stack.enter_async_context(running(place))
            sites = [await stack.enter_async_context(raw_site(place, name)) for name in THREE]
            for site in sites:
                await site.attend()
            wanted = Rounds(count=1, deadline=LONG)
            job_id, _ = await federation.submit(job(rounds=wanted, cohort=words))
            for site in sites:
                await site.take_offer()
            asked: list[str] = []
            hearing = {site: asyncio.create_task(site.hear("work")) for site in sites}
            sent = []
            for number in range(3):
                await asyncio.wait(hearing.values(), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0.2)
                (site,) = [each for each, task in hearing.items() if task.done()]
                order = hearing.pop(site).result()
                asked.append(site.name)
                if number == 0:
                    await site.decline(order.round)
                else:
                    parcel = await site.prepared(order)
                    sent.append(asyncio.create_task(site.deliver(parcel)))
            await asyncio.gather(*sent)
            await federation.reached(job_id, 1)
            return asked, federation.records(job_id)[0]

    asked, record = asyncio.run(whole())
    assert sorted(asked) == list(THREE)
    assert list(record.members) == sorted(asked[1:])


def test_a_coordinator_that_starts_again_takes_what_was_begun_before(place: Place) -> None:
    """The update of round 0 counts once, in round 1, and not what was asked anew meanwhile."""

    async def whole() -> Any:
        async with by_hand(place, *THREE, rounds=2) as (federation, job_id, (one, two, late)):
            parcel = await late.work()
            await rounds_of(federation, job_id, [one, two], 1)
            assert federation.model(job_id)
        async with running(place) as again, AsyncExitStack() as stack:
            sites = [await stack.enter_async_context(raw_site(place, name)) for name in THREE]
            back = sites[2]
            await back.attend()
            await back.take_offer()
            order = await back.hear("work")
            fresh = await back.prepared(order)
            counting = asyncio.create_task(back.deliver(parcel))
            withdrawn = await back.hear("withdraw")
            assert withdrawn.round.round == order.round.round == 1
            with pytest.raises(RoundVoid, match="another update"):
                await back.deliver(fresh)
            await sites[0].attend()
            await sites[0].take_offer()
            await sites[0].deliver(await sites[0].work())
            await counting
            await again.reached(job_id, 2)
            return parcel, members(again, job_id, 1), again.records(job_id)[1]

    parcel, counted, record = asyncio.run(whole())
    assert counted["kiel"] == parcel.header.sha256
    assert record.members == ("bremen", "kiel")
