"""Asynchronous jobs with real agents: whole runs, slow sites, a coordinator that starts again."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from hansa.coordinator.rows import Status
from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Privacy, Rounds
from hansa.site import rounds
from hansa.site.agent import LOG, Agent
from hansa.site.logbook import read
from tests.network.test_network_arrivals import THREE, arrival, members
from tests.support.federation import LONG, Place, job, running
from tests.support.sitejob.task import SITES


@pytest.mark.parametrize("private", [False, True])
def test_agents_train_a_whole_job_and_one_slow_site_holds_nobody_up(
    place: Place, private: bool
) -> None:
    """Real agents; visby takes half a second where the others take milliseconds."""
    place.write_site("visby", data={"delay": 0.5})
    words: dict[str, Any] = arrival(6, 2)
    if private:
        words["aggregation"] = Aggregation(weighting="uniform")
        words["privacy"] = Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=3.0, delta=1e-3)

    async def whole() -> Any:
        async with running(place) as federation:
            await federation.agents(*SITES)
            job_id, _ = await federation.submit(
                job(rounds=Rounds(count=12, deadline=LONG), **words)
            )
            row = await federation.ended(job_id)
            counted = [members(federation, job_id, number) for number in range(12)]
            return row, federation.records(job_id), counted

    row, records, counted = asyncio.run(whole())
    assert row.status is Status.DONE, row.reason
    trained = [r for r in records if r.purpose is Purpose.TRAIN]
    assert [len(record.members) for record in trained] == [2] * 12
    assert all(set(r.members) == each.keys() for r, each in zip(trained, counted, strict=True))
    hashes = [sha for each in counted for sha in each.values()]
    assert len(hashes) == len(set(hashes))
    slow = sum("visby" in record.members for record in trained)
    assert slow <= 4


def test_what_is_being_packed_when_the_coordinator_starts_again_has_its_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log says that it left, and another order for the same job is there already.

    If what the site was asked anew is quicker, that counts instead.
    """
    packed, packing = rounds.Rounds._packed, threading.Event()

    def slowly(self: Any, accepted: Any, order: Any, vector: Any) -> Any:
        made = packed(self, accepted, order, vector)
        if self._site == "kiel" and order.round.round == 0:
            packing.set()
            time.sleep(1.5)
        return made

    async def whole() -> Any:
        monkeypatch.setattr(rounds.Rounds, "_packed", slowly)
        agents = [asyncio.create_task(Agent(place.site(name), print).run()) for name in THREE]
        try:
            async with running(place) as federation:
                await federation.attending(*THREE)
                wanted = Rounds(count=40, deadline=LONG)
                job_id, _ = await federation.submit(job(rounds=wanted, **arrival()))
                await asyncio.to_thread(packing.wait, LONG)
                await federation.reached(job_id, 1)
            async with running(place) as again:
                await again.ended(job_id)
                return [members(again, job_id, number).get("kiel") for number in range(40)]
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.wait(agents)

    counted = asyncio.run(whole())
    said = [entry for entry in read(place.site("kiel") / LOG) if entry.get("purpose") == "train"]
    (begun,) = [e["sha256"] for e in said if e["kind"] == "left" and e["round"] == 0]
    answers = [e["kind"] for e in said if e["round"] == 0]
    assert answers in (["left", "received"], ["left", "dropped"])
    assert (begun in counted) == (answers[1] == "received")
