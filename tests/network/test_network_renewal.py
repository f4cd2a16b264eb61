"""Certificates that end while a federation works: rounds go on as if nothing had happened."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from hansa.coordinator.rows import Status
from hansa.core.job import Aggregation, Cohort, Rounds
from hansa.identity import certificates
from hansa.identity.authority import Authority, IssuedCertificate
from hansa.identity.keys import load_credentials, save_credentials
from hansa.remote import Remote
from hansa.site.agent import KEYS, LOG
from hansa.site.connection import _context
from hansa.site.logbook import read
from tests.support import ca
from tests.support.federation import LONG, Place, expected, job, outcome, running, until
from tests.support.rawsite import raw_site

THREE = ("bremen", "danzig", "kiel")
SHORT = timedelta(seconds=4)


@pytest.fixture
def short_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites' certificates live for four seconds, without the usual reach into the past."""
    issue_site = Authority.issue_site

    def briefly(
        self: Authority, csr_pem: bytes, site: str, organisation: str, now: datetime, *_: object
    ) -> IssuedCertificate:
        return issue_site(self, csr_pem, site, organisation, now, SHORT)

    monkeypatch.setattr(certificates, "SKEW", timedelta(0))
    monkeypatch.setattr(Authority, "issue_site", briefly)


@pytest.mark.usefixtures("short_lived")
def test_rounds_go_on_while_every_site_renews_its_certificate(place: Place) -> None:
    first = {}
    for site in THREE:
        place.write_site(site, {"delay": 0.12})
        first[site] = ca.enrol(
            place.authority, place.site(site) / KEYS, site, now=datetime.now(UTC), lifetime=SHORT
        )

    async def whole() -> Any:
        async with running(place) as federation:
            agents = await federation.agents(*THREE)
            rounds = Rounds(count=45, deadline=LONG)
            job_id, plan = await federation.submit(job(rounds=rounds, evaluate_every=1))
            row = await federation.ended(job_id, 3 * LONG)
            await until(lambda: federation.coordinator.roster.present >= set(THREE))
            for site in THREE:
                await _received(place, site, 46)
            assert not any(agent.task.done() for agent in agents)
            certificates = {
                site: federation.coordinator.store.certificates(site)[1:] for site in THREE
            }
            return plan, row, federation.records(job_id), certificates

    plan, row, records, issued = asyncio.run(whole())
    assert (row.status, row.reason) == (Status.DONE, "")
    assert outcome(records) == outcome(expected(plan)[1])
    for site in THREE:
        now = load_credentials(place.site(site) / KEYS)
        assert now.key_pem != first[site].key_pem
        assert now.signing_key_pem == first[site].signing_key_pem  # its signatures stay its own
        assert len(issued[site]) >= 2
        keys = [certificate.public_key_sha256 for certificate in issued[site]]
        assert len(set(keys)) == len(keys), "a key was used twice"
        assert first[site].not_after < datetime.now(UTC), "the first certificate was still good"
        for one, other in zip(issued[site], issued[site][1:], strict=False):
            assert other.not_before < one.not_after
        assert _kinds(place, site).count("received") == len(records)


@pytest.mark.usefixtures("short_lived")
def test_a_receipt_that_is_waited_for_survives_a_renewal(place: Place) -> None:
    """A median is answered when its round ends; the site has another connection by then."""
    for site in THREE:
        ca.enrol(
            place.authority, place.site(site) / KEYS, site, now=datetime.now(UTC), lifetime=SHORT
        )

    async def whole() -> Any:
        async with running(place) as federation, raw_site(place, "luebeck") as late:
            await federation.agents(*THREE, "riga")
            await late.attend()
            wanted = job(
                rounds=Rounds(count=1, deadline=LONG, quorum=5),
                aggregation=Aggregation(rule="median", weighting="uniform"),
                cohort=Cohort(population=5),
            )
            job_id, _ = await federation.submit(wanted)
            await late.take_offer()
            parcel = await late.work()
            await asyncio.sleep(SHORT.total_seconds())
            await late.deliver(parcel)
            await late.deliver(await late.work())
            await federation.ended(job_id)
            for site in THREE:
                await _received(place, site, 2)

    asyncio.run(whole())
    for site in THREE:
        assert _kinds(place, site).count("left") == 2, "something was sent twice"


async def _received(place: Place, site: str, count: int) -> None:
    """Waits until a site has written down so many receipts."""
    await until(lambda: _kinds(place, site).count("received") == count)


def _kinds(place: Place, site: str) -> list[str]:
    """What a site's log says of updates, in order."""
    return [entry["kind"] for entry in read(place.site(site) / LOG) if "round" in entry]


# ------------------------------------------------------------------ the coordinator's own


def test_the_coordinator_renews_its_certificate_without_a_restart(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At all doors; and who attends since before still accepts its receipts."""
    monkeypatch.setattr(certificates, "SKEW", timedelta(0))
    old = place.authority.issue_coordinator(
        ["127.0.0.1", "localhost"], datetime.now(UTC), timedelta(seconds=4)
    )
    save_credentials(place.coordinator / "keys", old)
    monkeypatch.undo()

    async def whole() -> Any:
        async with running(place) as federation, raw_site(place, "kiel") as site:
            await federation.agents("bremen", "danzig")
            await site.attend()
            assert await _serials(place) == {int(old.serial, 16)}
            job_id, plan = await federation.submit(job(rounds=Rounds(count=2, deadline=LONG)))
            await site.take_offer()
            before = await site.deliver(await site.work())
            await asyncio.sleep((old.not_after - datetime.now(UTC)).total_seconds() + 0.1)
            (new,) = await _serials(place)
            assert new != int(old.serial, 16)
            after = await site.deliver(await site.work())
            await site.deliver(await site.work())
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            for name in ("bremen", "danzig"):
                await _received(place, name, 3)
            async with raw_site(place, "riga") as later:
                await later.attend()
                assert later.receipt_key == site.receipt_key
            return plan, federation.records(job_id), before, after

    plan, records, before, after = asyncio.run(whole())
    assert outcome(records) == outcome(expected(plan)[1])
    assert before.document != after.document
    for name in ("bremen", "danzig"):
        assert _kinds(place, name).count("received") == len(records)
    assert load_credentials(place.coordinator / "keys").serial != old.serial


async def _serials(place: Place) -> set[int]:
    """Serial numbers of the certificates that the three doors show to whoever connects now."""
    settings, shown = place.settings, place.credentials("kiel")
    await asyncio.to_thread(Remote.load(place.coordinator).jobs)
    found = set()
    for port in (settings.sites_port, settings.enrol_port, settings.people_port):
        context = _context(shown)
        if port == settings.people_port:
            context = ssl.create_default_context(cadata=shown.root_pem.decode())
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        found.add(x509.load_der_x509_certificate(der).serial_number)
    return found
