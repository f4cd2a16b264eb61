"""Joining with an invite: once, in time, under the invited name, with keys that stay at home."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization

from hansa.coordinator import config
from hansa.coordinator.inviting import invite
from hansa.coordinator.rows import Invite as InviteRow
from hansa.coordinator.store import Store
from hansa.errors import HansaError, IdentityError, Unavailable
from hansa.identity.certificates import read_key
from hansa.identity.credentials import Credentials, read_signing_key
from hansa.identity.invites import create_invite, parse_invite, token_hash
from hansa.identity.keys import load_credentials, make_site_keys
from hansa.site.agent import ADDRESS, KEYS
from hansa.site.join import join
from hansa.wire.limits import CHANNEL_OPTIONS
from hansa.wire.methods import ENROL, call, serve
from hansa.wire.status import of_status
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import Place, make, running
from tests.support.rawsite import raw_site


def now() -> datetime:
    return datetime.now(UTC)


def invited(place: Place, site: str = "lund") -> str:
    return invite(place.coordinator, site, f"{site} hospital", now())


async def enrol(place: Place, token: bytes, csr: bytes) -> pb.EnrolReply:
    """What a hand-written client gets for a token.

    Raises:
      HansaError: what the coordinator answered.
    """
    tls = grpc.ssl_channel_credentials(place.authority.root_pem)
    door = f"127.0.0.1:{place.settings.enrol_port}"
    async with grpc.aio.secure_channel(door, tls, options=CHANNEL_OPTIONS) as channel:
        try:
            reply: pb.EnrolReply = await call(channel, ENROL)(
                pb.EnrolRequest(token=token, csr_pem=csr)
            )
        except grpc.aio.AioRpcError as error:
            raise of_status(error, door) from error
    return reply


def test_an_invite_is_good_once(place: Place, tmp_path: Path) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            text = await asyncio.to_thread(invited, place)
            await join(text, place.site("lund"), now())
            with pytest.raises(IdentityError, match="the invite of site 'lund' was used already"):
                await join(text, tmp_path / "again", now())
            assert not (tmp_path / "again" / ADDRESS).exists()
            with pytest.raises(HansaError, match="is a site already"):
                await join(text, place.site("lund"), now())
            async with raw_site(place, "lund") as site:
                await site.attend()
            names = [row.name for row in federation.coordinator.store.sites()]
            assert names.count("lund") == 1

    asyncio.run(whole())


def test_of_many_at_once_one_joins(place: Place, tmp_path: Path) -> None:
    async def whole() -> list[Any]:
        async with running(place) as federation:
            text = await asyncio.to_thread(invited, place)
            tries = (join(text, tmp_path / str(number), now()) for number in range(12))
            answers = await asyncio.gather(*tries, return_exceptions=True)
            assert len(federation.coordinator.store.certificates("lund")) == 1
            return answers

    answers = asyncio.run(whole())
    assert sum(isinstance(answer, Credentials) for answer in answers) == 1
    refused = [answer for answer in answers if not isinstance(answer, Credentials)]
    assert all(isinstance(e, IdentityError) and "used already" in str(e) for e in refused)


def test_an_expired_invite_is_refused_by_both_sides(place: Place, tmp_path: Path) -> None:
    created = now() - timedelta(hours=2)
    door = f"127.0.0.1:{place.settings.enrol_port}"
    record, text = create_invite(
        "lund", "Lund", place.sites_door, door, place.authority, created, timedelta(hours=1)
    )
    row = InviteRow(
        record.token_hash,
        "lund",
        "Lund",
        "site",
        record.created.timestamp(),
        record.expires.timestamp(),
        record.ca_fingerprint,
    )
    with Store.open(config.store_url(place.coordinator, place.settings)) as store:
        store.add_invite(row)
    csr = make_site_keys(tmp_path / "keys", "lund", "hanse").csr_pem

    async def whole() -> None:
        async with running(place) as federation:
            with pytest.raises(IdentityError, match="the invite for 'lund' expired at"):
                await join(text, tmp_path / "lund", now())
            with pytest.raises(IdentityError, match="the invite of site 'lund' has expired"):
                # A site whose clock stands still.
                await enrol(place, parse_invite(text, created).token, csr)
            assert not federation.coordinator.store.certificates("lund")

    asyncio.run(whole())


def test_an_invite_names_who_may_use_it(place: Place, tmp_path: Path) -> None:
    """Neither another name in the request, nor a token that was never given out."""
    csr = make_site_keys(tmp_path / "keys", "riga", "hanse").csr_pem

    async def whole() -> None:
        async with running(place) as federation:
            token = parse_invite(await asyncio.to_thread(invited, place), now()).token
            before = federation.coordinator.store.certificates("riga")
            with pytest.raises(IdentityError, match=r"asks for the names .*site/riga.* but the"):
                await enrol(place, token, csr)
            for unknown in (b"", b"\0" * 32, os.urandom(32), os.urandom(100_000)):
                with pytest.raises(IdentityError, match="unknown to this coordinator"):
                    await enrol(place, unknown, csr)
            for nonsense in (b"", b"no request", os.urandom(2000), csr[:-100]):
                other = parse_invite(await asyncio.to_thread(invited, place, "oslo"), now()).token
                with pytest.raises(IdentityError, match="the certificate request"):
                    await enrol(place, other, nonsense)
            assert federation.coordinator.store.certificates("riga") == before
            assert not federation.coordinator.store.certificates("lund")

    asyncio.run(whole())


def test_an_invite_that_was_cut_off_or_changed_contacts_nobody(
    place: Place, tmp_path: Path
) -> None:
    text = invited(place)
    half = len(text) // 2
    broken = [text[:-1], text[:half], text[half:], text[:half] + "x" + text[half + 1 :], "", "hi"]
    for damaged in broken:  # the coordinator does not run
        with pytest.raises(IdentityError):
            asyncio.run(join(damaged, tmp_path / "lund", now()))
    assert not (tmp_path / "lund").exists()


def test_while_the_coordinator_is_down_an_invite_stays_good(place: Place) -> None:
    text, folder = invited(place), place.site("lund")
    with pytest.raises(Unavailable):
        asyncio.run(join(text, folder, now()))
    keys = sorted(path.read_bytes() for path in (folder / KEYS).rglob("*.key"))
    assert len(keys) == 2

    async def whole() -> None:
        async with running(place):
            await join(text, folder, now())
            async with raw_site(place, "lund") as site:
                await site.attend()

    asyncio.run(whole())
    assert sorted(path.read_bytes() for path in (folder / KEYS).rglob("*.key")) == keys


def test_a_revoked_site_gets_no_new_invite_and_its_old_one_ends(place: Place) -> None:
    async def whole() -> None:
        async with running(place) as federation:
            text = await asyncio.to_thread(invited, place, "kiel")
            await federation.revoke("kiel")
            with pytest.raises(IdentityError, match="site 'kiel' was revoked"):
                await join(text, place.path / "again", now())
            with pytest.raises(IdentityError, match="site 'kiel' was revoked"):
                await asyncio.to_thread(invited, place, "kiel")

    asyncio.run(whole())


# ------------------------------------------------------------------ what stays at the site


@asynccontextmanager
async def recording_door(place: Place) -> AsyncIterator[list[bytes]]:
    """An enrolment door that writes down what it is sent and refuses."""
    heard: list[bytes] = []
    own = load_credentials(place.coordinator / "keys")

    async def enrolling(request: bytes, context: Any) -> None:
        heard.append(request)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not today")

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((serve(ENROL.service, {ENROL: cast("Any", enrolling)}),))
    server.add_secure_port(
        f"127.0.0.1:{place.settings.enrol_port}",
        grpc.ssl_server_credentials([(own.key_pem, own.chain_pem)]),
    )
    await server.start()
    try:
        yield heard
    finally:
        await server.stop(0)


def secrets_of(folder: Path) -> list[bytes]:
    """The private keys in a site's folder, in every form in which they could travel."""
    found = []
    for path in (folder / KEYS).rglob("*.key"):
        if path.parent.is_symlink():
            continue
        pem = path.read_bytes()
        found.append(b"".join(pem.splitlines()[1:-1]))
        if path.name == "tls.key":
            key = read_key(pem, "tls.key")
            number = key.private_numbers().private_value
            found += [number.to_bytes(32, "big"), str(number).encode(), f"{number:x}".encode()]
            form: Any = key
        else:
            form = read_signing_key(pem, "signing.key")
            raw = form.private_bytes_raw()
            found += [raw, raw.hex().encode()]
        found.append(
            form.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return found


def test_private_keys_never_leave(place: Place) -> None:
    """Not in the request, nor in what the coordinator keeps; and only their owner reads them."""
    folder = place.site("lund")

    text = invited(place)

    async def whole() -> list[bytes]:
        async with recording_door(place) as heard:
            with pytest.raises(Unavailable):
                await join(text, folder, now())
        async with running(place):
            await join(text, folder, now())
        return heard

    (request,) = asyncio.run(whole())
    secrets = secrets_of(folder)
    assert len(secrets) >= 8
    kept = b"".join(p.read_bytes() for p in place.coordinator.rglob("*") if p.is_file())
    for secret in secrets:
        assert secret not in request
        assert secret not in kept
    token = parse_invite(text, now()).token
    assert token in request, "the request was not understood"
    assert token not in kept
    assert token_hash(token).encode() in kept, "the store was not understood"
    for path in (folder / KEYS).rglob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (folder / KEYS).stat().st_mode & 0o777 == 0o700


def test_a_site_shows_its_token_to_its_own_coordinator_only(place: Place, tmp_path: Path) -> None:
    """Who answers under the invite's address without the pinned root hears nothing."""
    stranger = make(tmp_path / "stranger", [], "hanse")
    settings = stranger.coordinator / config.SETTINGS
    text = settings.read_text().replace(
        str(stranger.settings.enrol_port), str(place.settings.enrol_port)
    )
    settings.write_text(text)

    async def whole() -> list[bytes]:
        async with recording_door(stranger) as heard:
            with pytest.raises(Unavailable):
                await join(invited(place), tmp_path / "lund", now())
            return heard

    assert asyncio.run(whole()) == []
