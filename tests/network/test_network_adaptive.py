"""A norm bound that adapts over the network: sites are told it, restarts remember it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.rows import Status
from hansa.core.job import (
    Aggregation,
    Cohort,
    Job,
    Privacy,
    Quantization,
    Rounds,
    SecureAggregation,
)
from hansa.work.bundle import load_task
from tests.support.federation import LONG, Place, job, running
from tests.support.sitejob.task import SITES

FOUR = SITES[:4]
START = 1e-5


def adapting(count: int = 3, **words: Any) -> Job:
    usual: dict[str, Any] = {
        "cohort": Cohort(population=len(FOUR)),
        "rounds": Rounds(count=count, deadline=LONG, quorum=4),
        "privacy": Privacy(
            mechanism="gaussian",
            clip=START,
            noise_multiplier=0.3,
            delta=1e-5,
            clip_quantile=0.5,
            clip_noise=0.16,
        ),
        "aggregation": Aggregation(weighting="uniform"),
    }
    return job(**{**usual, **words})


MASKED: dict[str, Any] = {
    "quantization": Quantization(step=2.0**-12, bits=24),
    "secure_aggregation": SecureAggregation(enabled=True, corrupt=0.25),
}


@pytest.mark.parametrize("words", [{}, MASKED], ids=["plain", "masked"])
def test_sites_clip_to_the_bound_that_they_are_told(module_place: Place, words) -> None:
    async def whole() -> None:
        async with running(module_place) as federation:
            agents = await federation.agents(*FOUR)
            wanted = adapting(**words)
            job_id, plan = await federation.submit(wanted)
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            state = federation.coordinator.store.state(job_id)
            blobs = Blobs(module_place.coordinator / "blobs")
            assert state is not None
            # Nobody is within so small a bound, and the count is almost exact, so it grows by
            # exp(0.2 * 0.5) a round.
            assert state.clip == pytest.approx(START * np.exp(0.1) ** 3, rel=0.08)
            first = load_task(wanted).initial(plan.job.seed)
            moved = np.linalg.norm(blobs.mapped(state.model_sha256, np.dtype("<f4")) - first)
            assert 0.5 * START < moved < 3 * START * np.exp(0.3)
            for agent in agents:
                await agent.stop()

    asyncio.run(whole())


def test_a_coordinator_that_is_started_again_goes_on_with_the_bound(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            agents = await federation.agents(*FOUR)
            job_id, _ = await federation.submit(adapting(count=40))
            await federation.reached(job_id, 5)
            for agent in agents:
                await agent.stop()
        async with running(place) as federation:
            store = federation.coordinator.store
            before = store.state(job_id)
            assert before is not None
            assert before.clip == pytest.approx(START * np.exp(0.1) ** before.round, rel=0.2)
            agents = await federation.agents(*FOUR)
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            after = store.state(job_id)
            assert after is not None
            assert after.clip is not None
            assert after.clip == pytest.approx(START * np.exp(0.1) ** 40, rel=0.4)
            for agent in agents:
                await agent.stop()

    asyncio.run(whole())


def test_the_bound_is_part_of_the_masked_session() -> None:
    """Sites that were told different bounds make no sum together."""
    from hansa.core.contribute import Purpose
    from hansa.engines.masking import session_of
    from hansa.recipes import compile_plan
    from hansa.stages.mask import mask_of

    plan = compile_plan(adapting(**MASKED))
    mask = mask_of(plan)
    assert mask is not None

    def session(clip: float | None):
        return session_of(
            plan, mask, Purpose.TRAIN, (0, 0), "ab", federation="hanse", job="j", clip=clip
        )

    assert session(0.1).digest == session(0.1).digest
    assert len({session(clip).digest for clip in (None, 0.1, 0.1000001)}) == 3
