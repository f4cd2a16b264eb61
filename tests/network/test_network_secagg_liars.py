"""A site that does not keep to the protocol: the round goes on without it, and the log names it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from hansa.coordinator import conversation
from hansa.coordinator.rows import Status
from hansa.core.job import Rounds
from hansa.core.round import RoundRecord
from hansa.errors import HansaError
from hansa.secagg.messages import Advert, Answer, Masked, Shares, Survivors, Vote
from hansa.wire.secagg import write_reply
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import LONG, Place
from tests.support.masked import SOON, Player, masked_job, offered, play, scripted

LIAR = "kiel"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(conversation, "ABSENT", SOON)
    caplog.set_level(logging.DEBUG, "hansa")


@dataclass(frozen=True)
class Lie:
    """What a site does in a round after some honest steps.

    Attributes:
      after: honest steps.
      tell: the lie.
      words: what the coordinator's log says of it; empty where it need not notice.
      counted: whether the site's update is in the sum, since it was delivered before.
    """

    after: int
    tell: Callable[[Player, Place], Awaitable[object]]
    words: str
    counted: bool = False


def instead(
    change: Callable[[Any, Player], object],
) -> Callable[[Player, Place], Awaitable[object]]:
    """Another message in the place of the honest one."""

    async def tell(player: Player, place: Place) -> None:
        message: Any = change(await player.make(), player)
        await player.send(message)

    return tell


def _unsigned(advert: Advert, _: Player) -> Advert:
    return dataclasses.replace(advert, signature=secrets.token_bytes(64))


def _no_signature(advert: Advert, _: Player) -> Advert:
    return dataclasses.replace(advert, signature=b"", document="{")


def _of_another_session(advert: Advert, player: Player) -> Advert:
    other = dataclasses.replace(player.session, attempt=7)
    sign = player.raw.credentials.signing_key().sign
    return dataclasses.replace(advert, signature=sign(advert.signed(other)))


def _in_another_name(advert: Advert, player: Player) -> Advert:
    bare = dataclasses.replace(advert, name="bremen")
    sign = player.raw.credentials.signing_key().sign
    return dataclasses.replace(bare, signature=sign(bare.signed(player.session)))


async def _another_sites_advert(player: Player, place: Place) -> None:
    """Signed by that site for this very session, as if it colluded."""
    honest, other = await player.make(), place.credentials("bremen")
    assert isinstance(honest, Advert)
    bare = dataclasses.replace(honest, name="bremen", document=other.document)
    sign = other.signing_key().sign
    await player.send(dataclasses.replace(bare, signature=sign(bare.signed(player.session))))


def _too_early(_: Advert, __: Player) -> Vote:
    return Vote(bytes(64))


def _for_fewer(shares: Shares, _: Player) -> Shares:
    return Shares(shares.commitment, dict(list(shares.sealed.items())[1:]))


def _for_a_client_far_away(shares: Shares, _: Player) -> Shares:
    return Shares(shares.commitment, {**shares.sealed, 2**32 - 1: b"x"})


def _other_survivors(_: Vote, player: Player) -> Vote:
    assert player.asked.HasField("survivors")
    alive = int.from_bytes(player.asked.survivors.alive, "big")
    signed = Survivors(alive & alive - 1, 1).signed(secrets.token_bytes(32))
    return Vote(player.raw.credentials.signing_key().sign(signed))


def _fewer_shares(answer: Answer, _: Player) -> Answer:
    return Answer(dict(list(answer.seeds.items())[1:]), answer.keys)


def _both_secrets(answer: Answer, _: Player) -> Answer:
    return Answer(answer.seeds, answer.seeds)


def _far_away_shares(answer: Answer, _: Player) -> Answer:
    return Answer({**answer.seeds, 2**32 - 1: b"x", 2**32 - 2: b"x"}, answer.keys)


def _wrong_shares(answer: Answer, _: Player) -> Answer:
    """In their places, and of nobody's secret."""
    return Answer({number: secrets.token_bytes(33) for number in answer.seeds}, answer.keys)


def _short_shares(answer: Answer, _: Player) -> Answer:
    return Answer(dict.fromkeys(answer.seeds, b"x"), answer.keys)


async def _nothing_in_it(player: Player, _: Place) -> None:
    await player.say(pb.SecAggReply(round=player.order.round, nonce=player.order.nonce))


async def _update(player: Player) -> Masked:
    masked = await player.make()
    assert isinstance(masked, Masked)
    return masked


