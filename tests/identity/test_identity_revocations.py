"""The list of revoked sites: the authority's, of this federation, of today."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core import canonical
from hansa.errors import IdentityError
from hansa.identity.authority import Authority
from hansa.identity.revocations import (
    AHEAD_SECONDS,
    FRESH_SECONDS,
    MAX_LIST,
    RevocationList,
    read_revocations,
)
from tests.support.ca import FEDERATION, NOW, make_authority


@pytest.fixture(scope="module")
def text(authority: Authority) -> str:
    return authority.sign_revocations(["riga", "kiel"], NOW)


def signed_by(authority: Authority, body: Any, context: str = "revocations") -> str:
    """A list that the authority really signed, whatever it says."""
    signed = f"hansa/{context}/1\0".encode() + canonical.dumps(body).encode()
    return json.dumps(
        {
            "revocations": body,
            "issuer": authority.trust.intermediates[0].decode(),
            "signature": base64.b64encode(
                authority._key.sign(signed, ec.ECDSA(hashes.SHA256()))
            ).decode(),
        }
    )


def body(**words: Any) -> dict[str, Any]:
    usual = {"federation": FEDERATION, "issued": int(NOW.timestamp()), "sites": ["kiel"]}
    return {**usual, **words}


def read(text: str, authority: Authority, seconds: float = 0.0) -> RevocationList:
    return read_revocations(text, authority.root_pem, FEDERATION, NOW + timedelta(seconds=seconds))


def test_a_list_says_who_is_revoked_and_since_when(authority: Authority, text: str) -> None:
    listed = read(text, authority)
    assert listed == RevocationList(FEDERATION, int(NOW.timestamp()), ("kiel", "riga"))
    assert read(signed_by(authority, body()), authority).sites == ("kiel",)


@pytest.mark.parametrize(
    ("seconds", "good"),
    [
        (FRESH_SECONDS, True),
        (FRESH_SECONDS + 1, False),
        (-AHEAD_SECONDS, True),
        (-AHEAD_SECONDS - 1, False),
    ],
)
def test_a_list_is_good_for_a_day(
    authority: Authority, text: str, seconds: float, good: bool
) -> None:
    if good:
        assert read(text, authority, seconds).sites
        return
    with pytest.raises(IdentityError, match=r"was issued -?[\d,]+ s ago"):
        read(text, authority, seconds)


def test_a_list_of_a_stranger_or_of_another_federation_is_refused(
    authority: Authority, stranger: Authority, tmp_path: Any
) -> None:
    with pytest.raises(IdentityError, match="the pinned root did not appoint"):
        read(stranger.sign_revocations([], NOW), authority)
    with pytest.raises(IdentityError, match="is of federation 'other', not of 'hanse'"):
        read(signed_by(authority, body(federation="other")), authority)
    other = make_authority(tmp_path / "ca", "other")
    with pytest.raises(IdentityError, match="of federation 'other', not of 'hanse'"):
        read(other.sign_revocations([], NOW), other)


@pytest.mark.parametrize("words", [{"sites": []}, {"issued": int(NOW.timestamp()) + 1}])
def test_a_list_that_was_changed_is_refused(
    authority: Authority, text: str, words: dict[str, Any]
) -> None:
    whole = json.loads(text)
    whole["revocations"] |= words
    with pytest.raises(IdentityError, match="does not carry the authority's signature"):
        read(json.dumps(whole), authority)


def test_no_other_statement_of_the_authority_passes_for_a_list(authority: Authority) -> None:
    with pytest.raises(IdentityError, match="does not carry the authority's signature"):
        read(signed_by(authority, body(), "node-document"), authority)


@pytest.mark.parametrize(
    "odd",
    [
        {"federation": FEDERATION},
        {"sites": None, "federation": FEDERATION, "issued": 1},
        {**body(), "issued": "yesterday"},
        {**body(), "sites": 5},
    ],
)
def test_a_list_of_another_version_is_refused(authority: Authority, odd: dict[str, Any]) -> None:
    with pytest.raises(IdentityError, match="another version of Hansa"):
        read(signed_by(authority, odd), authority)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[" * 100_000,
        '{"revocations": NaN, "issuer": "", "signature": ""}',
        '{"revocations": {"issued": 1e999}, "issuer": "", "signature": ""}',
        '{"revocations": {}, "issuer": "ü", "signature": ""}',
        '{"revocations": {}, "issuer": "", "signature": "!"}',
        " " * (MAX_LIST + 1),
    ],
)
def test_what_is_no_list_is_refused(authority: Authority, text: str) -> None:
    with pytest.raises(IdentityError):
        read(text, authority)


@given(st.data())
@settings(max_examples=60)
def test_a_list_with_one_character_changed_says_the_same_or_is_refused(
    authority: Authority, text: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=9, max_codepoint=300))
    try:
        listed = read(text[:place] + other + text[place + 1 :], authority)
    except IdentityError:
        return
    assert listed.sites == ("kiel", "riga")
