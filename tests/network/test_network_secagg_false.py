"""A coordinator that does not lead a masked round as agreed: who notices, what it still gets."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from hansa.coordinator import conversation
from hansa.coordinator.rows import Status
from hansa.core.job import Rounds
from hansa.core.round import RoundRecord
from hansa.secagg.agreement import KeyPair
from hansa.site.agent import LOG
from hansa.site.logbook import read
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Federation, Place, running
from tests.support.masked import FOUR, SOON, Overheard, masked_job, round_of

VICTIM = "kiel"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(conversation, "ABSENT", SOON)
    caplog.set_level(logging.INFO)


@dataclass
class Scene:
    """What a liar knows: who has which number in this round, and what it said before."""

    numbers: dict[str, int] = field(default_factory=dict)
    said: dict[str, pb.ToSite] = field(default_factory=dict)

    @property
    def me(self) -> int:
        return self.numbers[VICTIM]

    @property
    def other(self) -> int:
        return self.numbers["bremen"]


@dataclass(frozen=True)
class Lie:
    """What one site is told instead of one message.

    Attributes:
      kind: the message.
      tell: what is said instead.
      words: how the site names it.
    """

    kind: str
    tell: Callable[[pb.ToSite, Scene], list[pb.ToSite]]
    words: str


def changed(
    change: Callable[[Any, Scene], object],
) -> Callable[[pb.ToSite, Scene], list[pb.ToSite]]:
    """One message with something changed in its body."""

    def tell(message: pb.ToSite, scene: Scene) -> list[pb.ToSite]:
        ask = message.secagg
        change(getattr(ask, ask.WhichOneof("body")), scene)
        return [message]

    return tell


def _another_key(roster: Any, scene: Scene) -> None:
    roster.adverts[scene.other].masking_key = KeyPair.fresh().public


def _two_clients(roster: Any, scene: Scene) -> None:
    keep = sorted((scene.me, scene.other))
    roster.leaves = b"".join(roster.leaves[32 * n : 32 * n + 32] for n in keep)
    roster.degree, roster.threshold = 1, 2


def _one_less(roster: Any, scene: Scene) -> None:
    del roster.adverts[scene.other]


def _lower(roster: Any, scene: Scene) -> None:
    roster.threshold -= 1


def _sparser(roster: Any, scene: Scene) -> None:
    roster.degree = 2


def _no_list(roster: Any, scene: Scene) -> None:
    roster.revocations = ""


def _swapped(inbox: Any, scene: Scene) -> None:
    one, other = sorted(inbox.sealed)[:2]
    inbox.sealed[one], inbox.sealed[other] = inbox.sealed[other], inbox.sealed[one]


def _hardly_any(inbox: Any, scene: Scene) -> None:
    for number in sorted(inbox.sealed)[1:]:
        del inbox.sealed[number]


def _from_myself(inbox: Any, scene: Scene) -> None:
    inbox.sealed[scene.me] = inbox.sealed[scene.other]


def _survivors(
    change: Callable[[int, int, Scene], tuple[int, int]],
) -> Callable[[pb.ToSite, Scene], list[pb.ToSite]]:
    def rewrite(survivors: Any, scene: Scene) -> None:
        alive = int.from_bytes(survivors.alive, "big")
        new = change(alive, int.from_bytes(survivors.dropped, "big"), scene)
        survivors.alive, survivors.dropped = (number.to_bytes(8, "big") for number in new)

    return changed(rewrite)


def _no_votes(votes: Any, scene: Scene) -> None:
    votes.signatures.clear()


def _forged(votes: Any, scene: Scene) -> None:
    for number in votes.signatures:
        votes.signatures[number] = secrets.token_bytes(64)


def _later_one(message: pb.ToSite, scene: Scene) -> list[pb.ToSite]:
    """The survivors of the round before, where the sealed shares are due."""
    ask = pb.SecAggAsk(round=message.secagg.round, nonce=message.secagg.nonce)
    ask.survivors.alive = b"\x0f"
    return [pb.ToSite(secagg=ask)]


def _empty(message: pb.ToSite, scene: Scene) -> list[pb.ToSite]:
    """A hundred messages without a body, and then nothing."""
    ask = pb.SecAggAsk(round=message.secagg.round, nonce=message.secagg.nonce)
    ask.votes.SetInParent()
    return [pb.ToSite(secagg=ask)] * 100


LIES = {
    "another key": Lie("roster", changed(_another_key), "(adverts)"),
    "two clients": Lie("roster", changed(_two_clients), "(cohort)"),
    "an advert is missing": Lie("roster", changed(_one_less), "(neighbours)"),
    "a lower threshold": Lie("roster", changed(_lower), "(threshold)"),
    "a sparser graph": Lie("roster", changed(_sparser), "(degree)"),
    "no list of revoked sites": Lie("roster", changed(_no_list), "the list of revoked sites"),
    "swapped shares": Lie("inbox", changed(_swapped), "(sealed)"),
    "hardly any shares": Lie("inbox", changed(_hardly_any), "(too few shares)"),
    "its own shares": Lie("inbox", changed(_from_myself), "(shares)"),
    "survivors before shares": Lie("inbox", _later_one, "(unexpected)"),
    "votes before shares": Lie("inbox", _empty, "(unexpected)"),
    "both alive and dropped": Lie(
        "survivors", _survivors(lambda alive, _, s: (alive, 1 << s.other)), "(overlap)"
    ),
    "itself dropped": Lie(
        "survivors",
        _survivors(lambda alive, _, s: (alive & ~(1 << s.me), 1 << s.me)),
        "(not surviving)",
    ),
    "somebody else": Lie(
        "survivors", _survivors(lambda alive, _, s: (alive | 1 << 9, 0)), "(unknown client)"
    ),
    "somebody left out": Lie(
        "survivors",
        _survivors(lambda alive, _, s: (alive & ~(1 << s.other), 0)),
        "(missing client)",
    ),
    "two survivors": Lie(
        "survivors",
        _survivors(
            lambda alive, _, s: (1 << s.me | 1 << s.other, alive & ~(1 << s.me | 1 << s.other))
        ),
        "(cohort)",
    ),
    "no votes": Lie("votes", changed(_no_votes), "(votes)"),
    "forged votes": Lie("votes", changed(_forged), "(split view)"),
}
EARLY = ("roster", "inbox")
SPOKEN = {
    "roster": ["advert"],
    "inbox": ["advert", "shares"],
    "survivors": ["advert", "shares"],
    "votes": ["advert", "shares", "vote"],
}
"""What has left a site when it hears a message, beside its masked update."""


def lying(federation: Federation, lies: list[Lie]) -> None:
    """Makes a coordinator tell one lie in each round, by number."""
    roster, scenes = federation.coordinator.roster, dict[int, Scene]()
    push = roster.push

    def pushing(site: str, message: pb.ToSite) -> bool:
        kind = message.secagg.WhichOneof("body")
        if site != VICTIM or kind is None or message.secagg.round.purpose != "train":
            return push(site, message)
        number = message.secagg.round.round
        scene = scenes.setdefault(number, Scene())
        if kind == "roster":
            near = message.secagg.roster.adverts
            scene.numbers = {advert.name: number for number, advert in near.items()}
            scene.numbers[VICTIM] = next(n for n in range(len(FOUR)) if n not in near)
        copy = pb.ToSite()
        copy.CopyFrom(message)
        told = lies[number].tell(copy, scene) if lies[number].kind == kind else [message]
        for each in told:
            push(site, each)
        return True

    roster.push = pushing  # type: ignore[method-assign]


def test_each_lie_is_named_and_nothing_more_leaves(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """One round for each: the others go on, with the victim's update if it had left before."""
    lies = list(LIES.values())
    wanted = masked_job(rounds=Rounds(count=len(lies), deadline=LONG))

    async def whole() -> tuple[list[RoundRecord], list[pb.FromSite]]:
        async with running(place) as federation:
            lying(federation, lies)
            await federation.agents(*(site for site in FOUR if site != VICTIM))
            victim = federation.agent(VICTIM, Overheard)
            await federation.attending(VICTIM)
            job_id, _ = await federation.submit(wanted)
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            assert isinstance(victim.agent, Overheard)
            return federation.records(job_id), victim.agent.said

    records, said = asyncio.run(whole())
    rounds = [record for record in records if record.purpose.value == "train"]
    left = {
        entry["round"]
        for entry in read(place.site(VICTIM) / LOG)
        if entry["kind"] == "left" and entry["purpose"] == "train"
    }
    for number, (name, lie) in enumerate(LIES.items()):
        early, record = lie.kind in EARLY, rounds[number]
        assert (VICTIM in record.members) is not early, name
        assert len(record.members) == 3 + (not early), name
        assert (number in left) is not early, name
        mine = [m for m in said if round_of(m) == number]
        spoken = [m.secagg.WhichOneof("body") for m in mine if m.HasField("secagg")]
        reasons = [m.declined.reason for m in mine[len(spoken) :]]
        assert spoken == SPOKEN[lie.kind], name
        assert all(reasons), (name, "it spoke after it had refused")
        assert lie.words in reasons[0], (name, reasons[0])
        for logger in ("hansa.coordinator.conversation", "hansa.site.rounds"):
            named = [r.getMessage() for r in caplog.records if r.name == logger]
            assert any(lie.words in line for line in named), (name, logger)
        if early:
            (dropout,) = record.dropouts
            assert lie.words in dropout.reason, name
