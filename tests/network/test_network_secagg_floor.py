"""What a site demands of every masked sum, and who is refused as a neighbour."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hansa.coordinator import conversation
from hansa.coordinator.members import Members
from hansa.coordinator.rows import Status
from hansa.core.job import Cohort, Rounds, SecureAggregation
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord
from hansa.errors import JobError
from hansa.identity.authority import Authority
from hansa.secagg import server
from hansa.site import config as site_config
from hansa.site.agent import LOG
from hansa.site.logbook import read
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Place, expected, outcome, running, until
from tests.support.masked import FOUR, SOON, masked_job
from tests.support.sitejob.task import SITES


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "ABSENT", SOON)


def demand(place: Place, site: str, **words: Any) -> None:
    """Adds `[secure_aggregation]` to a site's file."""
    place.write_site(site)
    lines = ["[secure_aggregation]", *(f"{k} = {json.dumps(v)}" for k, v in words.items())]
    with (place.site(site) / site_config.NAME).open("a") as file:
        file.write("\n".join(lines) + "\n")


# ------------------------------------------------------------------ the floor

FLOORS: dict[str, tuple[dict[str, Any], str]] = {
    "bremen": (
        {"min_cohort": 4},
        "the sum of 3 updates may be revealed, below secure_aggregation.min_cohort = 4",
    ),
    "danzig": ({"moduli": [16, 24]}, "(modulus): a modulus that is not allowed: 2**32"),
    "kiel": ({"min_threshold": 0.8}, "(threshold): another threshold than follows"),
    "luebeck": ({"min_corrupt": 0.3}, "(assumptions): weaker assumptions than allowed"),
}


def test_each_demand_refuses_the_job_at_the_offer_with_its_reason(place: Place) -> None:
    for site, (demanded, _) in FLOORS.items():
        demand(place, site, **demanded)
    wanted = masked_job(
        cohort=Cohort(population=6), rounds=Rounds(count=1, quorum=3, deadline=LONG)
    )
    row, refused = _offered(place, wanted, 4)
    assert row.status is Status.REFUSED
    assert refused.keys() == FLOORS.keys()
    for site, (_, words) in FLOORS.items():
        assert "this site's policy refuses the job" in refused[site]
        assert words in refused[site], refused[site]
        assert [e["kind"] for e in read(place.site(site) / LOG)] == ["verdict"]
        assert not (place.site(site) / site_config.NAME).with_name("bundles").exists()


def test_a_site_can_demand_masks_and_that_the_coordinator_may_lie(place: Place) -> None:
    demand(place, "kiel", required=True)
    _, refused = _offered(place, masked_job(masks=False))
    assert "the coordinator could read each update" in refused.pop("kiel")
    assert not refused
    demand(place, "kiel", max_size=4)
    _, refused = _offered(place, masked_job())
    assert refused.keys() == {"kiel"}
    assert "(size): a vector that is larger than allowed: 28" in refused["kiel"]
    curious = masked_job(secure_aggregation=SecureAggregation(enabled=True, adversary="curious"))
    row, refused = _offered(place, curious, 2)
    assert row.status is Status.REFUSED
    assert sum("a curious coordinator; demanded" in words for words in refused.values()) >= 2


