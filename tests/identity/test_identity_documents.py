"""Node documents: a name, a signing key, and an authority's word that they belong together."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core import canonical
from hansa.errors import IdentityError
from hansa.identity.authority import Authority
from hansa.identity.certificates import read_key
from hansa.identity.documents import NodeDocument, open_document, read_document, sign_document
from hansa.identity.names import Role
from tests.support.ca import FEDERATION, NOW, enrol, issue, make_authority


@pytest.fixture(scope="module")
def text(authority, tmp_path_factory) -> str:
    return issue(authority, tmp_path_factory.mktemp("site") / "identity").document


def change(text: str, **fields: Any) -> str:
    whole = json.loads(text)
    whole["document"] |= fields
    return json.dumps(whole)


def signed_by(authority: Authority, body: Any) -> str:
    """A document that the authority really signed, whatever it says."""
    signature = authority._key.sign(
        b"hansa/node-document/1\x00" + canonical.dumps(body).encode(), ec.ECDSA(hashes.SHA256())
    )
    return json.dumps(
        {
            "document": body,
            "issuer": authority.trust.intermediates[0].decode(),
            "signature": base64.b64encode(signature).decode(),
        }
    )


def read(
    text: str,
    authority: Authority,
    federation: str = FEDERATION,
    now: datetime = NOW,
    role: Role = Role.SITE,
) -> NodeDocument:
    return read_document(text, authority.root_pem, federation, now, role)


def test_a_document_binds_a_name_to_a_key(text, authority):
    document = read(text, authority)
    assert (document.name, document.organisation) == ("kiel", "Klinikum Kiel")
    assert document.role == "site"
    assert len(document.public_key.public_bytes_raw()) == 32
    assert document.not_after == int((NOW + timedelta(hours=24)).timestamp())


def test_the_coordinator_has_one(authority):
    document = authority.issue_coordinator(["localhost"], NOW).document
    assert read(document, authority, role=Role.COORDINATOR).name == "coordinator"


def test_spacing_and_order_of_keys_do_not_matter(text, authority):
    loose = json.dumps(dict(reversed(json.loads(text).items())), indent=2)
    assert read(loose, authority) == read(text, authority)


@pytest.mark.parametrize(
    ("case", "make", "words"),
    [
        ("fail/other name", lambda t, a: change(t, name="luebeck"), "authority's signature"),
        ("fail/other key", lambda t, a: change(t, signing_key="00" * 32), "authority's signature"),
        ("fail/longer", lambda t, a: change(t, not_after=1 << 40), "authority's signature"),
        ("fail/other role", lambda t, a: change(t, role="coordinator"), "authority's signature"),
        ("fail/one field more", lambda t, a: change(t, admin=True), "authority's signature"),
        (
            "fail/not a number",
            lambda t, a: t.replace('"not_after":1', '"not_after":NaN,"x":1'),
            "read",
        ),
        ("fail/no JSON", lambda t, a: t[:-1], "cannot be read"),
        ("fail/list", lambda t, a: "[]", "cannot be read"),
        ("fail/empty object", lambda t, a: "{}", "cannot be read"),
        ("fail/deep", lambda t, a: "[" * 5000, "cannot be read"),
        ("fail/huge", lambda t, a: t + " " * 9000, "more than 8,192"),
        ("fail/issuer is text", lambda t, a: t.replace("BEGIN CERT", "BEGIN XERT"), "PEM"),
        (
            "fail/signed, of another version",
            lambda t, a: signed_by(a, {"name": "kiel"}),
            "another version",
        ),
        (
            "fail/signed, but no key in it",
            lambda t, a: signed_by(a, json.loads(t)["document"] | {"signing_key": "no"}),
            "another version",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_document_is_refused(case, make, words, text, authority):
    with pytest.raises(IdentityError) as refused:
        read(make(text, authority), authority)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("case", "arguments", "words"),
    [
        ("fail/federation", {"federation": "other"}, "is of federation 'hanse'"),
        ("fail/role", {"role": Role.COORDINATOR}, "is of a site, not of a coordinator"),
        ("fail/expired", {"now": NOW + timedelta(hours=25)}, "expired at"),
        ("fail/too early", {"now": NOW - timedelta(minutes=6)}, "is valid from"),
    ],
)
def test_document_is_not_for_this(case, arguments, words, text, authority):
    with pytest.raises(IdentityError, match=words):
        read(text, authority, **arguments)


def test_another_root_is_refused(text, stranger):
    with pytest.raises(IdentityError, match="pinned root did not appoint"):
        read(text, stranger)


def test_a_site_cannot_sign_documents(authority, tmp_path):
    """A site's own certificate is not an authority, although a good chain leads to it."""
    site = enrol(authority, tmp_path / "identity")
    leaf = x509.load_pem_x509_certificates(site.chain_pem)[0]
    forged = sign_document(
        NodeDocument(FEDERATION, "coordinator", "coordinator", "x", "00" * 32, 0, 1 << 33),
        leaf,
        read_key(site.key_pem, "tls.key"),
    )
    with pytest.raises(IdentityError, match="pinned root did not appoint"):
        read(forged, authority, role=Role.COORDINATOR)


def test_an_expired_authority_vouches_for_nothing(tmp_path):
    old = make_authority(tmp_path / "ca", now=NOW - timedelta(days=366))
    body = {
        "is": "NodeDocument",
        "federation": FEDERATION,
        "role": "site",
        "name": "kiel",
        "organisation": "x",
        "signing_key": "00" * 32,
        "not_before": 0,
        "not_after": 1 << 33,
    }
    text = signed_by(old, body)
    assert open_document(text, old.root_pem).name == "kiel"
    with pytest.raises(IdentityError, match="authority's certificate expired"):
        read(text, old)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.data())
def test_changed_text_is_the_same_document_or_an_identity_error(text, authority, data):
    position = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="utf-8"))
    changed = text[:position] + letter + text[position + 1 :]
    try:
        found = read(changed, authority)
    except IdentityError:
        return
    assert found == read(text, authority)
