"""64 writers at one block: never above it, and the chain is recomputed in under a minute."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hansa.budget.cost import Need
from hansa.budget.entry import Key
from hansa.coordinator.store import Store
from hansa.core.events import Gaussian
from hansa.errors import BudgetExceeded
from tests.support.budgets import block

EVENT, WRITERS, VERIFY_SECONDS = Gaussian(4.0), 64, 60.0


def storm(stores: tuple[Store, ...], reservations: int) -> dict[str, Any]:
    """Reservations by many writers until the block is full, and a few more by each."""
    budgets = stores[0].budgets
    budgets.create(block(), 1.0)
    capacity = budgets.standings()[0].account.capacity
    cost = capacity // reservations
    most = capacity // cost
    need = Need(0, 0, 0)
    budgets.write(lambda _, book: book.hold("j1", {"patients": need}, 2.0))
    numbers, refused = itertools.count(), []
    tenth, tenths = max(1, reservations // 10), list[float]()
    lock = threading.Lock()

    def write(writer: int) -> int:
        """Reserves until refused; every charge is then sent a second time, by nobody's fault."""
        mine, count = stores[writer % len(stores)].budgets, 0
        while True:
            with lock:
                key = Key("j1", "train", next(numbers), 0)
                if key.round % tenth == 0:
                    tenths.append(time.monotonic())
            try:
                mine.reserve(key, EVENT, {"patients": cost}, 3.0)
            except BudgetExceeded:
                refused.append(writer)
                return count
            count += 1
            if count % 100 == 0:
                mine.reserve(key, EVENT, {"patients": cost}, 3.0)

    began = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as pool:
        counts = list(pool.map(write, range(WRITERS)))
    wrote = time.monotonic() - began
    account = budgets.standings()[0].account
    assert sum(counts) == most
    assert len(refused) == WRITERS
    assert account.spent == most * cost <= capacity
    assert account.free < cost
    began = time.monotonic()
    assert stores[-1].budgets.verify().seq == most + 2
    verified = time.monotonic() - began
    assert verified < VERIFY_SECONDS
    rates = [round(tenth / (after - before)) for before, after in itertools.pairwise(tenths)]
    figures = {
        "reservations": most,
        "seconds": wrote,
        "per_second_by_tenth": rates,
        "verify_seconds": verified,
    }
    print(figures)
    return figures


def test_64_writers_of_one_store_stop_at_the_cap(place):
    with place.open() as store:
        storm((store,), 600)


def test_64_writers_of_two_stores_stop_at_the_cap(place):
    """Two stores share no lock, as two processes: the database alone keeps them apart."""
    with place.open() as one, place.open() as other:
        storm((one, other), 200)


def test_writers_share_transactions(place, monkeypatch):
    """64 writers need far fewer commits than writes."""
    with place.open() as store:
        commits: list[int] = []
        real = store.database.write

        def counted(*arguments: Any, **named: Any) -> Any:
            commits.append(1)
            return real(*arguments, **named)

        monkeypatch.setattr(store.database, "write", counted)
        storm((store,), 600)
        assert len(commits) < 300


@pytest.mark.soak
def test_a_hundred_thousand_on_sqlite(tmp_path):
    with Store.open(tmp_path / "store.db") as store:
        storm((store,), 100_000)


@pytest.mark.soak
def test_a_million_on_postgresql(postgres):
    with Store.open(postgres.url(postgres.create())) as store:
        storm((store,), 1_000_000)
