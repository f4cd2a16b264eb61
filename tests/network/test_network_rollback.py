"""Going back over the network: a masked sum is spoiled, and the last accepted model is taken up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hansa.algorithms import fedavgm
from hansa.coordinator.rows import Status
from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Defend, Quantization, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord, TrainState, World
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.local.federation import LocalFederation
from hansa.news import event_words
from hansa.privacy.ledger import MemoryLedger
from hansa.site.agent import Agent
from hansa.submission import submit
from hansa.work.bundle import load_task, pack
from tests.support.federation import LONG, Federation, Place, outcome, running
from tests.support.masked import FOUR, masked_job
from tests.support.spoiled import REVERSED, Spoiled, Spoiling

BAD = "kiel"
WORDS: dict[str, Any] = {
    "rounds": Rounds(count=7, deadline=LONG, quorum=4, watch="loss"),
    "aggregation": Aggregation(clip=30.0, max_weight=40.0),
    "quantization": Quantization(step=1e-3),
    "algorithm": fedavgm(server_momentum=0.3, client_lr=0.5, local_epochs=2, batch_size=8),
    "defend": Defend(rollback=0.1),
}


def simulated(
    plan: Plan, bad: frozenset[int], sites: tuple[str, ...] = FOUR
) -> tuple[TrainState, list[RoundRecord]]:
    """The same run in one process, without masks."""
    task = load_task(plan.job)
    inline = InlineEngine(task, lambda name: task.data(Site(name, {})), masked=False)
    engine, journal = Spoiled(inline, BAD, bad), MemoryJournal()
    key = ReplayKey.of_seed(plan.job.seed)
    world = World(plan.job.name, engine, MemoryLedger(plan.charges), journal, key, key, sites)
    params = task.initial(plan.job.seed)
    params.flags.writeable = False
    state = asyncio.run(train(plan, initial_state(plan, params), world))
    return state, journal.records


async def attending(federation: Federation, bad: frozenset[int]) -> None:
    await federation.agents(*(site for site in FOUR if site != BAD))
    federation.agent(BAD, partial(Agent, contribution=Spoiling(bad, REVERSED)))
    await federation.attending(BAD)


@pytest.mark.parametrize("bad", [frozenset({2}), frozenset({2, 6})], ids=["once", "and at the end"])
def test_a_spoiled_round_is_taken_back_as_in_a_simulation(
    place: Place, bad: frozenset[int]
) -> None:
    async def whole() -> Any:
        async with running(place) as federation:
            await attending(federation, bad)
            job_id, plan = await federation.submit(masked_job(**WORDS))
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            said = await asyncio.to_thread(federation.remote.job, job_id)
            model = await asyncio.to_thread(federation.remote.model, job_id)
            events = federation.coordinator.store.events(job_id)
            federation.coordinator.store.verify_events()
            charges = federation.coordinator.store.records(job_id)
            return plan, charges, federation.model(job_id), said, model, events

    plan, records, sha256, said, model, events = asyncio.run(whole())
    state, expected = simulated(plan, bad)
    assert outcome(records) == outcome(expected)
    assert [r.rejected for r in records] == [r.rejected for r in expected]
    assert [r.round for r in records if r.rejected] == [number + 1 for number in sorted(bad)]
    assert sha256 == state.model == said["model_sha256"]
    assert model == state.params.tobytes()
    if 6 in bad:
        assert records[-1].purpose is Purpose.EVALUATE
        assert records[-1].rejected is not None
    told = [r["rejected"] for r in said["rounds"] if r["rejected"] is not None]
    assert [t["back"] for t in told] == [r.rejected.back for r in records if r.rejected]
    news = [
        event_words({"kind": e.kind, "body": e.body}) for e in events if e.kind == "model.rejected"
    ]
    assert len(news) == len(bad)
    assert news[0].startswith("round 3: the model is rejected: loss ")
    assert news[0].endswith("by more than 0.1; on from the model that round 2 started from")


def test_started_again_between_the_rejection_and_the_next_round_it_goes_on_the_same(
    place: Place,
) -> None:
    """The coordinator stops after the round that was spoiled, and after the one that showed it."""
    bad = frozenset({2})

    async def part(job_id: str | None, closed: int) -> Any:
        async with running(place) as federation:
            await attending(federation, bad)
            plan = None
            if job_id is None:
                job_id, plan = await federation.submit(masked_job(**WORDS))
            if closed:
                await federation.reached(job_id, closed)
                return job_id, plan, None, None
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            return job_id, plan, federation.model(job_id), federation.records(job_id)

    job_id, plan, _, _ = asyncio.run(part(None, 3))
    asyncio.run(part(job_id, 4))
    _, _, model, records = asyncio.run(part(job_id, 0))
    state, expected = simulated(plan, bad)
    trained = [r for r in records if not r.void]  # a stop can make an attempt under masks void
    assert model == state.model
    assert [replace(r, seconds=0, attempt=0) for r in trained] == [
        replace(r, seconds=0) for r in expected
    ]


KILLS, ROUNDS = 3, 14


def test_killed_again_and_again_it_ends_with_the_model_of_a_simulation(tmp_path: Path) -> None:
    """One site attacks in every round, so that every other round goes back; no masks, so that
    a kill costs no attempt."""
    of = masked_job(
        masks=False,
        **{
            **WORDS,
            "rounds": Rounds(count=ROUNDS, deadline=LONG, quorum=4, watch="loss"),
            "defend": Defend(rollback=0.01),
        },
    )
    with LocalFederation(tmp_path / "federation", name="hanse") as federation:
        federation.start_coordinator()
        sites = ("bremen", BAD, "luebeck", "riga")
        for site in sites:
            federation.join(site, {"delay": 0.03}, [pack(of).digest])
            settings = tmp_path / "federation" / site / "site.toml"
            settings.write_text(
                settings.read_text().replace("[policy]", "[policy]\nmin_examples = 1")
            )
            if site == BAD:
                federation.start_hostile_site(site, "sign_flip_5")
            else:
                federation.start_site(site)
        federation.wait_for_sites(len(sites))
        done = submit(of, federation.remote)
        for number in range(KILLS):
            ends = time.monotonic() + 2 * LONG
            while len(federation.remote.job(done.job)["rounds"]) < 2 + 3 * number:
                assert time.monotonic() < ends
                time.sleep(0.02)
            federation.kill("coordinator")
            federation.start_coordinator()
        ends = time.monotonic() + 4 * LONG
        while (status := federation.remote.job(done.job)["status"]) in ("offered", "running"):
            assert time.monotonic() < ends
            time.sleep(0.2)
        whole = federation.remote.job(done.job)
        assert status == "done", whole["reason"]
    from hansa.attacks.catalogue import attack_named

    task = load_task(done.plan.job)
    inline = InlineEngine(task, lambda name: task.data(Site(name, {})), masked=False)
    always = Spoiled(inline, BAD, frozenset(range(ROUNDS)), attack_named("sign_flip_5"))
    key, journal = ReplayKey.of_seed(done.plan.job.seed), MemoryJournal()
    ledger = MemoryLedger(done.plan.charges)
    world = World(done.plan.job.name, always, ledger, journal, key, key, sites)
    params = task.initial(done.plan.job.seed)
    params.flags.writeable = False
    state = asyncio.run(train(done.plan, initial_state(done.plan, params), world))
    assert sum(record.rejected is not None for record in journal.records) >= 3
    assert whole["model_sha256"] == state.model
    assert [r["model"] for r in whole["rounds"]] == [r.model for r in journal.records]
    assert [r["rejected"] is not None for r in whole["rounds"]] == [
        r.rejected is not None for r in journal.records
    ]
