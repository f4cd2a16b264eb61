"""A signature on a bundle is good for that bundle and that key, and for nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import HansaError, IdentityError
from hansa.work.signature import make_key, sign_bundle, signer_of

DIGEST = "ab" * 32


def test_the_signer_is_found(tmp_path):
    public = make_key(tmp_path / "key.pem")
    assert signer_of(sign_bundle(DIGEST, tmp_path / "key.pem"), DIGEST) == public
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0


def test_nobody_signed():
    assert signer_of("", DIGEST) == ""


def test_another_bundle_is_not_signed(tmp_path):
    make_key(tmp_path / "key.pem")
    with pytest.raises(IdentityError, match="not good"):
        signer_of(sign_bundle(DIGEST, tmp_path / "key.pem"), "cd" * 32)


def test_another_key_cannot_be_claimed(tmp_path):
    make_key(tmp_path / "one.pem")
    other = make_key(tmp_path / "two.pem")
    forged = {**json.loads(sign_bundle(DIGEST, tmp_path / "one.pem")), "signer": other}
    with pytest.raises(IdentityError):
        signer_of(json.dumps(forged), DIGEST)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text(min_size=1, max_size=300))
def test_any_other_text_is_refused(text):
    with pytest.raises(IdentityError):
        signer_of(text, DIGEST)


def test_a_key_is_never_overwritten(tmp_path):
    make_key(tmp_path / "key.pem")
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(HansaError, match="cannot be made"):
        make_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before


def test_a_file_without_a_key_is_named(tmp_path):
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(HansaError, match="holds no signing key"):
        sign_bundle(DIGEST, tmp_path / "no.pem")
