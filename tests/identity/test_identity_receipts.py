"""Receipts cover every field that makes an update this one and no other."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import IdentityError
from hansa.identity.documents import read_document
from hansa.identity.names import Role
from hansa.identity.receipts import Receipt, sign_receipt, verify_receipt
from tests.support.ca import NOW

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RECEIPT = Receipt(
    federation="hanse",
    job="heart-1",
    purpose="train",
    round=3,
    attempt=0,
    site="kiel",
    update="ab" * 32,
    plan="cd" * 32,
)
SIGNATURE = sign_receipt(RECEIPT, KEY)


def verify(
    document: str = RECEIPT.document, signature: bytes = SIGNATURE, key: Ed25519PrivateKey = KEY
) -> None:
    verify_receipt(document, signature, RECEIPT, key.public_key())


def test_a_receipt_verifies():
    verify()


def test_the_text_is_canonical_json():
    assert RECEIPT.document == (
        '{"attempt":0,"federation":"hanse","is":"Receipt","job":"heart-1","plan":"'
        + "cd" * 32
        + '","purpose":"train","round":3,"site":"kiel","update":"'
        + "ab" * 32
        + '"}'
    )


OTHERS: dict[str, Any] = {
    "federation": "other",
    "job": "heart-2",
    "purpose": "evaluate",
    "round": 4,
    "attempt": 1,
    "site": "luebeck",
    "update": "00" * 32,
    "plan": "00" * 32,
}


def test_the_table_below_has_every_field():
    assert set(OTHERS) == {field.name for field in fields(Receipt)}


@pytest.mark.parametrize("name", OTHERS)
def test_fail_other(name):
    """A good receipt of another update, and this receipt with one word changed."""
    other = replace(RECEIPT, **{name: OTHERS[name]})
    assert other.document != RECEIPT.document
    with pytest.raises(IdentityError, match=f"its {name} is .*, expected"):
        verify(other.document, sign_receipt(other, KEY))
    with pytest.raises(IdentityError, match="not signed by the coordinator"):
        verify(other.document)


@pytest.mark.parametrize(
    ("case", "arguments", "words"),
    [
        ("fail/other key", {"key": Ed25519PrivateKey.from_private_bytes(bytes(32))}, "not signed"),
        ("fail/no signature", {"signature": b""}, "not signed"),
        ("fail/short signature", {"signature": SIGNATURE[:-1]}, "not signed"),
        ("fail/zero signature", {"signature": bytes(64)}, "not signed"),
        (
            "fail/signed without its purpose",
            {"signature": KEY.sign(RECEIPT.document.encode())},
            "not signed",
        ),
        ("fail/empty", {"document": ""}, "not signed"),
        ("fail/huge", {"document": "x" * 5000}, "more than 4,096"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_fail(case, arguments, words):
    with pytest.raises(IdentityError, match=words):
        verify(**arguments)


@pytest.mark.parametrize("document", ["[]", "x", "[" * 4000, '{"round":3}', RECEIPT.document + " "])
def test_fail_signed_text_that_is_no_receipt(document):
    signature = KEY.sign(b"hansa/receipt/1\x00" + document.encode())
    with pytest.raises(IdentityError, match="is for another update"):
        verify(document, signature)


def test_the_key_comes_from_the_coordinators_document(authority):
    credentials = authority.issue_coordinator(["localhost"], NOW)
    signature = sign_receipt(RECEIPT, credentials.signing_key())
    key = read_document(
        credentials.document, authority.root_pem, "hanse", NOW, Role.COORDINATOR
    ).public_key
    verify_receipt(RECEIPT.document, signature, RECEIPT, key)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text(max_size=60), st.binary(max_size=80))
def test_anything_else_is_an_identity_error(document, signature):
    with pytest.raises(IdentityError):
        verify(document, signature)
