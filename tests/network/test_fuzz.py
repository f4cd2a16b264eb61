"""The sites' door takes anything: nothing breaks, nothing grows, and honest sites are served."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from typing import Any

import pytest

from hansa.coordinator.rows import Status
from hansa.core.job import Rounds
from hansa.identity.keys import make_site_keys
from tests.support.federation import Place, expected, job, outcome, running
from tests.support.fuzz import Fuzzer, resident_bytes
from tests.support.rawsite import raw_site

GROWTH = 64 << 20
"""Most bytes by which the process may grow, the fuzzer's own side included."""


def attacked(place: Place, frames: int, seed: int) -> tuple[Fuzzer, float, int]:
    """A round that is open for as long as its member danzig attacks the coordinator.

    Returns:
      The fuzzer, its seconds, and the bytes by which the process grew after the first tenth.
    """
    door = f"127.0.0.1:{place.settings.enrol_port}"
    csr = make_site_keys(place.path / "new", "danzig", "hanse").csr_pem

    async def whole() -> tuple[Any, ...]:
        async with (
            running(place) as federation,
            raw_site(place, "kiel") as honest,
            raw_site(place, "danzig") as other,
        ):
            await federation.agents("bremen")
            for site in (honest, other):
                await site.attend()
            rounds = Rounds(count=1, deadline=10_000.0)
            job_id, plan = await federation.submit(job(rounds=rounds, evaluate_every=0))
            for site in (honest, other):
                await site.take_offer()
            order = await other.hear("work")
            fuzzer = Fuzzer(
                place.sites_door,
                door,
                place.credentials("danzig"),
                await other.prepared(order),
                order.model_sha256,
                csr,
                seed,
            )
            parcel = await honest.work()
            await fuzzer.run(frames // 10)
            gc.collect()
            before, began = resident_bytes(), time.monotonic()
            await fuzzer.run(frames)
            seconds = time.monotonic() - began
            gc.collect()
            grown = resident_bytes() - before
            await honest.deliver(parcel)
            async with raw_site(place, "danzig") as site:
                await site.attend()
                await site.decline(order.round, "enough")
                await honest.deliver(await honest.work())
                await site.decline((await site.hear("work")).round, "enough")
                row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            return fuzzer, seconds, grown, plan, federation.records(job_id)

    fuzzer, seconds, grown, plan, records = asyncio.run(whole())
    told = expected(plan, {"danzig"})[1]
    assert outcome(records) == outcome(told)
    return fuzzer, seconds, grown


def test_a_thousand_malformed_frames(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fuzzer, _, grown = attacked(place, 1000, seed=1)
    assert fuzzer.frames >= 1000
    assert grown < GROWTH
    refused = {"FAILED_PRECONDITION", "INVALID_ARGUMENT", "ABORTED", "PERMISSION_DENIED"}
    assert refused <= fuzzer.answers.keys()
    assert sum(fuzzer.answers[name] for name in refused) > 200
    for record in caplog.records:
        if record.name.startswith("hansa.coordinator"):
            assert record.levelno < logging.ERROR, record.getMessage()
            assert len(record.getMessage()) < 3000
            assert "\n" not in record.getMessage(), "a forged line"


@pytest.mark.soak
def test_a_hundred_thousand_malformed_frames(
    place: Place, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints its figures."""
    caplog.set_level(logging.ERROR)
    fuzzer, seconds, grown = attacked(place, 100_000, seed=2)
    times = sorted(fuzzer.seconds)
    with capsys.disabled():
        print(
            f"\n{fuzzer.frames:,} frames in {seconds:.0f} s ({fuzzer.frames / seconds:.0f} / s)",
            f"the process grew by {grown / 2**20:.1f} MiB",
            f"calls took {_ms(times, 0.5)} ms in the middle, {_ms(times, 0.99)} ms at most but 1 %",
            f"answers: {dict(fuzzer.answers)}",
            sep="\n",
        )
    assert grown < GROWTH
    assert not [r for r in caplog.records if r.name.startswith("hansa.coordinator")]


def _ms(times: list[float], share: float) -> str:
    return f"{1000 * times[int(share * (len(times) - 1))]:.1f}"
