"""Long content: nobody holds up the others, nobody reads what was not offered, receipts arrive."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import grpc
import numpy as np
import pytest

from hansa.coordinator import door as door_module
from hansa.core.job import Cohort, Rounds
from hansa.errors import HansaError
from hansa.site.connection import Line
from hansa.site.outbox import Package, deliver
from hansa.wire.limits import CHUNK, CONTENDED_SECONDS
from hansa.wire.methods import DELIVER, FETCH, call
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Federation, Place, expected, job, outcome, running
from tests.support.rawsite import Parcel, RawSite, narrow, raw_site
from tests.support.sitejob.task import SITES


async def _prepared(federation: Federation, site: RawSite) -> tuple[str, Any, Parcel, pb.Work]:
    """A job with several chunks: bremen and danzig are agents, the site has its update ready."""
    await site.attend()
    job_id, plan = await federation.submit(job("Wide", rounds=Rounds(count=1, deadline=LONG)))
    await site.take_offer()
    order = await site.hear("work")
    return job_id, plan, await site.prepared(order), order


def test_a_sender_that_stands_still_does_not_keep_the_others_out(place: Place) -> None:
    """It began while nobody waited, with all the time in the world; then the others came."""
    for name in ("bremen", "danzig"):
        place.write_site(name, {"delay": 0.5})

    async def whole() -> Any:
        async with running(place) as federation, raw_site(place, "kiel") as slow:
            await federation.agents("bremen", "danzig")
            job_id, plan, parcel, order = await _prepared(federation, slow)
            began = time.monotonic()
            delivery = call(slow.channel, DELIVER)()
            for part in list(parcel.parts())[:2]:
                await delivery.write(part)
            assert (await delivery.read()).HasField("go")
            assert await delivery.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "the transfer stalled" in await delivery.details()
            assert time.monotonic() - began < 2 * CONTENDED_SECONDS + 2
            await slow.decline(order.round)
            await slow.decline((await slow.hear("work")).round)
            await federation.ended(job_id)
            return plan, federation.records(job_id)

    plan, records = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan, {"kiel"})[1])


def test_a_reader_that_stands_still_does_not_keep_the_others_out(place: Place) -> None:
    async def whole() -> Any:
        async with (
            running(place) as federation,
            raw_site(place, "kiel") as site,
            raw_site(place, "bremen") as other,
            narrow(place.sites_door, place.credentials("kiel")) as slow,
        ):
            await federation.agents("danzig")
            await other.attend()
            waiting = asyncio.create_task(_prepared(federation, site))
            await other.take_offer()
            _, _, _, order = await waiting
            open_calls = []
            for number in range(door_module.UNREAD):
                reading = call(slow, FETCH)(pb.FetchRequest(sha256=order.model_sha256))
                open_calls.append(reading)
                if number == 0:
                    await reading.read()
            began = time.monotonic()
            content = await other.fetch(order.model_sha256)
            assert len(content) == order.model_size
            assert time.monotonic() - began < 2 * CONTENDED_SECONDS + 2
            with pytest.raises(HansaError, match="'kiel' has 8 fetches open"):
                await site.fetch(order.model_sha256)
            for reading in open_calls:
                reading.cancel()
            await asyncio.sleep(0.2)
            assert len(await site.fetch(order.model_sha256)) == order.model_size
            assert await site.fetch(order.model_sha256, CHUNK + 5) == content[CHUNK + 5 :]
            assert await site.fetch(order.model_sha256, 2**64 - 1) == b""
            await federation.coordinator.runner.cancel(order.round.job, "seen enough")

    asyncio.run(whole())


def test_a_reader_may_go_away_at_any_moment(place: Place) -> None:
    """Before the headers, in the middle of the first chunk, after it: nothing breaks here."""

    async def whole() -> None:
        async with running(place) as federation, raw_site(place, "kiel") as site:
            await federation.agents("bremen", "danzig")
            _, _, _, order = await _prepared(federation, site)
            wanted = pb.FetchRequest(sha256=order.model_sha256)
            for number in range(60):
                async with narrow(place.sites_door, place.credentials("kiel")) as slow:
                    reading = call(slow, FETCH)(wanted)
                    await asyncio.sleep(number / 5_000)
                    reading.cancel()
            assert len(await site.fetch(order.model_sha256)) == order.model_size
            await federation.coordinator.runner.cancel(order.round.job, "seen enough")

    asyncio.run(whole())


def test_a_fetch_that_outlives_its_round_still_reads_its_own_file(place: Place) -> None:
    """The number of the file that was closed belongs to another one, which was not offered."""
    secret = place.path / "secret"
    secret.write_bytes(b"secret!!" * 400_000)

    async def whole() -> Any:
        async with (
            running(place) as federation,
            raw_site(place, "kiel") as site,
            narrow(place.sites_door, place.credentials("kiel")) as slow,
        ):
            await federation.agents("bremen", "danzig")
            job_id, _, _, order = await _prepared(federation, site)
            model = await site.fetch(order.model_sha256)
            reading = call(slow, FETCH)(pb.FetchRequest(sha256=order.model_sha256))
            content = pb.Chunk.FromString(await reading.read()).data
            await site.decline(order.round)
            await federation.reached(job_id, 1)
            numbers = [os.open(secret, os.O_RDONLY) for _ in range(30)]
            try:
                while (frame := await reading.read()) is not grpc.aio.EOF:
                    content += pb.Chunk.FromString(frame).data
            finally:
                for number in numbers:
                    os.close(number)
            await site.decline((await site.hear("work")).round)
            await federation.ended(job_id)
            return content, model

    content, model = asyncio.run(whole())
    assert b"secret!!" not in content
    assert content == model


def test_receipts_of_several_chunks_arrive_however_often_they_are_asked_for(place: Place) -> None:
    """By the outbox of an agent: it sends nothing that is durable already."""

    async def whole() -> None:
        async with running(place) as federation, raw_site(place, "kiel") as site:
            await federation.agents("bremen", "danzig")
            job_id, plan, parcel, order = await _prepared(federation, site)
            assert site.receipt_key is not None
            line = Line(site.channel, "the coordinator", site.receipt_key)

            async def connected() -> Line:
                return line

            vector = np.frombuffer(parcel.content, "<f4")
            package = Package.of("hanse", "kiel", plan, order, vector)
            assert package.header == parcel.header
            at_once = await asyncio.gather(*(deliver(package, connected) for _ in range(3)))
            assert at_once == ["", "", ""]
            await site.decline((await site.hear("work")).round)
            await federation.ended(job_id)
            assert await deliver(package, connected) == ""
            other = Package.of("hanse", "kiel", plan, order, vector + np.float32(1))
            said = await deliver(other, connected)
            assert said == "another update of 'kiel' is already counted in this round"

    asyncio.run(whole())


def test_more_sites_than_the_plan_was_made_for(place: Place) -> None:
    """Six accept, three take part; the others are told, and a restart changes nothing."""

    async def whole() -> Any:
        async with running(place) as federation:
            await federation.agents(*SITES)
            job_id, _ = await federation.submit(job(cohort=Cohort(population=3)))
            row = await federation.ended(job_id)
            decisions = federation.coordinator.store.decisions(job_id)
            return row, federation.records(job_id), decisions

    row, records, decisions = asyncio.run(whole())
    assert row.status.value == "done"
    taking_part = {decision.site for decision in decisions if decision.accepted}
    assert len(taking_part) == 3
    assert all(set(record.members) == taking_part for record in records)
    for decision in decisions:
        assert decision.accepted or "with other sites already" in decision.reason
