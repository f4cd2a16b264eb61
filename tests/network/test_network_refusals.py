"""What a site refuses to run, whoever asks for it, and what both sides are told about it."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from hansa.coordinator.rows import Status
from hansa.core import canonical
from hansa.core.job import Cohort, Job, Rounds
from hansa.core.plan import Plan
from hansa.jobfile import job_to_words
from hansa.recipes import compile_plan
from hansa.site.agent import LOG, Agent
from hansa.site.logbook import read
from hansa.wire.v1 import sites_pb2 as pb
from hansa.work.bundle import facts_of, load_task, pack
from tests.support.falsecoordinator import Context, FalseCoordinator, Said, false_coordinator
from tests.support.federation import LONG, Place, expected, job, outcome, running, until
from tests.support.rawsite import raw_site
from tests.support.sitejob.task import SITES

# ------------------------------------------------------------------ the site's own policy


def closed_now() -> str:
    """Hours that do not hold this moment, whatever the time of day."""
    later = datetime.now() + timedelta(hours=2)
    return f"{later:%H:%M}-{later + timedelta(minutes=5):%H:%M}"


POLICIES: dict[str, tuple[dict[str, Any], str]] = {
    "bremen": ({"federations": ["other"]}, "federation 'hanse' is not among policy.federations"),
    "danzig": ({"tasks": ["0" * 64]}, "is not among policy.tasks, nor signed by"),
    "kiel": ({"tiers": ["high"]}, "risk tier 'medium' is not among policy.tiers"),
    "luebeck": ({"min_cohort": 5}, "a round of 2 updates counts, below policy.min_cohort = 5"),
    "riga": ({"max_epsilon": 1.0}, "no differential privacy, above policy.max_epsilon = 1"),
}


def test_each_setting_of_the_policy_refuses_with_its_reason(place: Place) -> None:
    for site, (policy, _) in POLICIES.items():
        place.write_site(site, **policy)
    rounds = Rounds(count=2, deadline=LONG, quorum=2)  # impossible with the fifth refusal
    wanted = job(rounds=rounds, cohort=Cohort(population=6))

    async def whole() -> tuple[Any, list[Any], dict[str, list[str]]]:
        async with running(place) as federation:
            agents = await federation.agents(*SITES)
            job_id, _ = await federation.submit(wanted)
            row = await federation.ended(job_id)
            decisions = federation.coordinator.store.decisions(job_id)
            return row, decisions, {a.agent.site: a.said for a in agents}

    row, decisions, said = asyncio.run(whole())
    assert row.status is Status.REFUSED
    assert "5 sites refused the plan: at most 1 of the 2 that a round needs" in row.reason
    refused = {d.site: d.reason for d in decisions if not d.accepted}
    assert refused.keys() == POLICIES.keys()
    for site, reason in refused.items():
        assert "this site's policy refuses the job" in reason
        assert POLICIES[site][1] in reason
    for site, (_, words) in POLICIES.items():
        assert any(words in line for line in said[site]), site
        (entry,) = (e for e in read(place.site(site) / LOG) if e["kind"] == "verdict")
        assert entry["accepted"] is False
        assert words in entry["reason"]
        assert not (place.site(site) / "bundles").exists(), "a refused bundle was unpacked"


def test_outside_of_its_hours_a_site_declines_each_round(place: Place) -> None:
    place.write_site("kiel", hours=closed_now())

    async def whole() -> tuple[Plan, list[Any]]:
        async with running(place) as federation:
            await federation.agents(*SITES[:3])
            job_id, plan = await federation.submit(job())
            assert (await federation.ended(job_id)).status is Status.DONE
            return plan, federation.records(job_id)

    plan, records = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan, {"kiel"})[1])
    for record in records:
        (dropout,) = record.dropouts
        assert "outside of policy.hours" in dropout.reason


def test_a_site_whose_data_or_training_fails_says_so_and_the_others_go_on(place: Place) -> None:
    place.write_site("bremen", {"fails": "training"})
    place.write_site("danzig", {"fails": "data"})
    wanted = job(cohort=Cohort(population=4), rounds=Rounds(count=1, quorum=2, deadline=1.5))

    async def whole() -> tuple[Any, list[Any], list[Any]]:
        async with running(place) as federation:
            await federation.agents(*SITES[:4])
            job_id, _ = await federation.submit(wanted)
            row = await federation.ended(job_id)
            return (
                row,
                federation.records(job_id),
                federation.coordinator.store.decisions(job_id),
            )

    row, records, decisions = asyncio.run(whole())
    assert row.status is Status.DONE
    (refused,) = (d for d in decisions if not d.accepted)
    assert refused.site == "danzig"
    assert "could not read this site's data (ValueError)" in refused.reason
    assert [d.client for d in records[0].dropouts] == ["bremen"]
    assert "the task raised ValueError in round 0" in records[0].dropouts[0].reason
    assert "cannot" not in refused.reason + records[0].dropouts[0].reason, "the task's own words"


# ------------------------------------------------------------------ a coordinator that lies


@dataclass
class Lie:
    """An offer of a coordinator, honest until a test changes it."""

    offer: pb.Offer
    bundle: bytes

    @classmethod
    def honest(cls, wanted: Job) -> Lie:
        plan = compile_plan(wanted, facts_of(wanted, load_task(wanted)))
        bundle = pack(wanted).to_bytes()
        offer = pb.Offer(
            job="net-1",
            words=canonical.dumps(job_to_words(plan.job)),
            facts=canonical.dumps(plan.task),
            plan_digest=plan.digest,
            bundle_sha256=hashlib.sha256(bundle).hexdigest(),
            bundle_size=len(bundle),
        )
        return cls(offer, bundle)


def words_of(changed: Job) -> str:
    return Lie.honest(changed).offer.words


def _another_job(lie: Lie) -> None:
    lie.offer.words = words_of(job(rounds=Rounds(count=99, deadline=LONG)))


def _a_weaker_quorum(lie: Lie) -> None:
    lie.offer.words = words_of(job(rounds=Rounds(count=2, quorum=2, deadline=LONG)))
    lie.offer.words = lie.offer.words.replace('"quorum":2', '"quorum":3')


def _another_model(lie: Lie) -> None:
    lie.offer.facts = Lie.honest(job("Wide")).offer.facts


def _another_digest(lie: Lie) -> None:
    lie.offer.plan_digest = "f" * 64


def _another_bundle(lie: Lie) -> None:
    other = dataclasses.replace(job(), folder=job().folder.parent / "toyjob")  # type: ignore[union-attr]
    lie.bundle = pack(other).to_bytes()
    lie.offer.bundle_sha256 = hashlib.sha256(lie.bundle).hexdigest()
    lie.offer.bundle_size = len(lie.bundle)


def _other_bytes(lie: Lie) -> None:
    lie.bundle = lie.bundle[:-1] + bytes([lie.bundle[-1] ^ 1])


def _fewer_bytes(lie: Lie) -> None:
    lie.bundle = lie.bundle[:-10]


def _more_bytes(lie: Lie) -> None:
    lie.bundle += b"more"


def _too_large(lie: Lie) -> None:
    lie.offer.bundle_size = 1 << 40


def _no_bundle(lie: Lie) -> None:
    lie.bundle = b"import os"
    lie.offer.bundle_sha256 = hashlib.sha256(lie.bundle).hexdigest()
    lie.offer.bundle_size = len(lie.bundle)


def _no_words(lie: Lie) -> None:
    lie.offer.words = "[1, 2"


def _deep_words(lie: Lie) -> None:
    lie.offer.words = "[" * 200_000


def _other_types(lie: Lie) -> None:
    lie.offer.words = lie.offer.words.replace('"rounds":{', '"rounds":7,"x":{')


def _no_facts(lie: Lie) -> None:
    lie.offer.facts = '{"schema":{"tensors":[{"name":"w","shape":[-1]}]}}'


LIES: dict[Callable[[Lie], None], str] = {
    _another_job: "this site compiles plan",
    _a_weaker_quorum: "this site compiles plan",
    _another_model: "this site compiles plan",
    _another_digest: "this site compiles plan",
    _another_bundle: "the task's code has digest",
    _other_bytes: "has another SHA-256 than announced",
    _fewer_bytes: "announced were due",
    _more_bytes: "announced were due",
    _too_large: "a bundle of 1,099,511,627,776 bytes is larger than",
    _no_bundle: "",
    _no_words: "the job is no JSON",
    _deep_words: "",
    _other_types: "",
    _no_facts: "",
}


def test_whatever_a_lying_coordinator_offers_is_refused_before_it_is_run(place: Place) -> None:
    """One connection, one offer after the other; the last one is honest and accepted."""
    lies = []
    for number, change in enumerate(LIES):
        lie = Lie.honest(job())
        lie.offer.job = f"net-{number}"
        change(lie)
        lies.append(lie)
    honest = Lie.honest(job())
    verdicts: list[pb.Verdict] = []

    async def attend(
        false: FalseCoordinator, requests: Said, context: Context
    ) -> AsyncIterator[pb.ToSite]:
        await anext(requests)
        yield false.welcome("kiel")
        for lie in [*lies, honest]:
            false.blobs = {lie.offer.bundle_sha256: lie.bundle}
            yield pb.ToSite(offer=lie.offer)
            async with asyncio.timeout(LONG):
                verdicts.append(pb.FromSite.FromString(await anext(requests)).verdict)
            refused = not verdicts[-1].accepted
            assert refused is not (place.site("kiel") / "bundles").exists()
        await asyncio.sleep(LONG)

    async def whole() -> None:
        async with false_coordinator(place, attend):
            agent = asyncio.create_task(Agent(place.site("kiel"), lambda _: None).run())
            try:
                await until(lambda: len(verdicts) > len(lies), LONG)
            finally:
                agent.cancel()
                await asyncio.wait([agent])

    asyncio.run(whole())
    for verdict, (change, words) in zip(verdicts, LIES.items(), strict=False):
        assert not verdict.accepted, change.__name__
        assert words in verdict.reason, (change.__name__, verdict.reason)
        assert verdict.reason, change.__name__
    assert verdicts[-1].accepted
    assert verdicts[-1].plan_digest == honest.offer.plan_digest


def _orders() -> dict[str, tuple[pb.Work, bytes]]:
    """Work that an honest coordinator never asks for, and what it gives as the parameters."""
    model = load_task(job()).initial(0).tobytes()
    unseen = load_task(job()).initial(1).tobytes()

    def order(content: bytes, **words: Any) -> pb.Work:
        usual: dict[str, Any] = {
            "plan_digest": Lie.honest(job()).offer.plan_digest,
            "model_sha256": hashlib.sha256(content).hexdigest(),
            "model_size": len(content),
            "seconds": LONG,
        }
        name: dict[str, Any] = {"job": "net-1", "purpose": "train", "round": 0, "attempt": 0}
        name |= {k: words.pop(k) for k in tuple(words) if k in name}
        return pb.Work(round=pb.RoundId(**name), **{**usual, **words})

    return {
        "a job that was never offered": (order(model, job="net-9"), model),
        "another plan": (order(model, plan_digest="f" * 64), model),
        "no purpose": (order(model, purpose="spy"), model),
        "a larger model": (order(model + b"\0" * 4, round=1), model + b"\0" * 4),
        "a model of half numbers": (order(model[:-1], round=2), model[:-1]),
        "a model of 16 exabytes": (order(model, model_size=2**64 - 1, round=3), model),
        "other bytes than announced": (order(unseen, round=4), model),
        "no model": (order(unseen, round=5, seconds=0.5), unseen),
    }


def test_work_that_an_honest_coordinator_never_asks_for_is_declined(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    orders, honest = _orders(), Lie.honest(job())
    heard: dict[str, pb.FromSite] = {}

    async def attend(
        false: FalseCoordinator, requests: Said, context: Context
    ) -> AsyncIterator[pb.ToSite]:
        await anext(requests)
        yield false.welcome("kiel")
        false.blobs = {honest.offer.bundle_sha256: honest.bundle}
        yield pb.ToSite(offer=honest.offer)
        await anext(requests)
        for name, (order, model) in orders.items():
            false.blobs = {hashlib.sha256(model).hexdigest(): model, order.model_sha256: model}
            if name == "no model":
                false.blobs.clear()
            yield pb.ToSite(work=order)
            async with asyncio.timeout(LONG):
                heard[name] = pb.FromSite.FromString(await anext(requests))
        await asyncio.sleep(LONG)

    async def whole() -> None:
        async with false_coordinator(place, attend):
            agent = asyncio.create_task(Agent(place.site("kiel"), lambda _: None).run())
            try:
                await until(lambda: len(heard) == len(orders) or agent.done(), LONG)
            finally:
                agent.cancel()
                await asyncio.wait([agent])

    asyncio.run(whole())
    assert heard.keys() == orders.keys()
    for name, message in heard.items():
        assert message.WhichOneof("body") == "declined", name
        assert message.declined.reason, name
    assert not [e for e in read(place.site("kiel") / LOG) if e["kind"] == "left"]


# ------------------------------------------------------------------ a site that lies


def test_a_verdict_on_another_plan_is_a_refusal(place: Place) -> None:
    """Two of three accept; the third accepted a plan that is not the job's."""

    async def whole() -> tuple[Any, list[Any], list[Any]]:
        async with running(place) as federation, raw_site(place, "kiel") as site:
            await federation.agents("bremen", "danzig")
            await site.attend()
            job_id, _ = await federation.submit(job(rounds=Rounds(count=1, deadline=1.0)))
            offer = await site.hear("offer")
            await site.say(verdict=pb.Verdict(job=offer.job, accepted=True, plan_digest="f" * 64))
            row = await federation.ended(job_id)
            decisions = federation.coordinator.store.decisions(job_id)
            return row, decisions, federation.records(job_id)

    row, decisions, records = asyncio.run(whole())
    assert row.status is Status.DONE
    (refused,) = (d for d in decisions if not d.accepted)
    assert (refused.site, refused.digest) == ("kiel", "f" * 64)
    assert "compiled another plan from the same job" in refused.reason
    assert all(record.cohort == ("bremen", "danzig") for record in records)


def test_a_verdict_too_late_does_not_make_a_participant(place: Place) -> None:
    async def whole() -> tuple[list[Any], list[Any]]:
        async with running(place) as federation, raw_site(place, "kiel") as late:
            for site in ("bremen", "danzig"):
                place.write_site(site, {"delay": 0.1})
            await federation.agents("bremen", "danzig")
            await late.attend()
            wanted = job(rounds=Rounds(count=3, deadline=LONG), cohort=Cohort(population=2))
            job_id, _ = await federation.submit(wanted)
            await until(
                lambda: federation.coordinator.store.job(job_id).status is Status.RUNNING, LONG
            )
            await late.take_offer()
            await federation.ended(job_id)
            decisions = federation.coordinator.store.decisions(job_id)
            return federation.records(job_id), decisions

    records, decisions = asyncio.run(whole())
    assert all(record.cohort == ("bremen", "danzig") for record in records)
    (refused,) = (d for d in decisions if not d.accepted)
    assert "runs with other sites already" in refused.reason
