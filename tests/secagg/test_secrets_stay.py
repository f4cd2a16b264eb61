"""What must not leave does not: not in what is printed, not in logs, not after the end."""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from hansa.secagg import Advert, Answer, Fault, Misuse, Roster, Sum, Votes
from hansa.secagg.client import _Secrets
from hansa.secagg.local import LocalMembers
from tests.secagg.lies import FOLK, ME, number, seated, voted
from tests.support.cohort import Table


def frame(seats: Table, name: str) -> dict[str, Any]:
    """The local names of a client's generator where it waits."""
    found: dict[str, Any] = cast("Any", seats.clients[name]).gi_frame.f_locals
    return found


def forms(secret: bytes) -> set[str]:
    """How bytes may look in text."""
    return {
        secret.hex(),
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        repr(secret)[2:-1],
        secret.decode("latin-1"),
        str(int.from_bytes(secret, "big")),
        str(list(secret))[1:-1],
    }


def renderings(thing: object) -> str:
    record = logging.LogRecord("hansa", logging.INFO, __file__, 1, "%s %r", (thing, thing), None)
    return "\n".join((repr(thing), str(thing), f"{thing}", record.getMessage()))


def assert_hidden(things: list[object], secrets: list[bytes]) -> None:
    text = "\n".join(map(renderings, things))
    for secret in secrets:
        for part in (secret, secret[:8], secret[-8:]):
            assert not any(form in text for form in forms(part))


@dataclass(frozen=True)
class Run:
    """All secrets and all messages of one honest run."""

    secrets: list[bytes]
    things: list[object]


def run() -> Run:
    secrets: list[bytes] = []
    things: list[object] = []
    seats = seated(size=8)
    while seats.ask is not None:
        for name in seats.clients:
            for value in frame(seats, name).values():
                things.append(value)
                if isinstance(value, _Secrets):
                    things += [value.sealing, value.masking]
                    secrets += [value.seed, value.sealing.secret(), value.masking.secret()]
                    secrets += [share for pair in value.held.values() for share in pair]
        things += [seats.ask, *seats.ask.messages.values()]
        seats.step()
    for replies in seats.sent.values():
        things += replies.values()
    for answer in seats.sent[Answer].values():
        secrets += [*answer.seeds.values(), *answer.keys.values()]
    secrets += [key.private_bytes_raw() for key in FOLK.signing.values()]
    secrets += [vector.astype("<u4").tobytes() for vector in seats.vectors.values()]
    things += [FOLK.member(ME), LocalMembers({"a": FOLK.signing[ME]}), seats.sum, seats.session]
    assert isinstance(seats.sum, Sum)
    kept = [thing for thing in things if not isinstance(thing, np.ndarray)]
    return Run([secret for secret in secrets if len(secret) >= 32], kept)


def test_nothing_that_is_printed_or_logged_shows_a_secret():
    found = run()
    assert len(found.secrets) > 6 * (3 + 2 * 6)
    kinds = {type(thing).__name__ for thing in found.things}
    assert kinds >= {
        "Advert", "Roster", "Shares", "Inbox", "Masked", "Survivors", "Vote", "Votes", "Answer",
        "Ask", "Member", "Session", "_Secrets", "_Place", "KeyPair", "Sum", "LocalMembers",
    }  # fmt: skip
    assert_hidden(found.things, found.secrets)


def test_what_would_be_seen_is_seen():
    """The search finds a secret in each of its forms."""
    secret = bytes(range(100, 132))
    for form in forms(secret):
        with pytest.raises(AssertionError):
            assert_hidden([form], [secret])


def test_nothing_is_logged_at_all(caplog):
    with caplog.at_level(logging.DEBUG):
        seated().finish()
    assert caplog.records == []


def test_no_refusal_shows_a_secret():
    seats = voted()
    kept = frame(seats, ME)["secrets"]
    secrets = [kept.seed, *(share for pair in kept.held.values() for share in pair)]
    with pytest.raises(Misuse) as caught:
        seats.clients[ME].send(Votes({}))
    assert caught.value.fault is Fault.VOTES
    assert_hidden([caught.value, caught.value.args, caught.value.fix], secrets)


def emptied(secrets: _Secrets) -> bool:
    return (
        secrets.seed == b""
        and secrets.held == {}
        and not hasattr(secrets, "masking")
        and not hasattr(secrets, "sealing")
    )


def test_what_a_client_held_is_gone_before_its_answer_leaves():
    seats = voted()
    kept = frame(seats, ME)["secrets"]
    assert isinstance(kept, _Secrets)
    assert kept.held
    assert isinstance(seats.clients[ME].send(seats.due(ME, Votes)), Answer)
    assert emptied(kept)


def test_what_a_client_held_is_gone_after_a_refusal():
    seats = seated().step()
    kept = frame(seats, ME)["secrets"]
    with pytest.raises(Misuse):
        seats.clients[ME].send(Roster(b"", 0, 0, {}))
    assert emptied(kept)


def test_what_a_client_held_is_gone_when_its_part_is_given_up():
    seats = seated().step()
    kept = frame(seats, ME)["secrets"]
    seats.clients[ME].close()
    assert emptied(kept)


def test_the_vector_is_gone_once_it_is_masked():
    seats = seated().step().step()
    assert "vector" in frame(seats, ME)
    seats.step()
    assert "vector" not in frame(seats, ME)
    assert "masked" in frame(seats, ME)
    seats.step()
    assert "masked" not in frame(seats, ME)


def test_secrets_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch):
    """Thirty-two bytes of it, for the seed of the own mask; the keys are made by OpenSSL."""
    asked: list[int] = []

    def urandom(count: int) -> bytes:
        asked.append(count)
        return b"\5" * count

    monkeypatch.setattr("hansa.secagg.client.os.urandom", urandom)
    seats = seated()
    assert isinstance(seats.clients[ME].send(None), Advert)
    assert asked == [32]
    assert frame(seats, ME)["secrets"].seed == b"\5" * 32


def test_neither_secret_of_a_client_can_be_put_together_from_one_answer_each():
    """Of a survivor only shares of the seed are revealed, of a dropped client only of the key."""
    seats = voted()
    gone, here = number(seats, "c00005"), number(seats)
    seats.step()
    for answer in seats.sent[Answer].values():
        assert gone in answer.keys
        assert gone not in answer.seeds
        assert here in answer.seeds
        assert here not in answer.keys
