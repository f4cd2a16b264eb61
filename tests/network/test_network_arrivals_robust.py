"""Robust rules and standing in buffers over the network: the bits of a simulation, and once each.

A rule that keeps updates has no durable sum before its round is closed: sites have their receipts
then, and send again what a coordinator that was killed had taken in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hansa.attacks.catalogue import attack_named
from hansa.attacks.engine import AttackedEngine
from hansa.coordinator.config import load as load_settings
from hansa.coordinator.config import store_url
from hansa.coordinator.store import Store
from hansa.coordinator.store_standing import StandingRows, _write
from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Cohort, Defend, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site
from hansa.core.plan import Plan
from hansa.core.round import Opening, RoundRecord, TrainState, World, run_round
from hansa.core.train import initial_state
from hansa.defend import Standing, State
from hansa.engines.buffered import BufferedEngine
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import RoundVoid
from hansa.local.federation import LocalFederation
from hansa.privacy.ledger import MemoryLedger
from hansa.site.agent import LOG
from hansa.site.config import NAME
from hansa.site.logbook import read
from hansa.submission import submit
from hansa.work.bundle import load_task, pack
from tests.network.test_network_arrivals import members
from tests.support.federation import LONG, Federation, Place, job, running
from tests.support.rawsite import Parcel, RawSite, raw_site
from tests.support.sitejob.task import SITES

COUNT = 7


def words(rule: Any = "geometric_median", rounds: int = COUNT, **more: Any) -> dict[str, Any]:
    return {
        "cohort": Cohort(population=6, sampler="arrival", buffer=5, concurrency=6),
        "rounds": Rounds(count=rounds, deadline=LONG),
        "aggregation": Aggregation(rule=rule, clip=1.0, weighting="uniform"),
        "defend": Defend(standing=True),
        **more,
    }


@dataclass(frozen=True)
class Turns:
    """All take as long, but in some rounds one takes almost twice as long: it counts one later."""

    def over(self, task, client, at):
        place = SITES.index(client)
        slow = (task.round, place) in {(0, 2), (2, 4), (3, 0)}
        return at + (1.8 if slow else 1.0) + 0.01 * place + 1e-4 * task.round, ""


def simulated(plan: Plan) -> list[tuple[TrainState, RoundRecord]]:
    """States before each round, and its record, by the plainest engine."""
    task = load_task(plan.job)
    engine = AttackedEngine(
        InlineEngine(task, lambda name: task.data(Site(name, {}))),
        attack_named("none"),
        frozenset(),
    )
    key = ReplayKey.of_seed(plan.job.seed)
    world = World(
        plan.job.name, BufferedEngine(engine, Turns()), MemoryLedger(plan.charges), MemoryJournal(),
        key, key, SITES,
    )  # fmt: skip
    params = task.initial(plan.job.seed)
    params.flags.writeable = False

    async def go() -> list[tuple[TrainState, RoundRecord]]:
        state, found = initial_state(plan, params), []
        for _ in range(COUNT):
            after, record = await run_round(plan, state, world)
            found.append((state, record))
            state = after
        return [*found, (state, found[-1][1])]

    return asyncio.run(go())


@asynccontextmanager
async def by_hand(
    place: Place, **more: Any
) -> AsyncIterator[tuple[Federation, str, Plan, dict[str, RawSite]]]:
    """A running job of six sites that do what the test does."""
    async with AsyncExitStack() as stack:
        federation = await stack.enter_async_context(running(place))
        sites = [await stack.enter_async_context(raw_site(place, name)) for name in SITES]
        for site in sites:
            await site.attend()
        job_id, plan = await federation.submit(job(**words(**more)))
        for site in sites:
            await site.take_offer()
        yield federation, job_id, plan, {site.name: site for site in sites}


@pytest.mark.parametrize("rule", ["geometric_median", "median", "krum"])
def test_the_same_arrivals_give_the_bits_of_a_simulation(place: Place, rule: str) -> None:
    async def whole() -> Any:
        async with by_hand(place, rule=rule, rounds=COUNT + 1) as (federation, job_id, plan, sites):
            found = await asyncio.to_thread(simulated, plan)
            held: dict[str, Parcel] = {}
            for _, record in found[:-1]:
                for name in SITES:
                    if name not in held:
                        held[name] = await sites[name].work()
                sent = [sites[name].deliver(held.pop(name)) for name in record.members]
                await asyncio.gather(*sent)
            said = await asyncio.to_thread(federation.remote.standing, job_id)
            again = await asyncio.to_thread(federation.remote.replay_standing, job_id)
            store = federation.coordinator.store
            return found, federation.records(job_id), said, again, store.standing_history(job_id, 0)

    found, records, said, again, history = asyncio.run(whole())
    expected = [record for _, record in found[:-1]]
    assert [r.members for r in records] == [r.members for r in expected]
    assert [r.ages for r in records] == [r.ages for r in expected]
    assert sum(len(r.ages) > 1 for r in expected) >= 3, "the test has no power"
    assert [r.model for r in records] == [r.model for r in expected]
    for entry, (state, _) in zip(history.entries, found[1:], strict=True):
        assert dict(entry.scores) == dict(state.standing.scores)
    standings = found[-1][0].standing.standings
    assert {c: s["recent"] for c, s in said["clients"].items()} == {
        c: list(s.recent) for c, s in standings.clients.items()
    }
    assert again["agrees"]
    assert again["rounds"] == COUNT


def test_what_was_taken_in_before_a_restart_is_sent_again_and_counts_once(place: Place) -> None:
    """Three of five were in the round, and a sixth was held; nobody had a receipt for it."""

    async def whole() -> Any:
        async with by_hand(place) as (federation, job_id, _, sites):
            first = {name: await site.work() for name, site in sites.items()}
            late = first.pop("kiel")
            await asyncio.gather(*(sites[name].deliver(p) for name, p in first.items()))
            second = {name: await sites[name].work() for name in first}
            sent = [sites["kiel"].deliver(late)]
            sent += [sites[name].deliver(second[name]) for name in ("bremen", "riga")]
            waiting = [asyncio.create_task(each) for each in sent]
            done, _ = await asyncio.wait(waiting, timeout=1.0)
            assert not done, "there is a receipt for what is not durable"
            assert members(federation, job_id, 1) == {}
        await asyncio.wait(waiting)
        assert all(task.cancelled() or task.exception() is not None for task in waiting)
        async with running(place) as again, AsyncExitStack() as stack:
            sites = {n: await stack.enter_async_context(raw_site(place, n)) for n in SITES}
            for site in sites.values():
                await site.attend()
                await site.take_offer()
            parcels = {**second, "kiel": late}
            names = ("kiel", "bremen", "riga", "danzig", "visby")
            await asyncio.gather(*(sites[name].deliver(parcels[name]) for name in names))
            for name in names:  # and once more: the same receipt, and no second count
                await sites[name].deliver(parcels[name])
            held = asyncio.create_task(sites["luebeck"].deliver(second["luebeck"]))
            for name in ("bremen", "danzig", "riga", "visby"):
                while (order := await sites[name].hear("work")).round.round != 2:
                    pass
                parcels[name] = await sites[name].prepared(order)
            await asyncio.gather(*(sites[n].deliver(parcels[n]) for n in names if n != "kiel"))
            await held
            await again.reached(job_id, 3)
            counted = [members(again, job_id, number) for number in range(3)]
            said = await asyncio.to_thread(again.remote.replay_standing, job_id)
            return late, counted, again.records(job_id), said

    late, counted, records, said = asyncio.run(whole())
    assert counted[1].keys() == {"kiel", "bremen", "riga", "danzig", "visby"}
    assert counted[1]["kiel"] == late.header.sha256
    assert counted[2].keys() == {"luebeck", "bremen", "riga", "danzig", "visby"}
    assert [r.ages for r in records] == [(5,), (4, 1), (4, 1)]
    hashes = [sha for each in counted for sha in each.values()]
    assert len(hashes) == len(set(hashes)) == 15
    assert said["agrees"]
    assert said["rounds"] == 3


@pytest.mark.parametrize("held", [False, True])
def test_who_is_quarantined_while_it_is_at_work_is_told_to_stop_and_does_not_count(
    place: Place, held: bool
) -> None:
    """Its update is on its way to a full buffer, or is sent in the next round."""

    async def whole() -> Any:
        async with by_hand(place) as (federation, job_id, _, sites):
            parcels = {name: await site.work() for name, site in sites.items()}
            late = parcels.pop("kiel")
            store = federation.coordinator.store

            def quarantined(connection: Any) -> None:
                _write(connection, job_id, {"kiel": Standing(State.QUARANTINED)})

            assert isinstance(store, StandingRows)
            await asyncio.to_thread(store.database.write, quarantined)
            names = list(parcels)
            sent = [asyncio.create_task(sites[n].deliver(parcels[n])) for n in names[:4]]
            await asyncio.sleep(0.3)
            last = asyncio.create_task(sites[names[4]].deliver(parcels[names[4]]))
            waiting = None
            if held:
                await asyncio.sleep(0.01)
                waiting = asyncio.create_task(sites["kiel"].deliver(late))
            await asyncio.gather(*sent, last)
            withdrawn = await sites["kiel"].hear("withdraw")
            with pytest.raises(RoundVoid, match=r"not count any more|not in the cohort|not asked"):
                await (waiting or sites["kiel"].deliver(late))
            again = {name: await sites[name].work() for name in names}
            await asyncio.gather(*(sites[name].deliver(again[name]) for name in names))
            return withdrawn, federation.records(job_id)

    withdrawn, records = asyncio.run(whole())
    assert withdrawn.round.round == 0
    assert withdrawn.reason == "what it was asked does not count any more"
    assert "kiel" in records[0].cohort
    assert [len(record.members) for record in records] == [5, 5]
    assert all("kiel" not in record.members for record in records)
    assert "kiel" not in records[1].cohort
    assert all(not record.dropouts for record in records)


KILLS, ROUNDS = 3, 24


def test_kills_lose_no_update_and_observe_each_round_once(tmp_path: Path) -> None:
    """`kill -9` of the coordinator, again and again: what counts has its receipt, and only that."""
    of = job(
        rounds=Rounds(count=ROUNDS, deadline=LONG),
        cohort=Cohort(population=6, sampler="arrival", buffer=5, concurrency=6),
        aggregation=Aggregation(rule="median", clip=1.0, weighting="uniform"),
        defend=Defend(standing=True),
    )
    folder = tmp_path / "federation"
    with LocalFederation(folder, name="hanse") as federation:
        federation.start_coordinator()
        for number, site in enumerate(SITES):
            federation.join(site, {"delay": 0.01 * (1 + number)}, [pack(of).digest])
            with (folder / site / NAME).open("a") as file:
                file.write("min_examples = 1\n")
            federation.start_site(site)
        federation.wait_for_sites(len(SITES))
        done = submit(of, federation.remote)
        for number in range(KILLS):
            ends = time.monotonic() + 2 * LONG
            while len(federation.remote.job(done.job)["rounds"]) < 3 + 4 * number:
                assert time.monotonic() < ends
                time.sleep(0.02)
            federation.kill("coordinator")
            federation.start_coordinator()
        ends = time.monotonic() + 4 * LONG
        while (status := federation.remote.job(done.job)["status"]) in ("offered", "running"):
            assert time.monotonic() < ends
            time.sleep(0.2)
        assert status == "done", federation.remote.job(done.job)["reason"]
        again = federation.remote.replay_standing(done.job)
        time.sleep(0.5)  # the sites write down what they heard
        settings = load_settings(federation.coordinator)
        with Store.open(store_url(federation.coordinator, settings)) as store:
            records = [r for r in store.records(done.job) if r.purpose is Purpose.TRAIN]
            counted = [_members(store, done.job, record) for record in records]
    assert [len(r.members) for r in records if not r.void] == [5] * ROUNDS
    assert [r.round for r in records if not r.void] == list(range(ROUNDS))
    hashes = [sha for each in counted for sha in each.values()]
    assert len(hashes) == len(set(hashes)), "an update counts twice"
    for site in SITES:
        said = [e for e in read(folder / site / LOG) if e.get("purpose") == "train"]
        left = {(e["round"], e["attempt"]): e["sha256"] for e in said if e["kind"] == "left"}
        got = [left[e["round"], e["attempt"]] for e in said if e["kind"] == "received"]
        assert len(got) == len(set(got))
        assert set(got) == {each[site] for each in counted if site in each}
    assert again["agrees"]
    assert again["rounds"] == len(records)


def _members(store: Store, job_id: str, record: RoundRecord) -> dict[str, str]:
    opening = Opening(record.purpose, record.round, record.attempt, (), "")
    fold = store.folded(job_id, opening)
    return {} if fold is None else dict(zip(fold.members, fold.receipts, strict=True))
