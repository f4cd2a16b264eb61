"""The suite of lies as a whole, which are in the files beside this one: no fault without a lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.secagg import Fault, Misuse

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_is_demanded_by_a_test(fault):
    text = "".join(path.read_text() for path in HERE.glob("test_misuse_*.py"))
    assert f"Fault.{fault.name})" in text or f"Fault.{fault.name}," in text


@pytest.mark.parametrize("fault", Fault)
def test_a_refusal_says_what_was_noticed_and_what_to_do(fault):
    error = Misuse(fault, "3 of 4")
    assert fault.value in str(error)
    assert "3 of 4" in str(error)
    assert "find out why" in error.fix


def test_no_two_faults_read_alike():
    assert len({fault.value for fault in Fault}) == len(Fault)
