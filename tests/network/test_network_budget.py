"""Budgets across jobs in a federation that runs: held before the first client is contacted."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from hansa.budget.audit import verify_export
from hansa.budget.cost import need
from hansa.budget.rules import Account
from hansa.coordinator.rows import JobRow
from hansa.core.job import Aggregation, Job, Privacy, Rounds
from hansa.errors import HansaError
from hansa.recipes import compile_plan
from tests.support.budgets import PRIVATE, block
from tests.support.federation import LONG, Federation, Place, job, running
from tests.support.sitejob.task import SITES


def private(rounds: int = 2, **privacy: Any) -> Job:
    return job(
        rounds=Rounds(count=rounds, deadline=LONG),
        privacy=replace(PRIVATE, **privacy),
        aggregation=Aggregation(weighting="uniform"),
        risk_tier="low",
    )


def run(place: Place, test: Callable[[Federation], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            await test(federation)

    asyncio.run(whole())


async def finished(federation: Federation, wanted: Job) -> JobRow:
    if not federation.coordinator.roster.present:
        await federation.agents(*SITES[: wanted.cohort.population])  # no race for the places
    name, _ = await federation.submit(wanted)
    return await federation.ended(name)


def account(federation: Federation) -> Account:
    (standing,) = federation.coordinator.store.budgets.standings()
    return standing.account


def test_a_job_holds_spends_and_settles(place: Place) -> None:
    cost = need(compile_plan(private()), 4)

    async def test(federation: Federation) -> None:
        budgets = federation.coordinator.store.budgets
        budgets.create(block(), 1.0)
        row = await finished(federation, private())
        assert row.status == "done", row.reason
        found = account(federation)
        assert (found.held, found.reserved, found.committed) == (0, 0, cost.urdp)
        kinds = [json.loads(e.entry)["kind"] for e in budgets.entries()]
        assert kinds == ["create", "hold", *["reserve", "commit"] * 2, "settle"]
        trail = [e.kind for e in federation.coordinator.store.events(row.id)]
        assert trail.index("job.budget") < trail.index("round.opened")
        budgets.verify()

    run(place, test)


def test_a_job_that_does_not_fit_is_refused_before_anybody_is_contacted(place: Place) -> None:
    async def test(federation: Federation) -> None:
        federation.coordinator.store.budgets.create(block(epsilon=4.0), 1.0)
        row = await finished(federation, private(rounds=50))
        assert row.status == "refused"
        assert "the privacy budget 'patients' has" in row.reason
        assert "of its 50 releases would fit" in row.reason
        assert account(federation).spent == account(federation).held == 0
        assert "round.opened" not in [e.kind for e in federation.coordinator.store.events(row.id)]

    run(place, test)


def test_a_job_without_privacy_is_refused_where_a_budget_covers_it(place: Place) -> None:
    async def test(federation: Federation) -> None:
        federation.coordinator.store.budgets.create(block(owner="kiel"), 1.0)
        row = await finished(federation, job())
        assert row.status == "refused"
        assert "has no differential privacy" in row.reason

    run(place, test)


def test_a_job_that_no_budget_covers_runs_and_its_events_say_so(place: Place) -> None:
    async def test(federation: Federation) -> None:
        federation.coordinator.store.budgets.create(block(purpose="lung"), 1.0)
        row = await finished(federation, job())
        assert row.status == "done"
        (said,) = [
            e.body for e in federation.coordinator.store.events(row.id) if e.kind == "job.budget"
        ]
        assert said["note"] == "no budget across jobs covers this"

    run(place, test)


def test_people_create_look_and_audit_at_their_door(place: Place) -> None:
    async def test(federation: Federation) -> None:
        remote = federation.remote
        made = await asyncio.to_thread(remote.create_block, block().words)
        assert made["free"] == made["capacity"] == block().capacity
        row = await finished(federation, private())
        (told,) = await asyncio.to_thread(remote.blocks)
        cost = need(compile_plan(private()), 4)
        assert told["committed"] == cost.urdp
        assert told["last"]["job"] == row.id
        assert told["last"]["fits"] == {
            "jobs": (block().capacity - cost.urdp) // cost.urdp,
            "releases": (block().capacity - cost.urdp) // cost.each,
        }
        assert told["epsilon_spent"] == block().epsilon_of(cost.urdp)
        entries, more = await asyncio.to_thread(remote.budget_entries, "patients", row.id)
        assert entries[0]["kind"] == "hold"
        assert not more
        assert (await asyncio.to_thread(remote.verify_budget))["entries"] == 7
        lines = await asyncio.to_thread(lambda: list(remote.export_budget()))
        found = verify_export(lines, remote.root)
        assert found.pinned
        assert found.end.seq == 7
        assert found.accounts[0][1].committed == cost.urdp
        with pytest.raises(HansaError, match="promises nothing"):
            await asyncio.to_thread(remote.create_block, {**block().words, "epsilon": -1.0})

    run(place, test)


def test_only_an_administrator_creates_a_budget(place: Place) -> None:
    async def test(federation: Federation) -> None:
        digest = hashlib.sha256(b"auditors token").hexdigest()
        federation.coordinator.store.add_operator("auditor", "auditor", digest)
        auditor = replace(federation.remote, token="auditors token")
        assert await asyncio.to_thread(auditor.blocks) == []
        with pytest.raises(HansaError, match="is auditor, this is for admin"):
            await asyncio.to_thread(auditor.create_block, block().words)
        assert federation.coordinator.store.budgets.standings() == []

    run(place, test)


def test_purpose_is_a_word_of_the_job() -> None:
    assert Privacy().purpose == ""
    one, other = (compile_plan(private(purpose=p)) for p in ("heart", "lung"))
    assert one.digest != other.digest
