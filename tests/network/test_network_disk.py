"""A disk that is full in the middle of a round: no receipt is given, nothing counts twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from hansa.coordinator import intake, runner
from hansa.coordinator.rows import Status
from hansa.coordinator.store import Store
from hansa.core.job import Rounds
from hansa.errors import StoreError, Unavailable
from hansa.site.agent import LOG
from hansa.site.logbook import read
from tests.support.federation import (
    LONG,
    Federation,
    Place,
    expected,
    job,
    outcome,
    running,
    until,
)
from tests.support.fulldisk import short_files, small_disk
from tests.support.rawsite import RawSite, raw_site

THREE = ("bremen", "danzig", "kiel")
MODELS = 24 << 20
"""Bytes that the models of a job fit into, and some more."""


async def _working(federation: Federation, sites: list[RawSite], **rounds: Any) -> tuple[str, Any]:
    """A job with three sites that attend by hand and have accepted it."""
    for site in sites:
        await site.attend()
    usual = {"count": 1, "deadline": LONG}
    job_id, plan = await federation.submit(job("Wide", rounds=Rounds(**{**usual, **rounds})))
    for site in sites:
        await site.take_offer()
    return job_id, plan


async def _at_once(sites: list[RawSite]) -> list[asyncio.Task[Any]]:
    parcels = [await site.work() for site in sites]
    return [
        asyncio.create_task(site.deliver(parcel))
        for site, parcel in zip(sites, parcels, strict=True)
    ]


def _three(place: Place) -> Any:
    return (raw_site(place, name) for name in THREE)


def test_while_the_disk_is_full_the_round_waits(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def whole() -> Any:
        one, two, three = _three(place)
        async with running(place) as federation, one as a, two as b, three as c:
            sites = [a, b, c]
            job_id, plan = await _working(federation, sites)
            disk.fill()
            tasks = await _at_once(sites)
            done, _ = await asyncio.wait(tasks, timeout=2.5)
            assert not done, "a receipt for a sum that is not on the disk"
            assert not federation.records(job_id)
            again = asyncio.create_task(a.deliver(await _same(a, tasks[0])))
            disk.free()
            receipts = await asyncio.gather(*tasks, again)
            assert receipts[0].document == receipts[3].document
            for task in await _at_once(sites):
                await task
            row = await federation.ended(job_id)
            return plan, row, federation.records(job_id)

    with small_disk(place.coordinator / "blobs", MODELS) as disk:
        plan, row, records = asyncio.run(whole())
    assert (row.status, row.reason) == (Status.DONE, "")
    assert outcome(records) == outcome(expected(plan)[1])
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert any("No space left on device" in line for line in said)


async def _same(site: RawSite, task: asyncio.Task[Any]) -> Any:
    """The parcel that a delivery is about."""
    coroutine: Any = task.get_coro()
    return coroutine.cr_frame.f_locals["parcel"]


def test_a_disk_that_stays_full_fails_the_job_and_nothing_else(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PAUSES", (0.1,))
    opened = Store.open_round

    def fill_and_open(self: Store, *args: Any) -> Any:
        monkeypatch.setattr(Store, "open_round", opened)
        disk.fill()
        return opened(self, *args)

    monkeypatch.setattr(Store, "open_round", fill_and_open)

    async def whole() -> Any:
        async with running(place) as federation:
            await federation.agents(*THREE)
            rounds = Rounds(count=1, deadline=1.2)
            job_id, _ = await federation.submit(job("Wide", rounds=rounds))
            before = federation.model(job_id)
            row = await federation.ended(job_id)
            assert federation.model(job_id) == before
            assert not federation.records(job_id)
            disk.free()
            second, plan = await federation.submit(job("Wide"))
            assert (await federation.ended(second)).status is Status.DONE
            await until(lambda: _dropped(place, job_id) == set(THREE))
            return row, plan, federation.records(second)

    with small_disk(place.coordinator / "blobs", MODELS) as disk:
        row, plan, records = asyncio.run(whole())
    assert row.status is Status.FAILED
    assert "No space left on device" in row.reason
    assert outcome(records) == outcome(expected(plan)[1])


def _dropped(place: Place, job_id: str) -> set[str]:
    """Sites whose update of a job did not count, as their own logs say."""
    return {
        site
        for site in THREE
        for entry in read(place.site(site) / LOG)
        if entry["kind"] == "dropped"
        and entry["job"] == job_id
        and entry["reason"] == "the job has ended"
    }


def test_while_the_store_cannot_grow_no_receipt_is_given(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sites are told to come again and again, and every update counts once in the end."""
    monkeypatch.setattr(runner, "PAUSES", (0.1,))

    async def whole() -> Any:
        one, two, three = _three(place)
        async with running(place) as federation, one as a, two as b, three as c:
            sites = [a, b, c]
            job_id, plan = await _working(federation, sites)
            parcels = [await site.work() for site in sites]
            with short_files(4096):
                tasks = [
                    asyncio.create_task(_received(site, parcel))
                    for site, parcel in zip(sites, parcels, strict=True)
                ]
                done, _ = await asyncio.wait(tasks, timeout=2.5)
                assert not done, "a receipt that the store knows nothing of, or another refusal"
            await asyncio.gather(*tasks)
            last = [await _later(site, parcel) for site, parcel in zip(sites, parcels, strict=True)]
            await asyncio.gather(*map(_received, sites, last))
            row = await federation.ended(job_id)
            return plan, row, federation.records(job_id)

    plan, row, records = asyncio.run(whole())
    assert (row.status, row.reason) == (Status.DONE, "")
    assert outcome(records) == outcome(expected(plan)[1])
    again = [r for r in caplog.records if "goes on in a moment" in r.getMessage()]
    assert len(again) > len(runner.PAUSES) + 1


