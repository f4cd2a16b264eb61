"""The privacy ledger: never over the allowance, never less spent, every change noticed."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, update

from hansa.coordinator import schema
from hansa.coordinator.ledger import StoreLedger
from hansa.core import canonical
from hansa.core.contribute import Purpose
from hansa.core.events import Gaussian, NonPrivate, NoOp, PoissonSampled, of_json
from hansa.core.round import Charge
from hansa.errors import BudgetExceeded, StoreError
from tests.support.store_rows import name_of, start

EVENT = PoissonSampled(0.1, Gaussian(1.1))


def charge(number: int = 0, attempt: int = 0, **changes: object) -> Charge:
    fields = {"job": "j1", "purpose": Purpose.TRAIN, "event": EVENT, **changes}
    return Charge(round=number, attempt=attempt, **fields)  # type: ignore[arg-type]  # by name


def ledger_of(store, allowance: int, job: str = "j1") -> StoreLedger:
    ticks = itertools.count(100)
    return StoreLedger(store, job, allowance, lambda: float(next(ticks)))


@pytest.fixture
def running(store):
    start(store)
    return store


def test_charges_are_reserved_then_committed_once(running):
    ledger = ledger_of(running, 3)
    for _ in range(3):
        ledger.reserve(charge())
    for _ in range(3):
        ledger.commit(charge())
    entries = ledger.entries()
    assert [(e.seq, e.kind, e.purpose, e.round, e.attempt) for e in entries] == [
        (1, "reserve", "train", 0, 0),
        (2, "commit", "train", 0, 0),
    ]
    assert [of_json(e.event) for e in entries] == [EVENT, EVENT]
    assert [e.time for e in entries] == [100.0, 101.0]
    assert ledger.used() == 1
    assert ledger.verify() == ledger.head()


def test_each_name_of_a_charge_is_another_charge(running):
    ledger = ledger_of(running, 4)
    for c in (charge(), charge(1), charge(0, 1), charge(purpose=Purpose.EVALUATE)):
        ledger.reserve(c)
    assert ledger.used() == 4
    with pytest.raises(BudgetExceeded, match="all 4"):
        ledger.reserve(charge(2))
    ledger.reserve(charge(1))  # a known charge is free, also when nothing is left
    assert ledger.used() == 4


@pytest.mark.parametrize("allowance", [0, 1, 2])
def test_the_allowance_is_exact(running, allowance):
    ledger = ledger_of(running, allowance)
    for number in range(allowance):
        ledger.reserve(charge(number))
    head = ledger.head()
    with pytest.raises(BudgetExceeded):
        ledger.reserve(charge(allowance))
    assert ledger.head() == head
    assert ledger.used() == allowance


def test_a_reservation_counts_whether_it_is_committed_or_not(running):
    ledger = ledger_of(running, 1)
    ledger.reserve(charge())
    with pytest.raises(BudgetExceeded):
        ledger.reserve(charge(1))


def test_what_costs_no_privacy_is_written_down_and_does_not_count(running):
    ledger = ledger_of(running, 0)
    for number, event in enumerate((NoOp(), NonPrivate(), PoissonSampled(0.5, NonPrivate()))):
        ledger.reserve(charge(number, event=event))
        ledger.commit(charge(number, event=event))
    assert ledger.used() == 0
    assert len(ledger.entries()) == 6


def test_a_charge_is_committed_only_after_it_was_reserved(running):
    ledger = ledger_of(running, 1)
    with pytest.raises(StoreError, match="not reserved"):
        ledger.commit(charge())
    assert ledger.entries() == []


@pytest.mark.parametrize("step", ["reserve", "commit"])
def test_a_charge_does_not_change_its_event(running, step):
    ledger = ledger_of(running, 5)
    ledger.reserve(charge())
    with pytest.raises(StoreError, match="another event"):
        getattr(ledger, step)(charge(event=Gaussian(99.0)))


def test_jobs_have_ledgers_of_their_own(running):
    start(running, "j2")
    one, other = ledger_of(running, 1), ledger_of(running, 1, "j2")
    one.reserve(charge())
    other.reserve(charge(job="j2"))
    assert one.head() != other.head()
    with pytest.raises(StoreError, match="does not belong"):
        one.reserve(charge(job="j2"))
    with pytest.raises(StoreError, match="does not belong"):
        one.commit(charge(job="j2"))
    one.verify()
    other.verify()


def test_what_is_spent_survives(place):
    with place.open() as store:
        start(store)
        ledger_of(store, 2).reserve(charge())
        seen = ledger_of(store, 2).head()
    with place.open() as store:
        ledger = ledger_of(store, 2)
        ledger.reserve(charge())
        assert ledger.used() == 1
        ledger.reserve(charge(1))
        ledger.verify(seen)


def test_64_threads_of_two_processes_worth_never_pass_the_allowance(place):
    """Two stores share no lock, as two processes: the database alone keeps them apart."""
    allowance, charges = 40, 80
    with place.open() as one, place.open() as other:
        start(one)
        ledgers = [ledger_of(store, allowance) for store in (one, other)]

        def spend(number: int) -> bool:
            ledger = ledgers[number % 2]
            try:
                ledger.reserve(charge(number // 2))  # each charge is sent twice, by both
            except BudgetExceeded:
                return False
            ledger.commit(charge(number // 2))
            return True

        with ThreadPoolExecutor(64) as pool:
            won = list(pool.map(spend, range(2 * charges)))
        entries = ledgers[0].entries()
        reserved = [e.round for e in entries if e.kind == "reserve"]
        committed = [e.round for e in entries if e.kind == "commit"]
        assert len(reserved) == allowance == ledgers[0].used()
        assert len(set(reserved)) == allowance
        assert sorted(reserved) == sorted(committed)
        assert {n // 2 for n, ok in enumerate(won) if ok} == set(reserved)
        assert ledgers[1].verify().seq == 2 * allowance


@pytest.mark.parametrize(
    "how", ["cheaper", "renamed", "removed", "tail", "uncounted", "entry", "hash", "swapped"]
)
def test_a_changed_ledger_is_noticed(running, how):
    ledger, table = ledger_of(running, 9), schema.ledger
    start(running, "j2")
    for number in range(3):
        ledger.reserve(charge(number))
        ledger.commit(charge(number))
    ledger_of(running, 9, "j2").reserve(charge(5, job="j2"))
    third = ledger.entries()[2]
    row = (table.c.job == "j1") & (table.c.seq == 3)
    cheap = canonical.dumps({"event": NoOp(), "kind": "reserve"})
    change = {
        "cheaper": update(table).where(row).values(entry=cheap),
        "renamed": update(table).where(row).values(round=77),
        "removed": delete(table).where(row),
        "tail": delete(table).where((table.c.job == "j1") & (table.c.seq >= 5)),
        "uncounted": update(table).where(row).values(spends=False),
        "entry": update(table).where(row).values(entry=third.hash),
        "hash": update(table).where(row).values(hash=name_of("x")),
        "swapped": update(table).where(table.c.job == "j2").values(job="j1", seq=7),
    }[how]
    ledger.verify()
    running.database.write(lambda c: (c.execute(change), None)[1])
    with pytest.raises(StoreError, match="broken"):
        ledger.verify()