def _offered(place: Place, wanted: Any, least: int = 0) -> tuple[Any, dict[str, str]]:
    """Who refused a job, and why, once so many refused or all have decided."""

    async def whole() -> tuple[Any, dict[str, str]]:
        sites = SITES[: wanted.cohort.population]
        async with running(place) as federation:
            await federation.agents(*sites)
            job_id, _ = await federation.submit(wanted)
            store = federation.coordinator.store

            def refused() -> dict[str, str]:
                return {d.site: d.reason for d in store.decisions(job_id) if not d.accepted}

            if least:
                await federation.ended(job_id)
                await until(lambda: len(refused()) >= least)
            else:
                await until(lambda: len(store.decisions(job_id)) == len(sites))
            return store.job(job_id), refused()

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("required = 1", "required = 1 is not true or false"),
        ("min_cohort = 2.5", "min_cohort = 2.5 is not a whole number"),
        ("min_cohort = -1", "min_cohort = -1 is negative"),
        ("min_threshold = 2.0", "cannot be exceeded"),
        ("moduli = []", "not some of 16, 24 and 32"),
        ("moduli = [8]", "not some of 16, 24 and 32"),
        ('min_threshold = "all"', "min_threshold = 'all' is not a number"),
        ("moduli = 32", "moduli is no list of numbers"),
        ('moduli = ["32"]', "moduli is no list of numbers"),
        ("moduli = [32.0]", "moduli is no list of numbers"),
        ("treshold = 0.5", "[secure_aggregation] has no 'treshold'"),
        ("active = yes", "nvalid"),
    ],
)
def test_a_broken_value_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    text = f"[policy]\nfederations = []\n\n[secure_aggregation]\n# a comment\n{line}\n"
    (tmp_path / site_config.NAME).write_text(text)
    with pytest.raises(JobError) as caught:
        site_config.load(tmp_path)
    assert words in str(caught.value)
    assert caught.value.line == 6
    assert caught.value.fix


# ------------------------------------------------------------------ who is revoked


def test_neighbours_refuse_a_revoked_site_that_the_coordinator_passes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It attends, and a server that checks nothing lets it in; the authority's list does not."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(server, "_check_advert", lambda *_: None)
    authority = place.authority
    monkeypatch.setattr(
        Members,
        "revocation_list",
        lambda _: authority.sign_revocations(["kiel"], datetime.now(UTC)),
    )

    async def whole() -> RoundRecord:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            job_id, _ = await federation.submit(masked_job())
            await federation.reached(job_id, 1)
            return federation.records(job_id)[0]

    record = asyncio.run(whole())
    assert record.void
    reasons = {dropout.client: dropout.reason for dropout in record.dropouts}
    for site in ("bremen", "danzig", "luebeck"):
        assert "(signature)" in reasons[site]
        assert "'kiel'" in reasons[site]
    assert not [e for site in FOUR for e in read(place.site(site) / LOG) if e["kind"] == "left"]


def test_an_honest_coordinator_leaves_a_revoked_site_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked between its training and its advert, before its connection is cut."""
    authority = place.authority
    monkeypatch.setattr(
        Members,
        "revocation_list",
        lambda _: authority.sign_revocations(["kiel"], datetime.now(UTC)),
    )

    async def whole() -> tuple[Plan, RoundRecord]:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            job_id, plan = await federation.submit(masked_job())
            await federation.reached(job_id, 1)
            return plan, federation.records(job_id)[0]

    plan, record = asyncio.run(whole())
    assert outcome([record]) == outcome(expected(plan, {"kiel"})[1][:1])
    assert "the advert of 'kiel' is not signed" in record.dropouts[0].reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("old", "was issued 172,8"),
        ("foreign", "the pinned root did not appoint"),
        ("forged", "does not carry the authority's signature"),
    ],
)
def test_a_site_that_is_told_no_good_list_takes_no_part(
    place: Place, change: str, words: str, tmp_path: Path
) -> None:
    now, authority = datetime.now(UTC), place.authority
    text = {
        "old": authority.sign_revocations([], now - timedelta(days=2)),
        "foreign": Authority.create(tmp_path / "ca", "hanse", now).sign_revocations([], now),
        "forged": authority.sign_revocations(["riga"], now).replace("riga", "visby"),
    }[change]

    async def whole() -> tuple[Plan, RoundRecord]:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            roster = federation.coordinator.roster
            push = roster.push

            def pushing(site: str, message: pb.ToSite) -> bool:
                if site == "kiel" and message.secagg.HasField("roster"):
                    message.secagg.roster.revocations = text
                return push(site, message)

            roster.push = pushing  # type: ignore[method-assign]
            job_id, plan = await federation.submit(masked_job())
            await federation.reached(job_id, 1)
            return plan, federation.records(job_id)[0]

    plan, record = asyncio.run(whole())
    assert outcome([record]) == outcome(expected(plan, {"kiel"})[1][:1])
    assert words in record.dropouts[0].reason
