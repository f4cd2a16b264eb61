"""The budget of one run in memory; what every ledger does is in the laws."""

from __future__ import annotations

import pytest

from hansa.core.contribute import Purpose
from hansa.core.events import Gaussian, NonPrivate, NoOp
from hansa.core.round import Charge
from hansa.errors import BudgetExceeded
from hansa.privacy.ledger import MemoryLedger


def charge(number: int, event=Gaussian(1.0), attempt: int = 0) -> Charge:  # noqa: B008  # a frozen value
    return Charge("heart", number, attempt, Purpose.TRAIN, event)


def test_what_is_spent_never_decreases():
    ledger, spent = MemoryLedger(9), []
    for i in range(3):
        ledger.reserve(charge(i))
        spent.append(ledger.spent)
        ledger.commit(charge(i))
        spent.append(ledger.spent)
        ledger.reserve(charge(i))
        spent.append(ledger.spent)
    assert spent == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_known_charge_is_never_refused_even_when_nothing_is_left():
    ledger = MemoryLedger(1)
    ledger.reserve(charge(0))
    ledger.reserve(charge(0))
    assert not ledger.committed(charge(0))
    ledger.commit(charge(0))
    ledger.commit(charge(0))
    assert ledger.committed(charge(0))


def test_all_charges_are_recorded_in_order():
    ledger = MemoryLedger(1)
    them = [charge(0), charge(1, NonPrivate()), charge(2, NoOp())]
    for one in them:
        ledger.reserve(one)
    assert ledger.charges == tuple(them)
    assert ledger.spent == 1


def test_a_refusal_names_the_round_and_the_way_out():
    with pytest.raises(BudgetExceeded, match=r"all 0 private releases of job 'heart'.*try 3") as e:
        MemoryLedger(0).reserve(charge(4, attempt=2))
    assert "more rounds" in e.value.fix
    assert e.value.exit_code == 2
