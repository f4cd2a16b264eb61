"""A coordinator that asks a site too often, over the real network: it is refused and named."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from functools import partial

import pytest

from hansa.core import canonical
from hansa.core.job import Aggregation, Cohort, Job, Privacy, Rounds
from hansa.jobfile import job_to_words
from hansa.recipes import compile_plan
from hansa.site.agent import LOG, Agent
from hansa.site.logbook import read
from hansa.wire.v1 import sites_pb2 as pb
from hansa.work.bundle import facts_of, load_task, pack
from tests.support.falsecoordinator import Context, FalseCoordinator, Said, false_coordinator
from tests.support.federation import LONG, Place, job, until

JOB = "net-1"
UNIFORM = Aggregation(weighting="uniform")


def asked(
    place: Place, wanted: Job, orders: list[tuple[int, int]], purpose: str = "train"
) -> list[str]:
    """What a site says to each (round, attempt) that it is ordered; an empty text if it trains.

    Each order comes when the site has answered the one before, or logged that its update leaves.
    """
    plan = compile_plan(wanted, facts_of(wanted, load_task(wanted)))
    bundle = pack(wanted).to_bytes()
    model = load_task(wanted).initial(0).tobytes()
    said: list[str] = []

    def leavings() -> int:
        log = place.site("kiel") / LOG
        return sum(entry["kind"] == "left" for entry in read(log)) if log.exists() else 0

    def moved(before: int, answer: asyncio.Future[bytes]) -> bool:
        return leavings() > before or answer.done()

    async def attend(
        false: FalseCoordinator, requests: Said, context: Context
    ) -> AsyncIterator[pb.ToSite]:
        await anext(requests)
        yield false.welcome("kiel")
        false.blobs = {hashlib.sha256(content).hexdigest(): content for content in (bundle, model)}
        yield pb.ToSite(
            offer=pb.Offer(
                job=JOB,
                words=canonical.dumps(job_to_words(plan.job)),
                facts=canonical.dumps(plan.task),
                plan_digest=plan.digest,
                bundle_sha256=hashlib.sha256(bundle).hexdigest(),
                bundle_size=len(bundle),
            )
        )
        assert pb.FromSite.FromString(await anext(requests)).verdict.accepted
        answer = asyncio.ensure_future(anext(requests))
        for number, attempt in orders:
            before = leavings()
            name = pb.RoundId(job=JOB, purpose=purpose, round=number, attempt=attempt)
            yield pb.ToSite(
                work=pb.Work(
                    round=name,
                    plan_digest=plan.digest,
                    model_sha256=hashlib.sha256(model).hexdigest(),
                    model_size=len(model),
                    seconds=LONG,
                )
            )
            await until(partial(moved, before, answer))
            if answer.done():
                declined = pb.FromSite.FromString(answer.result()).declined
                assert (declined.round.round, declined.round.attempt) == (number, attempt)
                said.append(declined.reason)
                answer = asyncio.ensure_future(anext(requests))
            else:
                said.append("")
        await asyncio.gather(answer, return_exceptions=True)  # until the site is gone

    async def whole() -> None:
        async with false_coordinator(place, attend):
            agent = asyncio.create_task(Agent(place.site("kiel"), lambda _: None).run())
            try:
                await until(lambda: len(said) == len(orders) or agent.done(), LONG)
            finally:
                agent.cancel()
                await asyncio.wait([agent])

    asyncio.run(whole())
    return said


def test_a_turn_that_comes_too_soon_is_refused_also_after_a_restart(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    wanted = job(
        rounds=Rounds(count=12, deadline=LONG, quorum=2),
        cohort=Cohort(population=6, sampler="cyclic", separation=3),
    )
    first = asked(place, wanted, [(0, 0), (1, 0), (0, 1), (2, 0)])
    assert [bool(reason) for reason in first] == [False, True, False, True]
    assert "asks for round 1 of job net-1, and an update for round 0 has left" in first[1]
    assert "at least 3 rounds" in first[1]
    assert "the coordinator asks for round 2" in caplog.text, "the site's own log names it"

    again = asked(place, wanted, [(2, 1), (3, 0), (1, 0), (5, 0), (6, 0)])
    assert [bool(reason) for reason in again] == [True, False, True, True, False]
    left = [e["round"] for e in read(place.site("kiel") / LOG) if e["kind"] == "left"]
    assert left == [0, 0, 3, 6]


def test_no_more_updates_leave_than_local_noise_is_counted_for(place: Place) -> None:
    wanted = job(
        rounds=Rounds(count=2, deadline=LONG),
        privacy=Privacy(mechanism="local", clip=1.0, noise_multiplier=1.0, delta=1e-3),
        aggregation=UNIFORM,
    )
    said = asked(place, wanted, [(0, 0), (0, 1), (0, 2), (1, 0)])
    assert [bool(reason) for reason in said] == [False, False, True, True]
    assert "2 updates of job net-1 have left, and the plan's epsilon is for 2" in said[2]


def test_a_measurement_is_refused_where_no_metrics_leave(place: Place) -> None:
    """Its update would tell how many examples a site holds out, which no plan has agreed to."""
    wanted = job(
        rounds=Rounds(count=2, deadline=LONG),
        privacy=Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=1.0, delta=1e-3),
        aggregation=UNIFORM,
    )
    said = asked(place, wanted, [(2, 0)], "evaluate")
    assert "by the plan no metrics leave" in said[0]
    assert [e["kind"] for e in read(place.site("kiel") / LOG)] == ["verdict"]
