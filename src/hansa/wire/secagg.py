"""The messages of secure aggregation as protobuf, and back. What they mean is checked elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hansa.errors import UpdateRejected
from hansa.secagg.messages import (
    Advert,
    Answer,
    Inbox,
    Roster,
    Shares,
    Survivors,
    ToClient,
    ToServer,
    Vote,
    Votes,
)
from hansa.wire.v1 import sites_pb2 as pb

STEPS: Final = {"roster": 1, "inbox": 2, "survivors": 3, "votes": 4}
"""The coordinator's messages in their order."""

MOST: Final = 1 << 16
"""Clients of a cohort: a number from the wire becomes a bit of a set, which must stay small."""


def write_ask(round_id: pb.RoundId, nonce: bytes, message: ToClient, revoked: str) -> pb.ToSite:
    """What a client is sent."""
    ask = pb.SecAggAsk(round=round_id, nonce=nonce)
    match message:
        case Roster():
            ask.roster.leaves = message.leaves
            ask.roster.degree, ask.roster.threshold = message.degree, message.threshold
            ask.roster.revocations = revoked
            for number, advert in message.adverts.items():
                ask.roster.adverts[number].CopyFrom(_write_advert(advert))
        case Inbox():
            ask.inbox.sealed.update(message.sealed)
            ask.inbox.SetInParent()
        case Survivors():
            ask.survivors.alive = _write_set(message.alive)
            ask.survivors.dropped = _write_set(message.dropped)
        case Votes():
            ask.votes.signatures.update(message.signatures)
            ask.votes.SetInParent()
    return pb.ToSite(secagg=ask)


def read_ask(ask: pb.SecAggAsk) -> ToClient:
    """The client's side of `write_ask`.

    Raises:
      UpdateRejected: there is no message in it, or no cohort has so many clients.
    """
    match ask.WhichOneof("body"):
        case "roster":
            return Roster(
                ask.roster.leaves,
                ask.roster.degree,
                ask.roster.threshold,
                {n: _read_advert(advert) for n, advert in _numbered(ask.roster.adverts).items()},
            )
        case "inbox":
            return Inbox(_numbered(ask.inbox.sealed))
        case "survivors":
            return Survivors(_read_set(ask.survivors.alive), _read_set(ask.survivors.dropped))
        case "votes":
            return Votes(_numbered(ask.votes.signatures))
    raise _empty()


def write_reply(round_id: pb.RoundId, nonce: bytes, message: ToServer) -> pb.FromSite:
    """What a client answers, except its masked update."""
    reply = pb.SecAggReply(round=round_id, nonce=nonce)
    match message:
        case Advert():
            reply.advert.CopyFrom(_write_advert(message))
        case Shares():
            reply.shares.commitment = message.commitment
            reply.shares.sealed.update(message.sealed)
        case Vote():
            reply.vote = message.signature
        case Answer():
            reply.answer.seeds.update(message.seeds)
            reply.answer.keys.update(message.keys)
            reply.answer.SetInParent()
    return pb.FromSite(secagg=reply)


def read_reply(reply: pb.SecAggReply) -> ToServer:
    """The server's side of `write_reply`.

    Raises:
      UpdateRejected: there is no message in it, or no cohort has so many clients.
    """
    match reply.WhichOneof("body"):
        case "advert":
            return _read_advert(reply.advert)
        case "shares":
            return Shares(reply.shares.commitment, _numbered(reply.shares.sealed))
        case "vote":
            return Vote(reply.vote)
        case "answer":
            return Answer(_numbered(reply.answer.seeds), _numbered(reply.answer.keys))
    raise _empty()


def _write_advert(advert: Advert) -> pb.Advert:
    return pb.Advert(
        name=advert.name,
        sealing_key=advert.sealing_key,
        masking_key=advert.masking_key,
        signature=advert.signature,
        document=advert.document,
    )


def _read_advert(advert: Any) -> Advert:
    return Advert(
        advert.name, advert.sealing_key, advert.masking_key, advert.signature, advert.document
    )


def _write_set(clients: int) -> bytes:
    return clients.to_bytes((clients.bit_length() + 7) // 8, "big")


def _read_set(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _numbered(values: Mapping[int, Any]) -> dict[int, Any]:
    if any(number >= MOST for number in values):
        raise UpdateRejected(
            f"a message of the secure aggregation names a client beyond {MOST:,}",
            fix="number clients by the order of their adverts' hashes",
        )
    return dict(values)


def _empty() -> UpdateRejected:
    return UpdateRejected(
        "a message of the secure aggregation is empty", fix="run the same version on both sides"
    )
