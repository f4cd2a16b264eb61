"""`docs/dp-statement.md` lists every key of a statement, and every kind of trust."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from hansa.privacy.statement import Released, Statement
from hansa.privacy.statement_audit import Audited
from hansa.privacy.statement_page import FORMS
from hansa.privacy.statement_parts import TrustModel

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "dp-statement.md").read_text("utf-8")


def test_every_key_of_the_json_is_on_the_page():
    table = PAGE.partition("## The JSON")[2].partition("\n\n`released` holds")
    keys = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", table[0], re.MULTILINE)))
    assert sorted(keys) == sorted(field.name for field in fields(Statement))
    released, audited = table[2].split("\n\n")[:2]
    assert set(re.findall(r"`(\w+)`", released)) == {field.name for field in fields(Released)}
    named = set(re.findall(r"`(\w+)`", audited.partition("holds")[2]))
    assert named == {field.name for field in fields(Audited)}


def test_every_form_and_trust_model_is_on_the_page():
    for suffix in FORMS:
        assert f"`{suffix}`" in PAGE
    for model in (*get_args(TrustModel), "none", "unknown"):
        assert f"`{model}`" in PAGE