async def _another_hash(player: Player, _: Place) -> None:
    parcel = player.parcel((await _update(player)).vector)
    for _try in range(3):
        with pytest.raises(HansaError):
            await player.raw.send(parcel.with_header(sha256="0" * 64).parts())


async def _too_long(player: Player, _: Place) -> None:
    parcel = player.parcel((await _update(player)).vector)
    for _try in range(3):
        with pytest.raises(HansaError):
            await player.raw.send(parcel.with_content(parcel.content + b"more").parts())


async def _malformed(player: Player, _: Place) -> None:
    """Ends the connection; the site comes back and has nothing to say."""
    await player.make()
    await player.raw.stream.write(b"\x52\xff\xff\xff\xff\x0f garbage")
    await player.raw.cut_off()
    await player.raw.attend()
    await player.raw.decline(player.order.round, "what was I doing?")


async def _for_other_rounds(player: Player, _: Place) -> None:
    """Nobody listens; the honest messages that follow count."""
    advert = await player.make()
    name = player.order.round
    other = pb.RoundId(job=name.job, purpose=name.purpose, round=name.round + 1)
    for round_id, nonce in ((other, player.order.nonce), (name, bytes(32)), (name, b"")):
        for message in (advert, Vote(bytes(64)), Answer({}, {})):
            await player.say(write_reply(round_id, nonce, message).secagg)
    await player.send(advert)
    await player.steps(4)


LIES = {
    "a forged signature": Lie(0, instead(_unsigned), "the advert of 'kiel' is not signed"),
    "no signature": Lie(0, instead(_no_signature), "the advert of 'kiel' is not signed"),
    "another session": Lie(0, instead(_of_another_session), "the advert of 'kiel' is not signed"),
    "another site": Lie(0, _another_sites_advert, "the advert of 'kiel' is not signed"),
    "another name": Lie(0, instead(_in_another_name), "the advert of 'kiel' is not signed"),
    "a vote at first": Lie(0, instead(_too_early), "'kiel' sent Vote where Advert was due"),
    "nothing": Lie(0, _nothing_in_it, "a message of the secure aggregation is empty"),
    "malformed": Lie(0, _malformed, "what was I doing?"),
    "fewer sealed": Lie(1, instead(_for_fewer), "'kiel' sealed shares for others"),
    "far away": Lie(1, instead(_for_a_client_far_away), "names a client beyond 65,536"),
    "another hash": Lie(2, _another_hash, "another SHA-256 than announced"),
    "too long": Lie(2, _too_long, "has another size than the plan"),
    "other survivors": Lie(3, instead(_other_survivors), "the vote of 'kiel' is not", True),
    "fewer shares": Lie(4, instead(_fewer_shares), "the answer of 'kiel' holds other", True),
    "both secrets": Lie(4, instead(_both_secrets), "the answer of 'kiel' holds other", True),
    "far away shares": Lie(4, instead(_far_away_shares), "names a client beyond 65,536", True),
    "wrong shares": Lie(4, instead(_wrong_shares), "", True),
    "short shares": Lie(4, instead(_short_shares), "", True),
    "other rounds": Lie(0, _for_other_rounds, "site kiel spoke out of turn", True),
}


def test_the_round_goes_on_without_a_site_that_lies(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """One round for each lie; the next one begins as if nothing had been."""
    wanted = masked_job(rounds=Rounds(count=len(LIES), deadline=LONG))
    lines: list[list[str]] = []

    async def whole() -> list[RoundRecord]:
        async with scripted(place, LIAR) as (federation, (liar,)):
            job_id, _ = await offered(federation, [liar], wanted)
            for number, lie in enumerate(LIES.values()):
                caplog.clear()
                order = await liar.hear("work")
                while order.round.round < number:  # it was pushed again after a lost connection
                    order = await liar.hear("work")
                player = await play(liar, place, order)
                delivery = await player.steps(lie.after)
                await lie.tell(player, place)
                await federation.reached(job_id, number + 1)
                if delivery is not None:
                    await delivery  # its update counts, and this is the receipt
                lines.append([record.getMessage() for record in caplog.records])
            await liar.decline((await liar.hear("work")).round)
            row = await federation.ended(job_id)
            assert (row.status, row.reason) == (Status.DONE, "")
            return federation.records(job_id)

    records = asyncio.run(whole())
    for record, said, (name, lie) in zip(records, lines, LIES.items(), strict=False):
        assert not record.void, name
        assert (LIAR in record.members) is lie.counted, name
        assert {"bremen", "danzig", "luebeck"} <= set(record.members), name
        noticed = any(lie.words in line and LIAR in line for line in said)
        assert noticed or not lie.words, (name, said)
