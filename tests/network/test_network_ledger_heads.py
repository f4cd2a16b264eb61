"""Budgets that were set back or rewritten are noticed by those whose data they protect."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from pathlib import Path

import pytest

from hansa.budget.block import Block
from hansa.coordinator.rows import JobRow, Status
from hansa.core.job import Aggregation, Cohort, Job, Privacy, Rounds
from hansa.core.parts import Relation
from hansa.identity.heads import BudgetHead
from hansa.site.heads import NAME, Heads
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Federation, Place, job, running, until
from tests.support.rawsite import raw_site
from tests.support.sitejob.task import SITES

THREE = SITES[:3]
BLOCK = Block(
    name="all",
    unit="client",
    relation=Relation.ADD_OR_REMOVE_ONE,
    epsilon=100.0,
    delta=1e-5,
    order=8,
)


def private(name: str = "private", count: int = 2) -> Job:
    return job(
        name=name,
        rounds=Rounds(count=count, deadline=LONG, quorum=3, attempts=1),
        cohort=Cohort(population=len(THREE)),
        privacy=Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=4.0, delta=1e-5),
        aggregation=Aggregation(weighting="uniform"),
    )


async def ran(federation: Federation, name: str, count: int = 2) -> JobRow:
    job_id, _ = await federation.submit(private(name, count))
    return await federation.ended(job_id)


def seen(place: Place, site: str) -> BudgetHead:
    return Heads(place.site(site), federation="hanse").seen


def copied(place: Place, folder: Path) -> Path:
    """Yesterday's database: all of its files."""
    folder.mkdir()
    for file in place.coordinator.glob("state.db*"):
        shutil.copy(file, folder)
    assert any(folder.iterdir())
    return folder


def restored(place: Place, folder: Path) -> None:
    for file in place.coordinator.glob("state.db*"):
        file.unlink()
    for file in folder.iterdir():
        shutil.copy(file, place.coordinator)


