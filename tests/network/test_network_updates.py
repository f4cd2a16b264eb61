"""Updates that are not what the plan says: refused with a reason, and the round goes on without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from hansa.coordinator.rows import Status
from hansa.core.job import Aggregation, Cohort, Quantization, Rounds
from hansa.core.round import Opening
from hansa.core.vector import Layout, Vector
from hansa.errors import HansaError, RoundVoid, Unavailable, UpdateRejected
from hansa.wire.limits import CHUNK
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Federation, Place, expected, job, outcome, running
from tests.support.rawsite import Parcel, RawSite, raw_site

Parts = Iterable[pb.DeliverPart]
Lie = Callable[[Parcel, Layout], Parts]

CLIPPED = {"aggregation": Aggregation(clip=0.5, max_weight=20.0)}
RING = {**CLIPPED, "quantization": Quantization(step=1e-3)}


def header(**words: Any) -> Lie:
    """The honest bytes under another header."""
    return lambda parcel, _: parcel.with_header(**words).parts()


def number(segment: str, value: float, place: int = 0) -> Lie:
    """The honest update with one number changed, announced as it is."""

    def lie(parcel: Parcel, layout: Layout) -> Parts:
        ring = len(parcel.content) == 4 * layout.size and isinstance(value, int)
        vector: Vector = np.frombuffer(parcel.content, "<u4" if ring else "<f4").copy()
        layout.slice(vector, segment)[place] = value % 2**32 if ring else value
        return parcel.with_content(vector.tobytes()).parts()

    return lie


def scaled(factor: float) -> Lie:
    """The honest update with a longer delta."""

    def lie(parcel: Parcel, layout: Layout) -> Parts:
        vector = np.frombuffer(parcel.content, "<f4").copy()
        layout.slice(vector, "delta")[:] *= factor
        return parcel.with_content(vector.tobytes()).parts()

    return lie


def content(change: Callable[[bytes], bytes]) -> Lie:
    """Other bytes than announced."""
    return lambda parcel, _: [
        pb.DeliverPart(header=parcel.header),
        pb.DeliverPart(data=change(parcel.content)),
    ]


def parts(make: Callable[[list[pb.DeliverPart]], Parts]) -> Lie:
    """The honest messages, arranged in another way."""
    return lambda parcel, _: make(list(parcel.parts()))


NAN, INFINITE = float("nan"), float("inf")

FLOAT_LIES: dict[str, tuple[Lie, type[HansaError], str]] = {
    "truncated": (content(lambda c: c[:-4]), UpdateRejected, "bytes where"),
    "no bytes at all": (parts(lambda p: p[:1]), UpdateRejected, "ended after 0 of"),
    "more than announced": (content(lambda c: c + b"\0"), UpdateRejected, "were due"),
    "one byte changed": (
        content(lambda c: c[:-1] + bytes([c[-1] ^ 1])),
        UpdateRejected,
        "another SHA-256",
    ),
    "announced smaller": (header(size=4), UpdateRejected, "another size than the plan"),
    "announced huge": (header(size=2**63), UpdateRejected, "another size than the plan"),
    "hash of nothing": (header(sha256=""), UpdateRejected, "another SHA-256"),
    "hash of text": (header(sha256="no hash" * 1000), UpdateRejected, "another SHA-256"),
    "another plan": (header(plan_digest="f" * 64), UpdateRejected, "another plan digest"),
    "another layout": (header(layout_digest="f" * 64), UpdateRejected, "another layout digest"),
    "another job": (header(job="net-0"), RoundVoid, "over or unknown"),
    "a round that will be": (header(round=99), RoundVoid, "over or unknown"),
    "another attempt": (header(attempt=1), RoundVoid, "over or unknown"),
    "the largest numbers": (
        header(round=2**32 - 1, attempt=2**32 - 1),
        RoundVoid,
        "over or unknown",
    ),
    "another purpose": (header(purpose="evaluate"), RoundVoid, "over or unknown"),
    "no purpose": (header(purpose="x\n" * 50_000), HansaError, "is no purpose of a round"),
    "NaN in the delta": (number("delta", NAN), UpdateRejected, "not finite"),
    "infinity in the delta": (number("delta", -INFINITE, 2), UpdateRejected, "not finite"),
    "NaN as the weight": (number("weight", NAN), UpdateRejected, "weight of an update is neither"),
    "NaN in the metrics": (number("metrics", NAN, 3), UpdateRejected, "not finite"),
    "metrics out of range": (number("metrics", 1e20, 1), UpdateRejected, "beyond 4.295e+09"),
    "delta out of range": (number("delta", 3e38, 1), UpdateRejected, "exceeds its norm bound"),
    "over the clip norm": (scaled(1.01), UpdateRejected, "exceeds its norm bound"),
    "weight over the cap": (number("weight", 20.5), UpdateRejected, "nor between 1 and 20"),
    "negative weight": (number("weight", -3.0), UpdateRejected, "nor between 1 and 20"),
    "no weight, but a delta": (number("weight", 0.0), UpdateRejected, "carries a delta"),
    "no header": (parts(lambda p: p[1:]), UpdateRejected, "the first message is no header"),
    "an empty message first": (
        parts(lambda p: [pb.DeliverPart(), *p]),
        UpdateRejected,
        "the first message is no header",
    ),
    "nothing at all": (parts(lambda p: []), UpdateRejected, "no header came"),
    "two headers": (parts(lambda p: [p[0], *p]), HansaError, ""),
    "empty chunks": (
        parts(lambda p: [p[0], *[pb.DeliverPart(data=b"")] * 5, p[1]]),
        UpdateRejected,
        "a chunk of 0 bytes where",
    ),
}
RING_LIES: dict[str, tuple[Lie, type[HansaError], str]] = {
    "delta beyond its bound": (number("delta", 2**30), UpdateRejected, "exceeds its bounds"),
    "delta beyond, below zero": (number("delta", -(2**30)), UpdateRejected, "exceeds its bounds"),
    "negative weight": (number("weight", -1), UpdateRejected, "exceeds its bounds"),
    "weight over the cap": (number("weight", 21), UpdateRejected, "exceeds its bounds"),
    "metrics beyond their bound": (number("metrics", 2**31), UpdateRejected, "exceeds its bounds"),
    "truncated": (content(lambda c: c[:-1]), UpdateRejected, "a chunk of 111 bytes where 112"),
}


@pytest.mark.parametrize(
    ("words", "lies"), [(CLIPPED, FLOAT_LIES), (RING, RING_LIES)], ids=["float", "ring"]
)
def test_each_lie_is_refused_and_the_result_is_that_of_the_others(
    place: Place, words: dict[str, Any], lies: dict[str, tuple[Lie, type[HansaError], str]]
) -> None:
    """One round for each lie. Whoever lies once and then declines is left out, and nothing else."""
    wanted = job(rounds=Rounds(count=len(lies), deadline=LONG), **words)
    told: dict[str, HansaError] = {}

    async def whole() -> Any:
        async with running(place) as federation, raw_site(place, "kiel") as liar:
            await federation.agents("bremen", "danzig")
            await liar.attend()
            job_id, plan = await federation.submit(wanted)
            await liar.take_offer()
            for name, (lie, _, _) in lies.items():
                order = await liar.hear("work")
                parcel = await liar.prepared(order)
                with pytest.raises(HansaError) as error:
                    await liar.send(lie(parcel, plan.layout))
                told[name] = error.value
                await liar.decline(order.round, "found out")
            await liar.decline((await liar.hear("work")).round)
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            return plan, federation.records(job_id), federation.model(job_id)

    plan, records, model = asyncio.run(whole())
    for name, (_, kind, said) in lies.items():
        assert type(told[name]) is kind, (name, told[name])
        assert said in told[name].message, name
        assert len(told[name].message) <= 2000, name
    state, without = expected(plan, {"kiel"})
    assert outcome(records) == outcome(without)
    assert model == state.model


def test_a_site_that_corrects_itself_counts_and_one_that_does_not_is_out(place: Place) -> None:
    """Two broken tries are forgiven; after the third the round does not wait for the site."""

    async def whole() -> Any:
        async with running(place) as federation, raw_site(place, "kiel") as liar:
            await federation.agents("bremen", "danzig")
            await liar.attend()
            job_id, plan = await federation.submit(job(rounds=Rounds(count=2, deadline=LONG)))
            await liar.take_offer()
            for tries in (2, 3):
                parcel = await liar.work()
                for _ in range(tries):
                    with pytest.raises(UpdateRejected):
                        await liar.send(number("delta", NAN)(parcel, plan.layout))
                if tries == 2:
                    await liar.deliver(parcel)
                else:
                    with pytest.raises(
                        RoundVoid, match=r"dropped out of this round: .*finite|over"
                    ):
                        await liar.deliver(parcel)
            await liar.deliver(await liar.work())
            await federation.ended(job_id)
            return federation.records(job_id)

    first, second, last = asyncio.run(whole())
    assert first.members == last.members == ("bremen", "danzig", "kiel")
    assert second.members == ("bremen", "danzig")
    assert "not finite" in second.dropouts[0].reason


def test_denormal_numbers_are_numbers(place: Place) -> None:
    async def whole() -> Any:
        async with running(place) as federation, raw_site(place, "kiel") as site:
            await federation.agents("bremen", "danzig")
            await site.attend()
            job_id, plan = await federation.submit(job(rounds=Rounds(count=1, deadline=LONG)))
            await site.take_offer()
            parcel = await site.work()
            vector = np.frombuffer(parcel.content, "<f4").copy()
            plan.layout.slice(vector, "delta")[:] = [1e-45, -1e-45, 1e-40, 0.0, -0.0]
            changed = parcel.with_content(vector.tobytes())
            await site.send(changed.parts())
            await site.deliver(await site.work())
            await federation.ended(job_id)
            return federation.records(job_id)

    assert asyncio.run(whole())[0].members == ("bremen", "danzig", "kiel")


# ------------------------------------------------------------------ several chunks


CHUNK_LIES: dict[str, tuple[Callable[[bytes], list[bytes]], str]] = {
    "a chunk over 1 MiB": (
        lambda c: [c[: CHUNK + 1], *_cut(c[CHUNK + 1 :])],
        "a chunk of 1,048,577 bytes where 1,048,576",
    ),
    "a chunk too many": (lambda c: [*_cut(c), b"\0"], "a chunk of 1 bytes where 0"),
    "a chunk too few": (lambda c: _cut(c)[:-1], "ended after 2,097,152 of"),
    "chunks in another order": (lambda c: [_cut(c)[1], _cut(c)[0], _cut(c)[2]], "SHA-256"),
    "crumbs": (lambda c: [c[:100], *_cut(c[100:])], "a chunk of 100 bytes where 1,048,576"),
}


def _cut(content: bytes) -> list[bytes]:
    return [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]


def test_chunks_that_are_not_cut_as_agreed(place: Place) -> None:
    told: dict[str, HansaError] = {}
    wanted = job("Wide", rounds=Rounds(count=len(CHUNK_LIES) + 1, deadline=LONG))

    async def whole() -> Any:
        async with running(place) as federation, raw_site(place, "kiel") as liar:
            await federation.agents("bremen", "danzig")
            await liar.attend()
            job_id, plan = await federation.submit(wanted)
            await liar.take_offer()
            for name, (cut, _) in CHUNK_LIES.items():
                order = await liar.hear("work")
                parcel = await liar.prepared(order)
                lie = [pb.DeliverPart(data=data) for data in cut(parcel.content)]
                with pytest.raises(HansaError) as error:
                    await liar.send([pb.DeliverPart(header=parcel.header), *lie])
                told[name] = error.value
                await liar.decline(order.round)
            # A message over the limit of the transport is never in the coordinator's hands.
            order = await liar.hear("work")
            parcel = await liar.prepared(order)
            with pytest.raises(Unavailable, match=r"resource exhausted|internal"):
                await liar.send(
                    [pb.DeliverPart(header=parcel.header), pb.DeliverPart(data=bytes(2 * CHUNK))]
                )
            await liar.decline(order.round)
            await liar.decline((await liar.hear("work")).round)
            assert (await federation.ended(job_id)).status is Status.DONE
            return plan, federation.records(job_id), federation.model(job_id)

    plan, records, model = asyncio.run(whole())
    for name, (_, words) in CHUNK_LIES.items():
        assert isinstance(told[name], UpdateRejected), (name, told[name])
        assert words in told[name].message, name
    state, without = expected(plan, {"kiel"})
    assert outcome(records) == outcome(without)
    assert model == state.model


# ------------------------------------------------------------------ twice, late, uninvited


async def _one_round(federation: Federation, site: RawSite, **rounds: Any) -> tuple[str, Any]:
    """A job in which bremen and danzig are agents, and a site that attends by hand."""
    await federation.agents("bremen", "danzig")
    await site.attend()
    usual: dict[str, Any] = {"count": 1, "deadline": LONG}
    job_id, plan = await federation.submit(job(rounds=Rounds(**{**usual, **rounds})))
    await site.take_offer()
    return job_id, plan


def test_an_update_sent_twice_counts_once_and_gets_its_receipt_again(place: Place) -> None:
    async def whole() -> Any:
        async with (
            running(place) as federation,
            raw_site(place, "kiel") as site,
            raw_site(place, "kiel") as second,
        ):
            job_id, plan = await _one_round(federation, site)
            second.receipt_key = site.receipt_key
            parcel = await site.work()
            both = await asyncio.gather(site.deliver(parcel), second.deliver(parcel))
            late = await second.deliver(parcel)
            assert both[0].document == both[1].document == late.document
            vector = np.frombuffer(parcel.content, "<f4").copy()
            vector[0] += 1
            other = parcel.with_content(vector.tobytes())
            with pytest.raises(RoundVoid, match="another update of 'kiel' is already counted"):
                await site.send(other.parts())
            await site.deliver(await site.work())
            await federation.ended(job_id)
            return plan, federation.records(job_id)

    plan, records = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan)[1])


def test_of_two_different_updates_at_once_one_counts(place: Place) -> None:
    async def whole() -> Any:
        async with (
            running(place) as federation,
            raw_site(place, "kiel") as site,
            raw_site(place, "kiel") as second,
        ):
            job_id, _ = await _one_round(federation, site)
            parcel = await site.work()
            vector = np.frombuffer(parcel.content, "<f4").copy()
            vector[0] += 1
            other = parcel.with_content(vector.tobytes())
            answers = await asyncio.gather(
                site.send(parcel.parts()), second.send(other.parts()), return_exceptions=True
            )
            (refused,) = (a for a in answers if isinstance(a, HansaError))
            (receipt,) = (a for a in answers if isinstance(a, pb.Receipt))
            assert "another update of 'kiel' is already counted" in refused.message
            await site.decline((await site.hear("work")).round)
            await federation.ended(job_id)
            fold = federation.coordinator.store.folded(job_id, _first(federation, job_id))
            assert fold is not None
            counted = dict(zip(fold.members, fold.receipts, strict=True))["kiel"]
            assert counted in receipt.document
            return federation.records(job_id)

    records = asyncio.run(whole())
    assert records[0].members == ("bremen", "danzig", "kiel")


def _first(federation: Federation, job_id: str) -> Any:
    record = federation.records(job_id)[0]
    return Opening(record.purpose, record.round, record.attempt, record.cohort, record.model)


def test_late_updates_are_refused_and_members_get_their_receipts_late(place: Place) -> None:
    """Also after a restart; and a receipt never says more than what was counted."""

    async def whole() -> Any:
        async with running(place) as federation, raw_site(place, "kiel") as site:
            job_id, _ = await _one_round(federation, site, count=2)
            counted = await site.work()
            receipt = await site.deliver(counted)
            order = await site.hear("work")
            late = await site.prepared(order)
            await site.decline(order.round)
            await site.decline((await site.hear("work")).round)
            await federation.ended(job_id)
            answers = [await _ask_late(site, counted, late)]
        async with running(place) as federation, raw_site(place, "kiel") as site:
            await site.attend()
            answers.append(await _ask_late(site, counted, late))
        return receipt, answers

    receipt, answers = asyncio.run(whole())
    for again in answers:
        assert again.document == receipt.document


async def _ask_late(site: RawSite, counted: Parcel, late: Parcel) -> pb.Receipt:
    with pytest.raises(RoundVoid, match="over or unknown"):
        await site.deliver(late)
    for lie in (
        counted.with_header(sha256="f" * 64),
        counted.with_header(plan_digest="f" * 64),
        counted.with_header(attempt=1),
    ):
        with pytest.raises(RoundVoid):
            await site.send(lie.parts())
    return await site.deliver(counted)


def test_members_of_a_median_get_their_receipts_when_the_round_is_closed(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation, raw_site(place, "kiel") as site:
            await federation.agents("bremen", "danzig", "riga", "visby")
            await site.attend()
            wanted = job(
                rounds=Rounds(count=1, deadline=1.5, quorum=5),
                aggregation=Aggregation(rule="median", weighting="uniform"),
                cohort=Cohort(population=6),
            )
            async with raw_site(place, "luebeck") as silent:
                await silent.attend()
                job_id, _ = await federation.submit(wanted)
                await silent.take_offer()
                await site.take_offer()
                parcel = await site.work()
                waiting = asyncio.create_task(site.deliver(parcel))
                await asyncio.sleep(0.5)
                assert not waiting.done(), "a receipt before the round was closed"
                receipt = await waiting
                assert (await site.deliver(parcel)).document == receipt.document
                await silent.decline((await silent.hear("work")).round)
                for one in (silent, site):
                    order = await one.hear("work")
                    await one.decline(order.round)
                await federation.ended(job_id)
        async with running(place), raw_site(place, "kiel") as site:
            await site.attend()
            assert (await site.deliver(parcel)).document == receipt.document

    asyncio.run(whole())


def test_sites_that_were_not_asked_are_refused(place: Place) -> None:
    async def whole() -> Any:
        async with (
            running(place) as federation,
            raw_site(place, "bremen") as bremen,
            raw_site(place, "danzig") as danzig,
            raw_site(place, "kiel") as kiel,
            raw_site(place, "visby") as stranger,
        ):
            sites = {site.name: site for site in (bremen, danzig, kiel)}
            for site in (*sites.values(), stranger):
                await site.attend()
            cohort = Cohort(population=3, sampler="fixed", size=2)
            job_id, _ = await federation.submit(
                job(cohort=cohort, rounds=Rounds(count=1, deadline=LONG))
            )
            for site in sites.values():
                await site.take_offer()
            orders = {name: asyncio.create_task(s.hear("work")) for name, s in sites.items()}
            while sum(task.done() for task in orders.values()) < 2:
                await asyncio.wait(orders.values(), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0.01)
            (uninvited,) = (name for name, task in orders.items() if not task.done())
            invited = [name for name in sites if name != uninvited]
            order = orders[invited[0]].result()
            params = np.frombuffer(await sites[invited[0]].fetch(order.model_sha256), "<f4")
            for name in (uninvited, stranger.name):
                site = sites.get(name, stranger)
                with pytest.raises(HansaError, match="nothing with SHA-256"):
                    await site.fetch(order.model_sha256)
                site.jobs.update(bremen.jobs)
                parcel = site.parcel(order, params)
                with pytest.raises(RoundVoid, match=f"'{name}' is not in the cohort"):
                    await site.send(parcel.parts())
                await site.decline(order.round, "not asked either")
            parcels = [(sites[name], await sites[name].prepared(order)) for name in invited]
            await asyncio.gather(*(site.deliver(parcel) for site, parcel in parcels))
            await federation.reached(job_id, 1)
            await asyncio.to_thread(federation.remote.cancel, job_id, "enough")
            for task in orders.values():
                task.cancel()
            return federation.records(job_id)[0], invited

    record, invited = asyncio.run(whole())
    assert sorted(record.members) == sorted(invited)
    assert not record.dropouts
