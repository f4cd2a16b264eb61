"""A plan gives the same bits over the network as in a loop, in whatever order sites answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from hansa.algorithms import fedadam
from hansa.coordinator.rows import Status
from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Cohort, Quantization, Rounds
from hansa.core.plan import Plan
from hansa.core.round import Opening, RoundRecord
from tests.support.federation import LONG, Place, expected, job, outcome, running
from tests.support.sitejob.task import SITES

FIVE = {"cohort": Cohort(population=5)}
JOBS: dict[str, dict[str, Any]] = {
    "float": {**FIVE, "algorithm": fedadam(client_lr=0.3, server_lr=0.05, batch_size=8)},
    "ring of 32 bits": {
        **FIVE,
        "aggregation": Aggregation(clip=1.0, max_weight=40.0),
        "quantization": Quantization(step=1e-4),
    },
    "ring of 24 bits": {
        **FIVE,
        "aggregation": Aggregation(clip=1.0, max_weight=20.0),
        "quantization": Quantization(step=1e-2, bits=24),
    },
    "median": {
        **FIVE,
        "aggregation": Aggregation(rule="median", weighting="uniform"),
        "rounds": Rounds(count=3, deadline=LONG, quorum=5),
    },
    "multi-Krum over mixed updates": {
        **FIVE,
        "aggregation": Aggregation(rule="multi_krum", mixing="nearest"),
        "rounds": Rounds(count=3, deadline=LONG, quorum=5),
    },
    "capped weights": {**FIVE, "aggregation": Aggregation(max_weight=20.0)},
    "uniform weights": {**FIVE, "aggregation": Aggregation(weighting="uniform")},
    "fair weights": {**FIVE, "aggregation": Aggregation(fairness=1.5, max_weight=30.0)},
    "the worst mixture": {**FIVE, "aggregation": Aggregation(rule="agnostic", tail=0.4)},
    "every second round measured": {
        **FIVE,
        "evaluate_every": 2,
        "rounds": Rounds(count=3, deadline=LONG),
    },
    "several chunks": {**FIVE, "task": "Wide"},
}
DELAYS: tuple[dict[str, float], ...] = ({"riga": 0.04}, {"bremen": 0.04, "danzig": 0.02})


@dataclass(frozen=True)
class Ran:
    """One job that ran over the network."""

    plan: Plan
    records: list[RoundRecord]
    model: str
    order: list[tuple[str, ...]]


@pytest.fixture(scope="module")
def ran(module_place: Place) -> dict[str, list[Ran]]:
    """Every job with every delay; the jobs of one delay run at the same time."""
    found: dict[str, list[Ran]] = {name: [] for name in JOBS}

    async def whole() -> None:
        async with running(module_place) as federation:
            for delays in DELAYS:
                for site in SITES[:5]:
                    module_place.write_site(site, {"delay": delays.get(site, 0.0)})
                agents = await federation.agents(*SITES[:5])
                submitted = {name: await federation.submit(job(**w)) for name, w in JOBS.items()}
                for name, (job_id, plan) in submitted.items():
                    row = await federation.ended(job_id)
                    assert (row.status, row.reason) == (Status.DONE, "")
                    records, store = federation.records(job_id), federation.coordinator.store
                    folds = [store.folded(job_id, _opening(record)) for record in records]
                    order = [fold.members for fold in folds if fold is not None]
                    found[name].append(Ran(plan, records, federation.model(job_id), order))
                for agent in agents:
                    await agent.stop()

    asyncio.run(whole())
    return found


def _opening(record: RoundRecord) -> Opening:
    return Opening(record.purpose, record.round, record.attempt, record.cohort, "")


@pytest.mark.parametrize("name", JOBS)
def test_parameters_and_metrics_are_those_of_the_inline_engine(
    ran: dict[str, list[Ran]], name: str
) -> None:
    state, records = expected(ran[name][0].plan)
    for one in ran[name]:
        assert outcome(one.records) == outcome(records)
        assert one.model == state.model
    last = ran[name][0].records[-1]
    assert last.purpose is Purpose.EVALUATE
    assert None not in (last.metrics[name] for name in ("loss", "accuracy", "auroc"))


def test_updates_arrived_in_different_orders(ran: dict[str, list[Ran]]) -> None:
    """Without this the test above would say little."""
    for name in JOBS.keys() - {"median", "multi-Krum over mixed updates"}:
        assert len({order for one in ran[name] for order in one.order}) > 1