def test_each_round_is_worked_under_a_head_that_sites_countersign(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            budgets = federation.coordinator.store.budgets
            agents = await federation.agents(*THREE)
            assert (await ran(federation, "before")).status is Status.DONE
            assert seen(place, THREE[0]).seq == 0, "nothing to see yet"
            budgets.create(BLOCK, 0.0)
            assert (await ran(federation, "after", 3)).status is Status.DONE
            end = budgets.head()
            heads = {seen(place, site) for site in THREE}
            assert len(heads) == 1
            head = heads.pop()
            assert 0 < head.seq <= end.seq
            await until(lambda: len({c.site for c in budgets.cosignatures(head.seq - 1)}) == 3)
            signed = budgets.cosignatures()
            assert {c.site for c in signed} == set(THREE)
            directory = federation.coordinator.members.directory
            for one in signed:
                document = place.credentials(one.site).document
                text = BudgetHead(federation="hanse", seq=one.seq, hash=one.hash).message
                assert directory.verify(one.site, document, text, bytes.fromhex(one.signature))
            assert budgets.verify() == end
            for agent in agents:
                await agent.stop()

    asyncio.run(whole())


def test_yesterdays_database_is_refused_by_the_sites(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def first() -> None:
        async with running(place) as federation:
            federation.coordinator.store.budgets.create(BLOCK, 0.0)
            agents = await federation.agents(*THREE)
            assert (await ran(federation, "monday")).status is Status.DONE
            for agent in agents:
                await agent.stop()

    async def second() -> None:
        async with running(place) as federation:
            agents = await federation.agents(*THREE)
            assert (await ran(federation, "tuesday")).status is Status.DONE
            for agent in agents:
                await agent.stop()

    async def third(expected: Status, words: str) -> None:
        async with running(place) as federation:
            agents = await federation.agents(*THREE)
            row = await ran(federation, "wednesday")
            assert row.status is expected, row.reason
            if words:
                records = federation.records(row.id)
                reasons = {d.client: d.reason for d in records[-1].dropouts}
                assert reasons.keys() == set(THREE)
                assert all(words in reason for reason in reasons.values()), reasons
            for agent in agents:
                await agent.stop()

    asyncio.run(first())
    yesterday = copied(place, tmp_path / "yesterday")
    asyncio.run(second())
    today = copied(place, tmp_path / "today")
    before = seen(place, THREE[0])

    restored(place, yesterday)
    with caplog.at_level(logging.ERROR):
        asyncio.run(third(Status.FAILED, "privacy ledger was set back or forked"))
    assert "it was set back" in caplog.text, "the coordinator's own log says so, too"
    assert seen(place, THREE[0]) == before

    restored(place, today)
    asyncio.run(third(Status.DONE, ""))


def test_a_ledger_that_was_rewritten_and_has_grown_since_is_refused(
    place: Place, tmp_path: Path
) -> None:
    async def rounds(name: str, count: int, sites: tuple[str, ...]) -> JobRow:
        async with running(place) as federation:
            if not federation.coordinator.store.budgets.head().seq:
                federation.coordinator.store.budgets.create(BLOCK, 0.0)
            agents = await federation.agents(*sites)
            row = await ran(federation, name, count)
            for agent in agents:
                await agent.stop()
            return row

    asyncio.run(rounds("first", 1, THREE))
    yesterday = copied(place, tmp_path / "yesterday")
    asyncio.run(rounds("second", 1, THREE))
    restored(place, yesterday)
    # Sites that were not there see the rewritten past first, and believe it.
    assert asyncio.run(rounds("other", 3, SITES[3:6])).status is Status.DONE
    assert seen(place, SITES[3]).seq > seen(place, THREE[0]).seq
    row = asyncio.run(rounds("third", 1, THREE))
    assert row.status is Status.FAILED


def test_another_past_of_the_same_length_is_refused_before_any_work(place: Place) -> None:
    """The head is shown on every new connection, also where its number is the one that was seen."""

    async def whole() -> None:
        async with running(place) as federation:
            budgets = federation.coordinator.store.budgets
            budgets.create(BLOCK, 0.0)
            # The hold and the reservation of the first round come before its work.
            words = {"federation": "hanse", "seq": budgets.head().seq + 2, "hash": "ab" * 32}
            (place.site(THREE[0]) / NAME).write_text(json.dumps(words))
            agents = await federation.agents(*THREE)
            row = await ran(federation, "forked", 1)
            assert row.status is Status.FAILED
            (record,) = federation.records(row.id)
            reasons = {d.client: d.reason for d in record.dropouts}
            assert "shows another past" in reasons[THREE[0]]
            for agent in agents:
                await agent.stop()

    asyncio.run(whole())


def test_work_under_no_head_is_refused_by_a_site_that_has_seen_one(place: Place) -> None:
    """A coordinator that says nothing of its ledger any more; the work is never begun."""
    (place.site(THREE[0]) / NAME).write_text(
        '{"federation": "hanse", "seq": 7, "hash": "' + "ab" * 32 + '"}'
    )

    async def whole() -> None:
        async with running(place) as federation:
            agents = await federation.agents(*THREE)
            row = await ran(federation, "silent")
            assert row.status is Status.FAILED
            (record,) = federation.records(row.id)
            reasons = {d.client: d.reason for d in record.dropouts}
            assert "set back or forked" in reasons[THREE[0]]
            for agent in agents:
                await agent.stop()

    asyncio.run(whole())


def test_a_signature_that_is_not_the_sites_ends_its_stream(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            federation.coordinator.store.budgets.create(BLOCK, 0.0)
            async with raw_site(place, THREE[0]) as raw:
                await raw.attend()
                head = federation.coordinator.store.budgets.head()
                await raw.say(
                    ledger=pb.HeadSeen(
                        seq=head.seq,
                        hash=head.hash,
                        signature=bytes(64),
                        document=raw.credentials.document,
                    )
                )
                error = await raw.cut_off()
                assert "did not sign the head" in str(error)
            assert not federation.coordinator.store.budgets.cosignatures()

    asyncio.run(whole())


def test_an_older_look_at_the_chain_does_not_replace_a_newer_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs look at once, and the one that looked first is told last."""

    async def whole() -> None:
        async with running(place) as federation:
            heads = federation.coordinator.door.heads
            federation.coordinator.store.budgets.create(BLOCK, 0.0)
            await heads.refresh()
            newest = heads._head
            older = BudgetHead(federation="hanse")
            monkeypatch.setattr(type(heads), "_current", lambda *_: (older, (0, [])))
            await heads.refresh()
            assert newest is not None
            assert newest.seq == 1
            assert heads._head == newest

    asyncio.run(whole())
