"""Standing under masks over the network: twelve sites in five masked groups, one of which lies."""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest

from hansa.attacks.engine import AttackedEngine
from hansa.attacks.site import Attacking
from hansa.cli import main
from hansa.coordinator.rows import Status
from hansa.core.job import Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site, Split
from hansa.core.plan import Plan
from hansa.core.round import TrainState, World
from hansa.core.train import initial_state, train
from hansa.defend import GroupScores
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.privacy.ledger import MemoryLedger
from hansa.site.agent import LOG, Agent
from hansa.site.config import NAME
from hansa.site.logbook import read
from hansa.work.bundle import load_task
from tests.support.federation import LONG, Federation, Place, job, make, running
from tests.support.grouped import AGAINST, LIAR, TOWNS, WORDS

WAIT = 6 * LONG


@pytest.fixture
def hanse(ground: Path) -> Place:
    """Twelve sites that are content to be summed in pairs."""
    place = make(ground / "grouped", TOWNS)
    for site in TOWNS:
        with (place.site(site) / NAME).open("a", encoding="utf-8") as file:
            file.write("[secure_aggregation]\nmin_cohort = 2\n")
    return place


async def begun(federation: Federation) -> Any:
    """All sites attend, one lies; returns its agent."""
    await federation.agents(*(site for site in TOWNS if site != LIAR))
    liar = federation.agent(LIAR, partial(Agent, contribution=Attacking(AGAINST)))
    await federation.attending(LIAR)
    return liar


def simulated(plan: Plan) -> tuple[TrainState, MemoryJournal]:
    """The same run by the plainest engine."""
    task = load_task(plan.job)

    @lru_cache
    def data(site: str) -> Split:
        return task.data(Site(site, {}))

    inline = InlineEngine(task, data, masked=False)
    engine = AttackedEngine(inline, AGAINST, frozenset({LIAR}), omniscient=False)
    key, journal = ReplayKey.of_seed(plan.job.seed), MemoryJournal()
    world = World(plan.job.name, engine, MemoryLedger(plan.charges), journal, key, key, TOWNS)
    params = task.initial(plan.job.seed)
    params.flags.writeable = False
    return asyncio.run(train(plan, initial_state(plan, params), world)), journal


def test_a_liar_among_masked_sites_is_found_as_in_a_simulation(hanse: Place, capsys: Any) -> None:
    """The coordinator is stopped in the middle; then a person releases the site."""
    words = {**WORDS, "rounds": Rounds(count=16, deadline=LONG, quorum=10)}
    at = ["--coordinator", str(hanse.coordinator)]

    async def first() -> Any:
        async with running(hanse) as federation:
            await begun(federation)
            job_id, plan = await federation.submit(job(**words))
            await federation.reached(job_id, 5, WAIT)
            return job_id, plan

    async def second(job_id: str) -> Any:
        async with running(hanse) as federation:
            liar = await begun(federation)
            row = await federation.ended(job_id, WAIT)
            assert (row.status, row.reason) == (Status.DONE, "")
            said = await asyncio.to_thread(federation.remote.standing, job_id)
            assert await asyncio.to_thread(main, ["standing", "replay", job_id, *at]) == 0
            assert await asyncio.to_thread(main, ["standing", "show", job_id, *at]) == 0
            shown = " ".join(capsys.readouterr().out.split())
            release = ["standing", "release", job_id, LIAR, "--reason", "repaired", *at]
            assert await asyncio.to_thread(main, release) == 0
            after = await asyncio.to_thread(federation.remote.standing, job_id)
            again = await asyncio.to_thread(federation.remote.replay_standing, job_id)
            history = federation.coordinator.store.standing_history(job_id, said["most"])
            events = list(federation.coordinator.store.events(job_id))
            records, model = federation.records(job_id), federation.model(job_id)
            return records, model, said, shown, after, again, history, events, liar

    job_id, plan = asyncio.run(first())
    records, model, said, shown, after, again, history, events, liar = asyncio.run(second(job_id))
    state, journal = simulated(plan)
    assert model == state.model
    kept = [r for r in records if not r.void]
    assert [r.cohort for r in kept] == [r.cohort for r in journal.records]
    found = said["clients"][LIAR]
    assert (found["state"], found["weight"]) == ("quarantined", 0)
    expected = [(c.client, c.round, c.after.value) for c in state.standing.changes]
    assert [(c["client"], c["round"], c["after"]) for c in said["changes"]] == expected
    assert found["recent"] == list(state.standing.standings[LIAR].recent)
    assert LIAR not in kept[-1].cohort
    assert "All agrees with what is recorded" in shown
    assert "Adds" in shown

    entries = [e for e in history.entries if hasattr(e, "scores")]
    assert all(isinstance(entry.scores, GroupScores) for entry in entries)
    assert history.standings.evidence == state.standing.standings.evidence
    told = [e.body for e in events if e.kind == "standing.changed"]
    assert [t["after"] for t in told] == ["watch", "quarantined", "watch"]
    assert "members" not in json.dumps([e.body for e in events if e.kind == "standing.observed"])

    assert after["clients"][LIAR]["state"] == "watch"
    assert after["clients"][LIAR]["estimate"] == 0
    assert again["agrees"]
    logged = [e for e in read(hanse.site(LIAR) / LOG) if e["kind"] == "standing"]
    assert [e["state"] for e in logged][:2] == ["watch", "quarantined"]
    assert any("this site is quarantined and counts 0" in line for line in liar.said)
