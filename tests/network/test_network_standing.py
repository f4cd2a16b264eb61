"""Standing over the network: hostile sites are quarantined, told, released, expelled, replayed."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import Any

import pytest

from hansa.attacks.catalogue import attack_named
from hansa.attacks.engine import AttackedEngine
from hansa.attacks.site import Attacking
from hansa.cli import main
from hansa.coordinator.rows import Status
from hansa.core.job import Aggregation, Cohort, Defend, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site
from hansa.core.plan import Plan
from hansa.core.round import TrainState, World
from hansa.core.train import initial_state, train
from hansa.defend import State
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import HansaError
from hansa.privacy.ledger import MemoryLedger
from hansa.site.agent import LOG, Agent
from hansa.site.logbook import read
from hansa.work.bundle import load_task
from tests.support.federation import LONG, Federation, Place, job, running
from tests.support.sitejob.task import SITES

HONEST = ("bremen", "danzig", "luebeck", "riga", "visby")
WORDS: dict[str, Any] = {
    "cohort": Cohort(population=6),
    "rounds": Rounds(count=8, deadline=LONG, quorum=5),
    "aggregation": Aggregation(rule="geometric_median", clip=1.0, weighting="uniform"),
    "defend": Defend(standing=True),
}


async def begun(federation: Federation, attack: str) -> Any:
    """All sites attend, kiel attacks; returns its agent."""
    await federation.agents(*HONEST)
    hostile = partial(Agent, contribution=Attacking(attack_named(attack)))
    agent = federation.agent("kiel", hostile)
    await federation.attending("kiel")
    return agent


def simulated(
    plan: Plan, attack: str, sites: tuple[str, ...] = SITES
) -> tuple[TrainState, MemoryJournal]:
    """The same run by the plainest engine."""
    task = load_task(plan.job)
    engine = AttackedEngine(
        InlineEngine(task, lambda name: task.data(Site(name, {}))),
        attack_named(attack),
        frozenset({"kiel"}),
        omniscient=False,
    )
    key, journal = ReplayKey.of_seed(plan.job.seed), MemoryJournal()
    world = World(plan.job.name, engine, MemoryLedger(plan.charges), journal, key, key, sites)
    params = task.initial(plan.job.seed)
    params.flags.writeable = False
    return asyncio.run(train(plan, initial_state(plan, params), world)), journal


@pytest.mark.parametrize("attack", ["sign_flip_5", "nan", "scaled"])
def test_a_hostile_site_is_quarantined_as_in_a_simulation_and_told(
    place: Place, attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def whole() -> Any:
        async with running(place) as federation:
            hostile = await begun(federation, attack)
            job_id, plan = await federation.submit(job(**WORDS))
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            said = await asyncio.to_thread(federation.remote.standing, job_id)
            again = await asyncio.to_thread(federation.remote.replay_standing, job_id)
            return plan, federation.records(job_id), federation.model(job_id), said, again, hostile

    plan, records, model, said, again, hostile = asyncio.run(whole())
    state, journal = simulated(plan, attack)
    assert model == state.model
    assert [r.cohort for r in records] == [r.cohort for r in journal.records]
    assert records[-1].cohort == HONEST
    assert said["clients"]["kiel"]["state"] == "quarantined"
    expected = [(c.client, c.round, c.after.value) for c in state.standing.changes]
    assert [(c["client"], c["round"], c["after"]) for c in said["changes"]] == expected
    assert again["agrees"]
    assert again["rounds"] == 8

    notices = [line for line in hostile.said if "this site is" in line]
    assert [line.split("this site is ")[1].split(":")[0] for line in notices] == [
        "watch and counts 0.5",
        "quarantined and counts 0",
    ]
    entries = [entry for entry in read(place.site("kiel") / LOG) if entry["kind"] == "standing"]
    assert [entry["state"] for entry in entries] == ["watch", "quarantined"]
    assert not any(e["kind"] == "standing" for e in read(place.site("riga") / LOG))
    logged = [r.getMessage() for r in caplog.records if r.name.startswith("hansa.coordinator")]
    assert not any("score" in line or "mean" in line for line in logged)


def test_a_coordinator_that_is_started_again_observes_each_round_once(place: Place) -> None:
    """It is stopped in the middle twice; the whole run is that of a simulation."""
    words = {**WORDS, "rounds": Rounds(count=9, deadline=LONG, quorum=5)}

    async def part(job_id: str | None, closed: int) -> Any:
        async with running(place) as federation:
            hostile = await begun(federation, "sign_flip_5")
            if job_id is None:
                job_id, plan = await federation.submit(job(**words))
            else:
                plan = None
            if closed:
                await federation.reached(job_id, closed)
                return job_id, plan, None, hostile.said
            await federation.ended(job_id)
            said = await asyncio.to_thread(federation.remote.standing, job_id)
            again = await asyncio.to_thread(federation.remote.replay_standing, job_id)
            return job_id, federation.model(job_id), (said, again), hostile.said

    job_id, plan, _, _ = asyncio.run(part(None, 2))
    asyncio.run(part(job_id, 6))
    _, model, (said, again), told = asyncio.run(part(job_id, 0))
    state, _ = simulated(plan, "sign_flip_5")
    assert model == state.model
    expected = state.standing.standings
    assert {c: s["rounds"] for c, s in said["clients"].items()} == {
        c: s.rounds for c, s in expected.clients.items()
    }
    assert said["clients"]["kiel"]["recent"] == list(expected["kiel"].recent)
    assert len(said["changes"]) == len(state.standing.changes) == 2
    assert again["agrees"]
    assert any("quarantined and counts 0" in line for line in told)  # when it attends again


def test_a_person_releases_a_site_and_expels_it(place: Place, capsys: Any) -> None:
    words = {**WORDS, "rounds": Rounds(count=400, deadline=LONG, quorum=5)}
    at = ["--coordinator", str(place.coordinator)]

    async def state_of(federation: Federation, job_id: str, wanted: str) -> None:
        async with asyncio.timeout(LONG):
            while True:
                said = await asyncio.to_thread(federation.remote.standing, job_id)
                if said["clients"].get("kiel", {}).get("state") == wanted:
                    return
                await asyncio.sleep(0.05)

    async def whole() -> None:
        async with running(place) as federation:
            hostile = await begun(federation, "sign_flip_5")
            job_id, _ = await federation.submit(job(**words))
            await state_of(federation, job_id, "quarantined")
            decide = federation.remote.decide_standing
            with pytest.raises(HansaError, match="needs a reason"):
                await asyncio.to_thread(decide, job_id, "kiel", "release", " ")
            with pytest.raises(HansaError, match="'riga' is trusted, not quarantined"):
                await asyncio.to_thread(decide, job_id, "riga", "expel", "why not")
            release = ["standing", "release", job_id, "kiel", "--reason", "repaired", *at]
            assert await asyncio.to_thread(main, release) == 0
            assert "watched from the next round on" in capsys.readouterr().out
            await state_of(federation, job_id, "quarantined")  # it lies on
            expel = ["standing", "expel", job_id, "kiel", "--reason", "it lies", *at]
            assert await asyncio.to_thread(main, expel) == 0
            with pytest.raises(HansaError, match="revoked: it lies"):
                await hostile.task
            show = ["standing", "show", job_id, *at]
            assert await asyncio.to_thread(main, show) == 0
            told = capsys.readouterr().out
            assert "kiel watch -> quarantined" in told
            assert "quarantined -> watch by operator: repaired" in " ".join(told.split())
            assert "quarantined -> expelled by operator: it lies" in " ".join(told.split())
            assert all(len(line) <= 80 for line in told.splitlines())
            assert await asyncio.to_thread(main, ["standing", "show", job_id, *at, "--json"]) == 0
            said = json.loads(capsys.readouterr().out)
            assert said["clients"]["kiel"]["weight"] == 0
            assert State(said["clients"]["kiel"]["state"]) is State.EXPELLED
            assert await asyncio.to_thread(main, ["standing", "replay", job_id, *at]) == 0
            assert "All agrees" in capsys.readouterr().out
            sites = await asyncio.to_thread(federation.remote.sites)
            assert [s["name"] for s in sites if s["revoked"]] == ["kiel"]
            assert [s for s in hostile.said if "watch and counts 0.5: repaired" in s]

    asyncio.run(whole())


def test_a_job_without_standing_says_so(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            await federation.agents("bremen", "danzig", "kiel")
            job_id, _ = await federation.submit(job())
            await federation.ended(job_id)
            for ask in (federation.remote.standing, federation.remote.replay_standing):
                with pytest.raises(HansaError, match="have no standing"):
                    await asyncio.to_thread(ask, job_id)

    asyncio.run(whole())


def test_a_replay_that_differs_ends_with_code_2(place: Place, capsys: Any) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            await begun(federation, "nan")
            job_id, _ = await federation.submit(job(**WORDS))
            await federation.ended(job_id)
            database = federation.coordinator.store.database
            from sqlalchemy import delete

            from hansa.coordinator import schema

            table = schema.standings
            database.write(lambda c: c.execute(delete(table).where(table.c.client == "kiel")))
            at = ["--coordinator", str(place.coordinator)]
            assert await asyncio.to_thread(main, ["standing", "replay", job_id, *at]) == 2
            told = capsys.readouterr()
            assert "'kiel' is recorded as trusted and is quarantined" in " ".join(told.out.split())
            assert "does not follow from its scores" in " ".join(told.err.split())

    asyncio.run(whole())
