"""Invites: one line that a person copies, with everything that can happen to it on the way."""

from __future__ import annotations

import base64
import hashlib
import json
import string
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import IdentityError
from hansa.identity import invites
from hansa.identity.invites import (
    InviteRecord,
    check_token,
    create_invite,
    parse_invite,
    token_hash,
)
from hansa.identity.names import Role
from tests.support.ca import FEDERATION, NOW

DOOR, ENROL = "fl.example.org:8443", "fl.example.org:8444"


@pytest.fixture(scope="module")
def made(authority):
    return create_invite("kiel", "Klinikum Kiel", DOOR, ENROL, authority, NOW)


@pytest.fixture(scope="module")
def text(made: tuple[InviteRecord, str]) -> str:
    return made[1]


def repack(text: str, **changes: object) -> str:
    """The invite with other contents and a checksum that fits: what an attacker would send."""
    raw = base64.urlsafe_b64decode(text.partition(".")[2] + "==")
    body = json.loads(raw[8:])
    for key, value in changes.items():
        if value is None:
            del body[key]
        else:
            body[key] = value
    return pack(json.dumps(body).encode())


def pack(content: bytes) -> str:
    raw = hashlib.sha256(content).digest()[:8] + content
    return "hansa-invite-1." + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_an_invite_says_what_was_invited(made, authority):
    record, text = made
    invite = parse_invite(text, NOW)
    assert (invite.federation, invite.site) == (FEDERATION, "kiel")
    assert invite.organisation == "Klinikum Kiel"
    assert (invite.coordinator_address, invite.enrol_address) == (DOOR, ENROL)
    assert invite.expires == NOW + timedelta(hours=24) == record.expires
    assert invite.root_pem == authority.root_pem
    assert invite.ca_fingerprint == authority.root_fingerprint == record.ca_fingerprint
    assert record.role is Role.SITE
    assert len(invite.token) == 32
    assert "\n" not in text
    assert " " not in text


def test_the_record_cannot_be_used_to_join(made):
    record, text = made
    token = parse_invite(text, NOW).token
    assert record.token_hash == hashlib.sha256(token).hexdigest()
    shown = repr(record)
    assert token.hex() not in shown
    assert base64.urlsafe_b64encode(token).decode().rstrip("=") not in shown


def test_repr_shows_no_token(text):
    invite = parse_invite(text, NOW)
    assert "token" not in repr(invite)
    assert repr(invite.token) not in repr(invite)


def test_tokens_differ(authority):
    hashes = {
        create_invite("kiel", "x", DOOR, ENROL, authority, NOW)[0].token_hash for _ in range(50)
    }
    assert len(hashes) == 50


@pytest.mark.parametrize(
    ("case", "mangle"),
    [
        ("ok/as printed", lambda t: t),
        ("ok/spaces around", lambda t: f"  {t}\n"),
        (
            "ok/wrapped by a mail program",
            lambda t: "\r\n".join(t[i : i + 72] for i in range(0, len(t), 72)),
        ),
        ("ok/indented", lambda t: "\n    ".join(t[i : i + 60] for i in range(0, len(t), 60))),
        ("ok/tabs inside", lambda t: t[:20] + "\t" + t[20:]),
    ],
)
def test_pasted_well(case, mangle, text):
    assert parse_invite(mangle(text), NOW) == parse_invite(text, NOW)


