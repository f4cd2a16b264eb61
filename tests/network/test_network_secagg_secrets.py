"""What a masked round leaves behind: no secret in any log or file, and no update in memory."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import os
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hansa.coordinator import conversation
from hansa.coordinator.masked import MaskedFold
from hansa.core.job import Cohort, Rounds
from hansa.core.parts import Partial, Update
from hansa.core.round import RoundRecord
from hansa.errors import Unavailable
from hansa.secagg import client, shamir
from hansa.secagg.agreement import KeyPair
from hansa.site import desk, rounds
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Place, running
from tests.support.masked import FOUR, SOON, masked_job
from tests.support.sitejob.task import SITES


@dataclass
class Secrets:
    """What is looked for, in every form in which it could be written.

    Attributes:
      kinds: how many of each kind there are.
      forms: each form, and what it is of.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    forms: dict[bytes, str] = field(default_factory=dict)

    def add(self, kind: str, raw: bytes) -> bytes:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        number = str(int.from_bytes(raw, "big")).encode()
        shown = repr(raw)[2:-1].encode()
        for form in (raw, raw.hex().encode(), raw.hex().upper().encode(), number, shown):
            self.forms[form] = kind
        for before in range(3):  # where it begins within a longer text
            self.forms[base64.b64encode(bytes(before) + raw)[4:-4]] = kind
            self.forms[base64.urlsafe_b64encode(bytes(before) + raw)[4:-4]] = kind
        return raw

    def add_update(self, words: Any) -> Any:
        self.add("update", words[:8].tobytes())
        self.forms[", ".join(str(word) for word in words[:4]).encode()] = "update"
        return words

    def check(self, where: str, content: bytes) -> None:
        for form, kind in self.forms.items():
            assert form not in content, f"a secret ({kind}) is in {where}"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Every secret that agents of this process make from now on."""
    kept = Secrets()
    fresh, agree, split, work = KeyPair.fresh, KeyPair.agree, shamir.split, desk.work

    def making() -> KeyPair:
        pair = fresh()
        kept.add("private key", pair.secret())
        return pair

    def agreeing(self: KeyPair, *rest: Any) -> bytes:
        return kept.add("agreed key", agree(self, *rest))

    def splitting(*rest: Any) -> list[bytes]:
        return [kept.add("share", share) for share in split(*rest)]

    def drawing(size: int) -> bytes:
        return kept.add("seed", os.urandom(size))

    monkeypatch.setattr(KeyPair, "fresh", staticmethod(making))
    monkeypatch.setattr(KeyPair, "agree", agreeing)
    monkeypatch.setattr(client, "split", splitting)
    monkeypatch.setattr(client, "os", SimpleNamespace(urandom=drawing))
    monkeypatch.setattr(rounds, "work", lambda *rest: kept.add_update(work(*rest)))
    return kept


def test_secrets_are_found_where_they_are_written() -> None:
    """Without this the test below would say nothing."""
    secrets, raw = Secrets(), os.urandom(33)
    secrets.add("share", raw)
    secrets.add_update(np.arange(1_000_000, 1_000_008, dtype="<u4"))
    for content in (
        b"..." + raw + b"...",
        raw.hex().encode(),
        repr(raw).encode(),
        base64.b64encode(b"a" + raw + b"more"),
        base64.b64encode(b"ab" + raw + b"more"),
        str(list(range(1_000_000, 1_000_008))).encode(),
    ):
        with pytest.raises(AssertionError, match="a secret"):
            secrets.check("here", content)


def test_no_secret_is_in_a_log_or_a_file(
    place: Place, kept: Secrets, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest round, one in which a site is lied to, and one whose coordinator loses a site."""
    monkeypatch.setattr(conversation, "ABSENT", SOON)
    caplog.set_level(logging.DEBUG)
    looked: list[str] = []

    def look() -> None:
        for path in place.path.rglob("*"):
            if path.is_file():
                looked.append(str(path))
                kept.check(str(path.relative_to(place.path)), path.read_bytes())

    async def whole() -> list[RoundRecord]:
        async with running(place) as federation:
            await federation.agents(*FOUR)
            roster = federation.coordinator.roster
            push = roster.push

            def pushing(site: str, message: pb.ToSite) -> bool:
                kind, round_number = message.secagg.WhichOneof("body"), message.secagg.round.round
                if kind in ("survivors", "votes") and site == "bremen":
                    look()  # in the middle, when most is known
                if kind == "inbox" and site == "kiel" and round_number == 1:
                    sealed = message.secagg.inbox.sealed
                    for sender in sealed:
                        sealed[sender] = sealed[sender][:-1] + b"x"
                if kind == "votes" and site == "kiel" and round_number == 2:
                    roster.expel("kiel", Unavailable("the line was cut", fix="dial again"))
                return push(site, message)

            roster.push = pushing  # type: ignore[method-assign]
            job_id, _ = await federation.submit(masked_job(rounds=Rounds(count=2, deadline=LONG)))
            await federation.ended(job_id)
            look()
            return federation.records(job_id)

    records = asyncio.run(whole())
    assert [record.void for record in records] == [False] * 3
    assert [len(record.members) for record in records] == [4, 3, 4]
    assert kept.kinds.keys() == {"private key", "agreed key", "share", "seed", "update"}
    assert min(kept.kinds.values()) >= 4 * 3
    for record in caplog.records:
        kept.check(f"the log of {record.name}", record.getMessage().encode())
    kept.check("the log", caplog.text.encode())
    names = {Path(path).name for path in looked}
    assert {"sessions.json", "left-the-building.jsonl", "site.toml"} <= names
    look()


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize("count", [3, 6])
def test_masked_updates_are_not_kept(
    module_place: Place, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all have come, none of them is in memory any more, however many they were."""
    came: list[weakref.ref[Any]] = []
    alive: list[int] = []
    add = MaskedFold.add

    def adding(fold: MaskedFold, partial: Partial, name: str, update: Update) -> Partial:
        came.append(weakref.ref(update.vector))
        return add(fold, partial, name, update)

    monkeypatch.setattr(MaskedFold, "add", adding)
    once = Rounds(count=1, deadline=LONG, quorum=3)

    async def whole() -> None:
        async with running(module_place) as federation:
            await federation.agents(*SITES[:count])
            roster = federation.coordinator.roster
            push = roster.push

            def pushing(site: str, message: pb.ToSite) -> bool:
                if message.secagg.HasField("survivors") and not alive:
                    gc.collect()
                    alive.append(sum(update() is not None for update in came))
                return push(site, message)

            roster.push = pushing  # type: ignore[method-assign]
            job_id, _ = await federation.submit(
                masked_job("Wide", cohort=Cohort(population=count), rounds=once)
            )
            await federation.reached(job_id, 1)
            assert len(federation.records(job_id)[0].members) == count

    asyncio.run(whole())
    assert len(came) >= count
    assert alive == [0]
