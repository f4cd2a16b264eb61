"""Noise that sites add themselves: fresh at each site, and only in the sum that is unmasked."""

from __future__ import annotations

import asyncio

import numpy as np

from hansa.coordinator.rows import Status
from hansa.core.job import Aggregation, Cohort, Job, Privacy, Rounds, SecureAggregation
from hansa.core.keys import NoiseSource, ReplayKey
from hansa.core.plan import Plan
from tests.support.federation import LONG, Place, expected, job, running
from tests.support.sitejob.task import SITES

FOUR = SITES[:4]


def shared_job() -> Job:
    return job(
        cohort=Cohort(population=len(FOUR)),
        rounds=Rounds(count=2, deadline=LONG, quorum=4),
        privacy=Privacy(mechanism="distributed", clip=1.0, epsilon=20.0, delta=0.01),
        aggregation=Aggregation(weighting="uniform"),
        secure_aggregation=SecureAggregation(enabled=True, corrupt=0.25),
    )


def test_two_runs_of_one_job_differ_by_noise_that_nobody_can_repeat(module_place: Place) -> None:
    async def whole() -> tuple[Plan, list[str]]:
        async with running(module_place) as federation:
            agents = await federation.agents(*FOUR)
            models, plan = [], None
            for _ in range(2):
                job_id, plan = await federation.submit(shared_job())
                row = await federation.ended(job_id)
                assert (row.status, row.reason) == (Status.DONE, "")
                records = federation.records(job_id)
                assert [len(r.members) for r in records] == [4, 4]
                models.append(federation.model(job_id))
            for agent in agents:
                await agent.stop()
            assert plan is not None
            return plan, models

    plan, models = asyncio.run(whole())
    simulated = expected(plan)[0].model
    assert len({*models, simulated}) == 3


def test_a_site_draws_from_the_system_and_a_simulation_from_the_seed() -> None:
    key, source = ReplayKey.of_seed(0), NoiseSource()
    assert (key.words("noise", "delta")(9) == key.words("noise", "delta")(9)).all()
    assert not np.array_equal(source.words("noise", "delta")(9), source.words("noise", "delta")(9))
