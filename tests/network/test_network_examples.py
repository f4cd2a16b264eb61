"""Single examples hidden in a federation that runs: whose noise, whose ledger, whose refusal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from hansa.algorithms import fedavg
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
from hansa.site.agent import LOG
from hansa.site.config import NAME as SITE
from hansa.site.logbook import read
from hansa.site.spending import NAME, standings
from tests.support.budgets import block
from tests.support.federation import LONG, Federation, Place, job, running

PRIVATE = Privacy(unit="example", mechanism="dpsgd", clip=1.0, epsilon=8.0, delta=1e-3, examples=20)
LARGE = ("kiel", "luebeck", "visby")
"""Sites with at least 20 training examples."""


def private(**words: Any) -> Job:
    usual: dict[str, Any] = {
        "privacy": PRIVATE,
        "algorithm": fedavg(client_lr=0.5, local_steps=3, batch_size=8),
        "rounds": Rounds(count=2, deadline=LONG, quorum=3),
        "cohort": Cohort(population=3),
    }
    return job(**{**usual, **words})


def run(place: Place, test: Callable[[Federation], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            await test(federation)

    asyncio.run(whole())


def set_budget(place: Place, site: str, epsilon: float) -> None:
    path = place.site(site) / SITE
    lines = f'[budget]\nname = "patients"\nepsilon = {epsilon}\ndelta = 1e-3\n'
    path.write_text(path.read_text() + lines)


async def finished(federation: Federation, wanted: Job, *sites: str) -> tuple[str, Any]:
    if not federation.coordinator.roster.present:
        await federation.agents(*(sites or LARGE))
    name, _ = await federation.submit(wanted)
    return name, await federation.ended(name)


def test_each_site_spends_its_own_budget_and_noise_is_fresh(place: Place) -> None:
    """Two equal jobs: twice the price, also after a restart, and never the same model."""
    set_budget(place, "kiel", 30.0)
    models: list[str] = []

    async def once(federation: Federation) -> None:
        name, row = await finished(federation, private())
        assert row.status is Status.DONE, row.reason
        assert [r.metrics for r in federation.records(name)] == [{}, {}]
        models.append(federation.model(name))

    run(place, once)
    (first,) = standings(place.site("kiel"))
    run(place, once)
    (second,) = standings(place.site("kiel"))
    assert len(set(models)) == 2
    assert second.account.spent == 2 * first.account.spent
    assert sorted(second.jobs.values()) == [2, 2]
    assert 8.0 < second.epsilon <= 30.0
    assert not (place.site("visby") / NAME).exists()
    left = [e for e in read(place.site("kiel") / LOG) if e["kind"] == "left"]
    assert len(left) == 4
    assert all("one training example of one client" in " ".join(e["guarantees"]) for e in left)


def test_a_job_that_does_not_fit_is_refused_by_the_site_that_would_pay(place: Place) -> None:
    set_budget(place, "kiel", 5.0)

    async def test(federation: Federation) -> None:
        name, row = await finished(federation, private())
        assert row.status is Status.REFUSED
        (decision,) = [d for d in federation.coordinator.store.decisions(name) if d.site == "kiel"]
        assert "this site's [budget] 'patients' has room for" in decision.reason
        assert standings(place.site("kiel")) == ()
        cheap = private(privacy=replace(PRIVATE, epsilon=1.0))
        _, row = await finished(federation, cheap)
        assert row.status is Status.DONE, row.reason
        (standing,) = standings(place.site("kiel"))
        assert standing.epsilon <= 5.0

    run(place, test)


def test_a_site_with_too_few_examples_refuses_and_tells_no_number(place: Place) -> None:
    async def test(federation: Federation) -> None:
        name, row = await finished(federation, private(), "kiel", "riga", "visby")
        assert row.status is Status.REFUSED
        (decision,) = [d for d in federation.coordinator.store.decisions(name) if not d.accepted]
        assert decision.site == "riga"
        assert "fewer than the 20 training examples" in decision.reason
        assert "11" not in decision.reason

    run(place, test)


def test_a_job_of_another_kind_may_not_run_where_a_site_counts_examples(place: Place) -> None:
    set_budget(place, "kiel", 30.0)

    async def test(federation: Federation) -> None:
        wanted = job(rounds=Rounds(count=1, deadline=LONG, quorum=3))
        name, row = await finished(federation, wanted)
        assert row.status is Status.REFUSED
        reasons = {d.site: d.reason for d in federation.coordinator.store.decisions(name)}
        assert "counts nothing by example" in reasons["kiel"]
        assert not reasons["visby"]

    run(place, test)


def test_an_update_of_too_few_examples_does_not_leave_without_noise(place: Place) -> None:
    place.write_site("riga", min_examples=12)  # it has 11

    async def test(federation: Federation) -> None:
        wanted = job(rounds=Rounds(count=1, deadline=LONG, quorum=3))
        name, row = await finished(federation, wanted, "kiel", "riga", "visby")
        assert row.status is Status.REFUSED
        reasons = {d.site: d.reason for d in federation.coordinator.store.decisions(name)}
        assert "fewer training examples than policy.min_examples = 12" in reasons["riga"]
        assert "11" not in reasons["riga"]

    run(place, test)


def test_a_site_chooses_whose_data_a_guarantee_must_hide(place: Place) -> None:
    place.write_site("kiel", units=["client"])

    async def test(federation: Federation) -> None:
        name, row = await finished(federation, private())
        assert row.status is Status.REFUSED
        reasons = {d.site: d.reason for d in federation.coordinator.store.decisions(name)}
        assert "hides one example, which is not among policy.units" in reasons["kiel"]

    run(place, test)


def test_the_coordinators_budgets_cannot_count_what_only_sites_know(place: Place) -> None:
    async def test(federation: Federation) -> None:
        federation.coordinator.store.budgets.create(block(), 1.0)
        _, row = await finished(federation, private())
        assert row.status is Status.REFUSED
        assert "whose noise and rates only its sites know" in row.reason

    run(place, test)


def test_under_masks_the_site_is_charged_all_the_same(place: Place) -> None:
    set_budget(place, "visby", 30.0)
    masked = private(
        secure_aggregation=SecureAggregation(enabled=True, corrupt=0.1, dropouts=0.1),
        quantization=Quantization(step=1e-3),
        aggregation=Aggregation(weighting="uniform", clip=2.0),
    )

    async def test(federation: Federation) -> None:
        name, row = await finished(federation, masked)
        assert row.status is Status.DONE, row.reason
        (standing,) = standings(place.site("visby"))
        assert standing.jobs == {name: 2}
        left = [e for e in read(place.site("visby") / LOG) if e["kind"] == "left"]
        assert all(e["masked"] for e in left)

    run(place, test)


def test_an_order_that_is_repeated_is_charged_until_the_plan_is_used_up(place: Place) -> None:
    """A coordinator that forgets what it has asks again: fresh noise each time, and an end."""
    set_budget(place, "kiel", 100.0)

    async def test(federation: Federation) -> None:
        name, row = await finished(federation, private())
        assert row.status is Status.DONE, row.reason
        turns = json.loads((place.site("kiel") / "turns.json").read_text())
        assert turns[name][2] == 2

    run(place, test)
    from hansa.errors import PolicyRefused
    from hansa.recipes import compile_plan
    from hansa.site.turns import Turns

    plan = compile_plan(private())
    with pytest.raises(PolicyRefused, match=r"2 updates of job .* have left"):
        Turns(place.site("kiel")).check(
            plan, next(iter(standings(place.site("kiel"))[0].jobs)), "train", 1
        )