async def _later(site: RawSite, parcel: Any) -> Any:
    """The work of the round after a parcel's; that of the same may have been pushed again."""
    while (order := await site.hear("work")).round == parcel.header.round:
        pass
    return await site.prepared(order)


async def _received(site: RawSite, parcel: Any) -> None:
    """Delivers again and again, as an agent does."""
    async with asyncio.timeout(LONG):
        while True:
            with contextlib.suppress(Unavailable):
                await site.deliver(parcel)
                return
            await asyncio.sleep(0.1)


def test_a_transaction_that_failed_and_happened_all_the_same_counts_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection to a database is lost after its commit."""
    monkeypatch.setattr(intake, "PATIENCE", 0.5)
    commit, failed = Store.commit_fold, list[Any]()

    def lost(self: Store, job_id: str, opening: Any, fold: Any) -> None:
        commit(self, job_id, opening, fold)
        if len(failed) < 2:
            failed.append(fold)
            raise StoreError("the connection was lost", fix="wait")

    monkeypatch.setattr(Store, "commit_fold", lost)

    async def whole() -> Any:
        one, two, three = _three(place)
        async with running(place) as federation, one as a, two as b, three as c:
            sites = [a, b, c]
            job_id, plan = await _working(federation, sites)
            first, second, third = [await site.work() for site in sites]
            early = [asyncio.create_task(a.deliver(first)), asyncio.create_task(b.deliver(second))]
            await asyncio.sleep(1.5)  # the commit of a group has failed, and failed again
            assert failed
            await asyncio.gather(*early, c.deliver(third))
            for task in await _at_once(sites):
                await task
            row = await federation.ended(job_id)
            return plan, row, federation.records(job_id)

    plan, row, records = asyncio.run(whole())
    assert (row.status, row.reason) == (Status.DONE, "")
    assert outcome(records) == outcome(expected(plan)[1])
    assert failed[0] == failed[1], "another transaction before the fate of the first was known"
