"""No token, no key and no number of an update is ever written where it does not belong."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.coordinator.inviting import invite
from hansa.core.job import Rounds
from hansa.core.parts import Update
from hansa.errors import HansaError
from hansa.identity.invites import parse_invite
from hansa.identity.keys import make_site_keys
from hansa.remote import Remote
from hansa.site.join import join
from hansa.site.outbox import Package
from tests.support.federation import LONG, Federation, Place, job, running
from tests.support.rawsite import raw_site

NUMBERS = (1234.5, -2345.25, 3456.75, 5678.0625, 4567.125)
"""An update that nobody trains, each number exact in float32 and easy to find."""


@dataclass
class Secrets:
    """What is looked for, each in every form in which it could be written."""

    forms: dict[str, str]

    @classmethod
    def of(cls, place: Place, invites: list[str]) -> Secrets:
        found: dict[str, bytes] = {"secret.key": (place.coordinator / "secret.key").read_bytes()}
        forms: dict[str, str] = {
            json.loads((place.coordinator / "operator.json").read_text())["token"]: "operator"
        }
        for text in invites:
            found["an invite's token"] = parse_invite(text, datetime.now(UTC)).token
            forms[text[40:90]] = "an invite"
        for path in place.path.rglob("*.key"):
            content = path.read_bytes()
            if b"PRIVATE KEY" in content:
                for line in content.splitlines()[1:-1]:
                    forms[line.decode()] = str(path)
                found[str(path)] = base64.b64decode(b"".join(content.splitlines()[1:-1]))[-32:]
        for name, raw in found.items():
            forms |= {
                raw.hex(): name,
                base64.b64encode(raw).decode().rstrip("="): name,
                base64.urlsafe_b64encode(raw).decode().rstrip("="): name,
                repr(raw)[2:-1]: name,
            }
        return cls(forms)

    def add_numbers(self, content: bytes) -> None:
        for start in range(0, 4 * len(NUMBERS), 4):
            self.forms[content[start : start + 4].hex()] = "bytes of an update"
        self.forms[repr(content)[2:60]] = "bytes of an update"
        self.forms |= {f"{abs(number):.10g}": "a number of an update" for number in NUMBERS}

    def check(self, where: str, text: str) -> None:
        for form, name in self.forms.items():
            assert form not in text, f"{name} is in {where}: ...{_around(text, form)}..."


def _around(text: str, form: str) -> str:
    place = text.index(form)
    return text[max(place - 200, 0) : place + 40]


def test_the_numbers_are_found_where_they_are_written() -> None:
    """Without this the tests below would say nothing."""
    secrets = Secrets({})
    content = np.array(NUMBERS, "<f4").tobytes()
    secrets.add_numbers(content)
    for text in (str(np.array(NUMBERS)), repr(list(NUMBERS)), content.hex(), repr(content)):
        with pytest.raises(AssertionError, match="of an update is in"):
            secrets.check("a line", text)


# ------------------------------------------------------------------ logs, events, streams


async def _everything(place: Place, federation: Federation, secrets: Secrets) -> list[Any]:
    """Enrolment, rounds, refusals of every kind, revocation; returns what was at hand meanwhile."""
    await federation.agents("bremen", "danzig")
    async with raw_site(place, "kiel") as site:
        await site.attend()
        job_id, plan = await federation.submit(job(rounds=Rounds(count=1, deadline=LONG)))
        await site.take_offer()
        order = await site.hear("work")
        parcel = await site.prepared(order)
        vector = np.frombuffer(parcel.content, "<f4").copy()
        plan.layout.slice(vector, "delta")[:] = NUMBERS
        secrets.add_numbers(vector.tobytes())
        wild = vector.copy()
        plan.layout.slice(wild, "metrics")[0] = np.inf
        odd = parcel.with_content(vector.tobytes())
        for lie in (
            parcel.with_content(wild.tobytes()),
            odd.with_header(sha256="0" * 64),
            odd.with_header(plan_digest="0" * 64),
        ):
            with pytest.raises(HansaError):
                await site.send(lie.parts())
            await _forget_tries(federation, order)
        with pytest.raises(HansaError):
            await site.send([odd.header.SerializeToString(), *odd.parts()])
        package = Package.of("hanse", "kiel", plan, order, vector)
        await site.send(odd.parts())
        intake = federation.coordinator.runner._floor.desk.find(_key(order))
        at_hand = [
            federation.coordinator,
            federation.coordinator.settings,
            federation.coordinator.runner._floor,
            list(federation.coordinator.runner._open.values()),
            federation.coordinator.keyring.current(),
            list(federation.coordinator.roster._present.values()),
            federation.coordinator.members,
            intake,
            vars(intake) if intake else None,
            package,
            Update(vector, plan.layout),
            site.credentials,
            federation.remote,
            Remote.load(place.coordinator),
            plan,
        ]
        await site.decline((await site.hear("work")).round, "enough")
        await federation.ended(job_id)
        at_hand.append(federation.records(job_id))
        await federation.revoke("kiel", "seen enough")
        with pytest.raises(HansaError):
            await site.renew(make_site_keys(place.path / "new", "kiel", "hanse").csr_pem)
    return at_hand


async def _forget_tries(federation: Federation, order: Any) -> None:
    """Lets a site lie more often than a round forgives."""
    intake = federation.coordinator.runner._floor.desk.find(_key(order))
    assert intake is not None
    intake._broken.clear()


def _key(order: Any) -> Any:
    from hansa.coordinator.desk import RoundKey
    from hansa.core.contribute import Purpose

    name = order.round
    return RoundKey(name.job, Purpose(name.purpose), name.round, name.attempt)


def test_no_secret_is_logged_or_shown(
    place: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    invites = [
        invite(place.coordinator, name, "somebody", datetime.now(UTC)) for name in ("lund", "oslo")
    ]
    secrets = Secrets.of(place, invites)

    async def whole() -> tuple[list[Any], list[str]]:
        async with running(place) as federation:
            await join(invites[0], place.path / "lund", datetime.now(UTC))
            with pytest.raises(HansaError):
                await join(invites[0], place.path / "again", datetime.now(UTC))
            at_hand = await _everything(place, federation, secrets)
            at_hand += [parse_invite(invites[1], datetime.now(UTC))]
            wrong = Remote(federation.remote.url, "wrong-token", federation.remote.root)
            with pytest.raises(HansaError):
                await asyncio.to_thread(wrong.jobs)
            events = [repr(event) for event in federation.coordinator.store.events()]
            return at_hand, events

    at_hand, events = asyncio.run(whole())
    secrets.forms |= Secrets.of(place, invites).forms  # the keys that were made meanwhile
    lines = [_line(record) for record in caplog.records]
    assert len(lines) > 20
    for line in lines:
        secrets.check("a log line", line)
    for event in events:
        secrets.check("an event", event)
    for thing in at_hand:
        secrets.check(f"the repr of {type(thing).__name__}", repr(thing))
    out, err = capfd.readouterr()
    secrets.check("standard output", out)
    secrets.check("standard error", err)
    for site in ("bremen", "danzig"):
        log = (place.site(site) / "left-the-building.jsonl").read_text()
        secrets.check("a site's log", log)


def _line(record: logging.LogRecord) -> str:
    """A record with everything that a formatter could make of it."""
    text = f"{record.getMessage()} {record.args!r}"
    if record.exc_info:
        text += "".join(traceback.format_exception(*record.exc_info))
    return text


def test_only_their_owner_reads_the_files(place: Place) -> None:
    """All that a coordinator and a site keep, the state of a finished job included."""

    async def whole() -> None:
        async with running(place) as federation:
            await federation.agents("bremen", "danzig", "kiel")
            job_id, _ = await federation.submit(job())
            await federation.ended(job_id)

    asyncio.run(whole())
    public = {"root.pem", "chain.pem", "document.json"}
    for path in (place.coordinator, *place.coordinator.rglob("*")):
        _check_mode(path, public)
    for path in (place.site("bremen") / "keys").rglob("*"):
        _check_mode(path, public)
    assert (place.site("bremen") / "left-the-building.jsonl").stat().st_mode & 0o077 == 0


def _check_mode(path: Path, public: set[str]) -> None:
    if path.is_symlink() or path.name in public or path.name.startswith("intermediate-"):
        return
    assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