@pytest.mark.parametrize(
    ("case", "mangle", "words"),
    [
        ("fail/empty", lambda t: "", "does not start with 'hansa-invite-'"),
        ("fail/something else", lambda t: "hello", "does not start with"),
        ("fail/start missing", lambda t: t[5:], "does not start with"),
        ("fail/prefix only", lambda t: "hansa-invite-1.", "incomplete or was changed"),
        ("fail/no dot", lambda t: "hansa-invite-1", "incomplete or was changed"),
        ("fail/end missing", lambda t: t[:-1], "incomplete or was changed"),
        ("fail/half missing", lambda t: t[: len(t) // 2], "incomplete or was changed"),
        ("fail/middle missing", lambda t: t[:300] + t[301:], "incomplete or was changed"),
        ("fail/one letter", lambda t: t[:99] + ("A" if t[99] != "A" else "B") + t[100:], "changed"),
        ("fail/pasted twice", lambda t: t + t, "incomplete or was changed"),
        ("fail/quoted by mail", lambda t: t[:100] + "\n> " + t[100:], "incomplete or was changed"),
        ("fail/next version", lambda t: t.replace("-1.", "-2."), "version 2, this is Hansa with"),
        ("fail/no version", lambda t: t.replace("-1.", "-."), "incomplete or was changed"),
        ("fail/huge", lambda t: t + "A" * 20_000, "at most 16,384"),
        ("fail/other federation", lambda t: repack(t, federation="else"), "contradicts itself"),
        ("fail/other fingerprint", lambda t: repack(t, ca_fingerprint="00" * 32), "contradicts"),
        ("fail/root is no certificate", lambda t: repack(t, root="AAAA"), "lacks something"),
        ("fail/root is a number", lambda t: repack(t, root=7), "lacks something"),
        ("fail/no token", lambda t: repack(t, token=None), "lacks something"),
        ("fail/short token", lambda t: repack(t, token="AAAA"), "contradicts itself"),
        ("fail/empty token", lambda t: repack(t, token=""), "contradicts itself"),
        ("fail/time is text", lambda t: repack(t, expires="soon"), "lacks something"),
        ("fail/time is endless", lambda t: repack(t, expires=1e300), "lacks something"),
        ("fail/name is a list", lambda t: repack(t, site=["kiel"]), "lacks something"),
        ("fail/organisation is a list", lambda t: repack(t, organisation=["x"]), "lacks something"),
        ("fail/path as name", lambda t: repack(t, site="../kiel"), "cannot be the name of a site"),
        ("fail/address without port", lambda t: repack(t, enrol="localhost"), "not an address"),
        ("fail/address with a shell", lambda t: repack(t, enrol="$(id):1"), "not an address"),
        ("fail/no object", lambda t: pack(b"[1]"), "lacks something"),
        ("fail/no JSON", lambda t: pack(b"{"), "lacks something"),
        ("fail/deep JSON", lambda t: pack(b"[" * 9000), "lacks something"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_pasted_badly(case, mangle, words, text):
    with pytest.raises(IdentityError) as refused:
        parse_invite(mangle(text), NOW)
    assert words in str(refused.value)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("case", "hours", "good"),
    [
        ("ok/at once", 0, True),
        ("ok/in its last second", 24, True),
        ("fail/a second later", 24 + 1 / 3600, False),
        ("fail/next year", 8760, False),
    ],
)
def test_expiry(case, hours, good, made):
    record, text = made
    now = NOW + timedelta(hours=hours)
    token = parse_invite(text, NOW).token
    if good:
        assert parse_invite(text, now).site == "kiel"
        check_token(record, token, now)
        return
    with pytest.raises(IdentityError, match="expired at 2026-01-16 12:00:00 UTC"):
        parse_invite(text, now)
    with pytest.raises(IdentityError, match="expired at 2026-01-16 12:00:00 UTC"):
        check_token(record, token, now)


def test_only_the_token_opens(made):
    record, text = made
    token = parse_invite(text, NOW).token
    check_token(record, token, NOW)
    for bad in (b"", token[:-1], token + b"\0", bytes(32), token[:-1] + bytes([token[-1] ^ 1])):
        with pytest.raises(IdentityError, match="not one of an open invite") as refused:
            check_token(record, bad, NOW)
        assert token.hex() not in str(refused.value)
    other = replace(record, token_hash=token_hash(bytes(32)))
    with pytest.raises(IdentityError, match="not one of an open invite"):
        check_token(other, token, NOW)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("fail/site", {"site": "Kiel"}),
        ("fail/organisation", {"organisation": ""}),
        ("fail/coordinator", {"coordinator_address": "fl.example.org"}),
        ("fail/enrol", {"enrol_address": "fl.example.org:70000"}),
        ("fail/port zero", {"enrol_address": "fl.example.org:0"}),
        ("fail/no time", {"lifetime": timedelta(0)}),
        ("fail/a month", {"lifetime": timedelta(days=31)}),
    ],
)
def test_create_checks_its_arguments(case, change, authority):
    arguments = {
        "site": "kiel",
        "organisation": "x",
        "coordinator_address": DOOR,
        "enrol_address": ENROL,
        "authority": authority,
        "now": NOW,
    }
    with pytest.raises(IdentityError):
        create_invite(**(arguments | change))


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1:65535", "[::1]:8443", "a-b.c:80"])
def test_addresses(address, authority):
    text = create_invite("kiel", "x", address, address, authority, NOW)[1]
    assert parse_invite(text, NOW).enrol_address == address


# ------------------------------------------------------------------ fuzz

LETTERS = string.ascii_letters + string.digits + "-_=. \n\u00e9\u0000"


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(max_size=200), st.text(alphabet=LETTERS, max_size=200))
def test_any_text_gives_an_invite_or_an_identity_error(anything, payload):
    for candidate in (anything, "hansa-invite-" + anything, "hansa-invite-1." + payload):
        with pytest.raises(IdentityError):
            parse_invite(candidate, NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["federation", "site", "organisation", "coordinator", "enrol", "token", "expires", "root"]
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(KEYS, JSON)
def test_any_content_gives_an_invite_or_an_identity_error(authority, key, value):
    text = create_invite("kiel", "x", DOOR, ENROL, authority, NOW)[1]
    try:
        invite = parse_invite(repack(text, **{key: value}), NOW)
    except IdentityError:
        return
    assert isinstance(invite, invites.Invite)
    assert invite.root_pem == authority.root_pem  # no other root fits the fingerprint


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.data())
def test_any_one_changed_character_is_noticed(text, data):
    position = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(exclude_categories=["Zs", "Cc", "Cs"]))
    changed = text[:position] + letter + text[position + 1 :]
    if "".join(changed.split()) == text:
        return
    with pytest.raises(IdentityError):
        parse_invite(changed, NOW)
