"""Correlated noise over the network: one key for a job, kept through restarts, then gone."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete, select

from hansa.coordinator import schema
from hansa.coordinator.noise_keys import forget, noise_of
from hansa.coordinator.rows import Status
from hansa.core.job import Aggregation, Cohort, Job, Privacy, Rounds
from hansa.errors import HansaError
from tests.support.federation import LONG, Federation, Place, job, running
from tests.support.sitejob.task import SITES

FOUR = SITES[:4]


def correlated(count: int = 4) -> Job:
    return job(
        cohort=Cohort(population=4, sampler="cyclic", separation=2),
        rounds=Rounds(count=count, deadline=LONG, quorum=2),
        privacy=Privacy(mechanism="correlated", clip=1.0, noise_multiplier=2.0, delta=1e-5),
        aggregation=Aggregation(weighting="uniform"),
    )


def keys(federation: Federation) -> dict[str, str]:
    table = schema.noise_keys
    rows = federation.coordinator.store.database.read(lambda c: c.execute(select(table)).all())
    return {row.job: row.key for row in rows}


def test_a_job_has_one_key_while_it_runs_and_none_afterwards(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            agents = await federation.agents(*FOUR)
            job_id, _ = await federation.submit(correlated(60))
            await federation.reached(job_id, 2)
            before = keys(federation)
            assert before.keys() == {job_id}
            assert len(bytes.fromhex(before[job_id])) == 32
            for agent in agents:
                await agent.stop()
        async with running(place) as federation:
            assert keys(federation) == before
            agents = await federation.agents(*FOUR)
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            assert not keys(federation)
            for agent in agents:
                await agent.stop()

    asyncio.run(whole())


def test_a_run_whose_noise_is_lost_ends(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            agents = await federation.agents(*FOUR)
            job_id, _ = await federation.submit(correlated(80))
            await federation.reached(job_id, 2)
            for agent in agents:
                await agent.stop()
        async with running(place) as federation:
            pass  # the store is closed in order
        from hansa.coordinator.config import store_url
        from hansa.coordinator.store import Store

        with Store.open(store_url(place.coordinator, place.settings)) as store:
            store.database.write(lambda c: c.execute(delete(schema.noise_keys)))
        async with running(place) as federation:
            agents = await federation.agents(*FOUR)
            row = await federation.ended(job_id)
            assert row.status is Status.FAILED
            assert "noise" in row.reason
            assert "lost" in row.reason
            for agent in agents:
                await agent.stop()

    asyncio.run(whole())


def test_keys_are_fresh_and_each_jobs_own(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            database = federation.coordinator.store.database
            one, _ = await federation.submit(correlated())
            two, _ = await federation.submit(correlated())
            first = noise_of(database, one, begun=False)
            assert noise_of(database, one, begun=True) == first
            assert noise_of(database, two, begun=False) != first
            forget(database, one)
            with pytest.raises(HansaError, match="lost") as caught:
                noise_of(database, one, begun=True)
            assert caught.value.fix
            assert noise_of(database, one, begun=False) != first

    asyncio.run(whole())
