"""Robust rules over masked groups across the network: the same bits as in a loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hansa.coordinator.rows import Status
from hansa.core.job import Aggregation, Cohort, Job, Quantization, Rounds, SecureAggregation
from hansa.site.config import NAME
from tests.support.federation import LONG, Place, expected, job, outcome, running
from tests.support.sitejob.task import SITES

SIX = SITES[:6]


def grouped(**words: Any) -> Job:
    return job(
        **{
            "cohort": Cohort(population=len(SIX)),
            "rounds": Rounds(count=2, deadline=LONG, quorum=6),
            "aggregation": Aggregation(rule="median", clip=1.0, max_weight=40.0),
            "quantization": Quantization(step=1e-5),
            "secure_aggregation": SecureAggregation(enabled=True, groups=3),
            **words,
        }
    )


@pytest.mark.parametrize("rule", ["median", "mean"])
def test_three_groups_of_two_give_the_bits_of_a_loop(place: Place, rule: str) -> None:
    """The mean beside it shows that one sum over all still goes its way."""
    whole_sum = {
        "aggregation": Aggregation(clip=1.0, max_weight=40.0),
        "secure_aggregation": SecureAggregation(enabled=True),
    }
    for site in SIX:
        with (place.site(site) / NAME).open("a", encoding="utf-8") as file:
            file.write("[secure_aggregation]\nmin_cohort = 2\n")

    async def whole() -> Any:
        async with running(place) as federation:
            await federation.agents(*SIX)
            job_id, plan = await federation.submit(grouped(**(whole_sum if rule == "mean" else {})))
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            return plan, federation.records(job_id), federation.model(job_id)

    plan, records, model = asyncio.run(whole())
    state, simulated = expected(plan)
    assert model == state.model
    assert outcome(records) == outcome(simulated)
    assert [len(record.members) for record in records] == [6, 6, 6]
