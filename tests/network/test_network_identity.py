"""Who is not let in, how fast, and what both sides are told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization

from hansa.core.job import Cohort
from hansa.errors import HansaError, IdentityError, Unavailable
from hansa.identity.credentials import Credentials
from hansa.identity.keys import load_credentials, make_site_keys
from hansa.site.agent import KEYS, Agent
from hansa.site.connection import diagnose
from hansa.wire.limits import CHANNEL_OPTIONS
from hansa.wire.methods import ATTEND, DELIVER, FETCH, call
from hansa.wire.v1 import sites_pb2 as pb
from tests.support import ca
from tests.support.federation import Place, job, make, running, until
from tests.support.rawsite import RawSite, narrow, raw_site

SECOND = 1.0
"""Within this time whoever must not be here is out, and knows why."""

Refused = tuple[str, HansaError]


async def every_call(site: RawSite, folder: Path) -> list[Refused]:
    """What each method answers on a connection that exists; all within a second."""
    header = pb.DeliverPart(header=pb.DeliverHeader(round=pb.RoundId(job="j", purpose="train")))
    csr = make_site_keys(folder, "kiel", "hanse").csr_pem
    methods: dict[str, Callable[[], Awaitable[Any]]] = {
        "Attend": site.attend,
        "Fetch": lambda: site.fetch("0" * 64),
        "Deliver": lambda: site.send([header]),
        "Renew": lambda: site.renew(csr),
    }
    answers = []
    for name, method in methods.items():
        with pytest.raises(HansaError) as error:
            async with asyncio.timeout(SECOND):
                await method()
        answers.append((name, error.value))
    return answers


# ------------------------------------------------------------------ expired


def test_an_agent_with_an_expired_certificate_says_so_and_does_not_dial(place: Place) -> None:
    ca.enrol(
        place.authority,
        place.site("kiel") / KEYS,
        now=datetime.now(UTC) - timedelta(hours=3),
        lifetime=timedelta(hours=1),
    )

    async def whole() -> None:
        async with running(place) as federation:
            agent = federation.agent("kiel")
            with pytest.raises(IdentityError, match="this site's certificate expired at 2"):
                async with asyncio.timeout(SECOND):
                    await agent.task
            assert not federation.coordinator.roster.present

    asyncio.run(whole())


def test_an_expired_certificate_is_refused_at_the_door(place: Place, tmp_path: Path) -> None:
    expired = ca.enrol(
        place.authority,
        tmp_path / "keys",
        now=datetime.now(UTC) - timedelta(hours=3),
        lifetime=timedelta(hours=1),
    )

    async def whole() -> None:
        async with running(place) as federation:
            reason = await _refused_by_tls(place, expired)
            assert f"valid until {expired.not_after:%Y-%m-%d %H:%M:%S} UTC" in reason.message
            assert not federation.coordinator.roster.present

    asyncio.run(whole())


def test_a_certificate_that_expires_ends_the_stream_and_every_call(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    short = ca.enrol(
        place.authority, tmp_path / "keys", now=datetime.now(UTC), lifetime=timedelta(seconds=2)
    )

    async def whole() -> list[Refused]:
        async with running(place) as federation, raw_site(place, "kiel", short) as site:
            await site.attend()
            assert federation.coordinator.roster.present == {"kiel"}
            reason = await site.cut_off(seconds=5)
            late = datetime.now(UTC) - short.not_after
            assert timedelta(0) < late < timedelta(seconds=SECOND)
            await until(lambda: not federation.coordinator.roster.present, SECOND)
            return [("stream", reason), *await every_call(site, tmp_path / "new")]

    for name, error in asyncio.run(whole()):
        assert isinstance(error, IdentityError), name
        assert "the certificate of 'kiel' expired at 2" in error.message, name
    refusals = [r.getMessage() for r in caplog.records if r.getMessage().startswith("refused")]
    assert len(refusals) == 5
    assert all("the certificate of 'kiel' expired" in refusal for refusal in refusals)


# ------------------------------------------------------------------ revoked


def test_a_revoked_site_is_out_within_a_second_on_every_method(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def whole() -> list[Refused]:
        async with running(place) as federation, raw_site(place, "kiel") as site:
            await site.attend()
            asked = await federation.revoke("kiel", "its laptop was stolen")
            reason = await site.cut_off(seconds=SECOND)
            assert time.monotonic() - asked < SECOND
            answers = [("stream", reason), *await every_call(site, tmp_path / "new")]
            kinds = [event.kind for event in federation.coordinator.store.events()]
            assert "site.revoked" in kinds
        async with running(place), raw_site(place, "kiel") as again:
            answers += await every_call(again, tmp_path / "new")
        return answers

    answers = asyncio.run(whole())
    assert len(answers) == 9
    for name, error in answers:
        assert isinstance(error, IdentityError), name
        assert "'kiel' was revoked" in error.message, name
    assert "its laptop was stolen" in answers[0][1].message
    said = [r.getMessage() for r in caplog.records]
    assert sum("'kiel' was revoked" in line for line in said) >= 9


def test_a_revoked_agent_ends_with_the_reason(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            (agent,) = await federation.agents("kiel")
            asked = await federation.revoke("kiel")
            with pytest.raises(IdentityError, match="'kiel' was revoked: it was stolen"):
                async with asyncio.timeout(SECOND):
                    await agent.task
            assert time.monotonic() - asked < SECOND
            again = federation.agent("kiel")
            with pytest.raises(IdentityError, match="'kiel' was revoked"):
                async with asyncio.timeout(SECOND):
                    await again.task

    asyncio.run(whole())


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_transfers_in_the_middle_end_as_well(place: Place, tmp_path: Path, how: str) -> None:
    """A delivery and a fetch that stand still are not a way to stay, nor to keep others out."""
    lifetime = timedelta(seconds=3) if how == "expired" else timedelta(hours=1)
    shown = ca.enrol(place.authority, tmp_path / "keys", now=datetime.now(UTC), lifetime=lifetime)

    async def whole() -> None:
        async with (
            running(place) as federation,
            raw_site(place, "bremen") as honest,
            raw_site(place, "kiel", shown) as site,
            narrow(place.sites_door, shown) as slow,
        ):
            for one in (honest, site):
                await one.attend()
            job_id, _ = await federation.submit(job("Wide", cohort=Cohort(population=2)))
            for one in (honest, site):
                await one.take_offer()
            order = await site.hear("work")
            parcel = await site.prepared(order)
            delivery = call(site.channel, DELIVER)()
            for part in list(parcel.parts())[:2]:
                await delivery.write(part)
            assert (await delivery.read()).HasField("go")
            reading = call(slow, FETCH)(pb.FetchRequest(sha256=order.model_sha256))
            await reading.read()  # the rest waits for a reader who does not come
            if how == "revoked":
                began = datetime.now(UTC)
                await federation.revoke("kiel")
            else:
                began = shown.not_after
                await asyncio.sleep((began - datetime.now(UTC)).total_seconds())
            await honest.fetch(order.model_sha256)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await delivery.read()
            assert (datetime.now(UTC) - began).total_seconds() < SECOND
            assert how in str(error.value.details())
            assert await _rest(reading) is grpc.StatusCode.PERMISSION_DENIED
            await asyncio.to_thread(federation.remote.cancel, job_id, "seen enough")

    asyncio.run(whole())


async def _rest(reading: Any) -> grpc.StatusCode:
    """Reads what was sent before a call was ended; how it ended."""
    try:
        async with asyncio.timeout(SECOND):
            while await reading.read() is not grpc.aio.EOF:
                pass
    except grpc.aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


# ------------------------------------------------------------------ strangers


@pytest.fixture(scope="module")
def other(ground: Path) -> Place:
    """Another federation with a site of the same name."""
    return make(ground / "other", ["kiel"], "other")


async def _refused_by_tls(place: Place, shown: Credentials) -> HansaError:
    """What a site finds out about a connection that TLS refuses."""
    async with raw_site(place, "kiel", shown) as site:
        with pytest.raises(Unavailable):
            async with asyncio.timeout(SECOND):
                await site.attend()
    async with asyncio.timeout(SECOND):
        reason = await diagnose(place.sites_door, shown)
    assert isinstance(reason, IdentityError)
    return reason


def test_a_site_of_another_federation_is_refused_by_both_sides(place: Place, other: Place) -> None:
    stranger, own = other.credentials("kiel"), place.credentials("kiel")

    async def whole() -> None:
        async with running(place) as federation:
            # It expects its own coordinator and finds ours: it shows nothing and leaves.
            reason = await _refused_by_tls(place, stranger)
            assert "is not the coordinator of federation 'other'" in reason.message
            # It trusts our coordinator, but ours does not trust it.
            reason = await _refused_by_tls(place, replace(stranger, root_pem=own.root_pem))
            assert "refuses this site's certificate" in reason.message
            assert not federation.coordinator.roster.present

    asyncio.run(whole())


def test_an_agent_that_reaches_another_federation_stops(place: Place, other: Place) -> None:
    (place.site("kiel") / "coordinator.address").write_text(other.sites_door)

    async def whole() -> None:
        async with running(other):
            with pytest.raises(IdentityError, match="not the coordinator of federation 'hanse'"):
                async with asyncio.timeout(SECOND):
                    await Agent(place.site("kiel"), print).run()

    asyncio.run(whole())


def test_the_coordinators_own_certificate_does_not_let_a_client_in(place: Place) -> None:
    own = load_credentials(place.coordinator / "keys")

    async def whole() -> None:
        async with running(place):
            reason = await _refused_by_tls(place, own)
            assert "refuses this site's certificate" in reason.message

    asyncio.run(whole())


def test_without_a_certificate_nobody_reaches_the_sites_door(place: Place) -> None:
    root = place.credentials("kiel").root_pem

    async def whole() -> None:
        async with running(place) as federation:
            tls = grpc.ssl_channel_credentials(root)
            async with grpc.aio.secure_channel(
                place.sites_door, tls, options=CHANNEL_OPTIONS
            ) as channel:
                stream = call(channel, ATTEND)()
                async with asyncio.timeout(SECOND):
                    assert await stream.code() is grpc.StatusCode.UNAVAILABLE
            assert not federation.coordinator.roster.present
            # Where sites enrol nobody needs a certificate; nothing but enrolment is served there.
            door = f"127.0.0.1:{place.settings.enrol_port}"
            async with grpc.aio.secure_channel(door, tls, options=CHANNEL_OPTIONS) as channel:
                for stream in (
                    call(channel, ATTEND)(),
                    call(channel, DELIVER)(),
                    call(channel, FETCH)(pb.FetchRequest()),
                ):
                    async with asyncio.timeout(SECOND):
                        assert await stream.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(whole())


NAMES = {
    "another federation": (["spiffe://other/site/kiel"], "is of federation 'other'"),
    "a coordinator": (["spiffe://hanse/coordinator"], "is not for use as a coordinator"),
    "two names": (["spiffe://hanse/site/kiel", "spiffe://hanse/site/riga"], "has 2 URI names"),
    "a path": (["spiffe://hanse/site/../kiel"], "is not the SPIFFE id"),
}


@pytest.mark.parametrize(("names", "words"), NAMES.values(), ids=NAMES)
def test_a_certificate_that_tls_accepts_is_still_read_by_the_coordinator(
    place: Place, caplog: pytest.LogCaptureFixture, names: list[str], words: str
) -> None:
    """Signed by the right authority, but not what the authority of Hansa writes."""
    caplog.set_level(logging.INFO)
    authority = place.authority
    leaf, key = ca.forge(names, authority.intermediates[0], authority._key, now=datetime.now(UTC))
    chain = leaf + authority.intermediates[0].public_bytes(serialization.Encoding.PEM)
    shown = replace(place.credentials("kiel"), key_pem=key, chain_pem=chain)

    async def whole() -> HansaError:
        async with running(place), raw_site(place, "kiel", shown) as site:
            with pytest.raises(HansaError) as error:
                async with asyncio.timeout(SECOND):
                    await site.attend()
            return error.value

    error = asyncio.run(whole())
    assert isinstance(error, IdentityError)
    assert words in error.message
    assert any(words in r.getMessage() for r in caplog.records)
