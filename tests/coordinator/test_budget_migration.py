"""A store of the revision before: its chains are linked anew if they are whole, else refused."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hansa.coordinator import migrations
from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.events import Gaussian
from hansa.core.round import Charge
from hansa.errors import StoreError
from tests.support.store_rows import start

BUDGET = ("cosignatures", "entries", "positions", "jobs", "blocks")
TABLES = (*(f"budget_{name}" for name in BUDGET), "standing_scores", "standings")


def earlier(path: Path) -> None:
    """Takes a store back to revision 0002: without budgets, its chains as they were then."""
    with Store.open(path) as store:
        for job in ("j1", "j2"):
            start(store, job)
            ledger = StoreLedger(store, job, 9, lambda: 5.0)
            for number in range(3):
                charge = Charge(job, number, 0, Purpose.TRAIN, Gaussian(1.0))
                ledger.reserve(charge)
                ledger.commit(charge)
    with closing(sqlite3.connect(path)) as db:
        for table in TABLES:
            db.execute(f"DROP TABLE {table}")
        db.execute("ALTER TABLE states DROP COLUMN accepted_json")
        relink_as_before(db, "events", "", "events")
        for job in ("j1", "j2"):
            relink_as_before(db, "ledger", f"WHERE job = '{job}'", f"ledger/{job}")
        db.execute(f"UPDATE {migrations.TABLE} SET version_num = '0002'")
        db.commit()


def relink_as_before(db: sqlite3.Connection, table: str, where: str, chain: str) -> None:
    """h_i = SHA256(h_{i-1} || entry_i), as revision 0002 had it."""
    last = bytes(32)
    rows = db.execute(f"SELECT rowid, entry FROM {table} {where} ORDER BY seq").fetchall()
    for row, entry in rows:
        last = hashlib.sha256(last + entry.encode()).digest()
        db.execute(f"UPDATE {table} SET hash = ? WHERE rowid = ?", (last.hex(), row))
    db.execute("UPDATE heads SET hash = ? WHERE chain = ?", (last.hex(), chain))


def test_whole_chains_are_linked_anew_and_go_on(tmp_path):
    path = tmp_path / "store.db"
    earlier(path)
    with Store.open(path) as store:
        store.verify_events()
        for job in ("j1", "j2"):
            ledger = StoreLedger(store, job, 9, lambda: 5.0)
            assert ledger.verify().seq == 6
            assert ledger.used() == 3
            ledger.reserve(Charge(job, 3, 0, Purpose.TRAIN, Gaussian(1.0)))
            assert ledger.verify().seq == 7
        assert store.budgets.standings() == []
        store.budgets.verify()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger SET entry = replace(entry, '1.0', '9.0') WHERE job = 'j2' AND seq = 3",
        "DELETE FROM ledger WHERE job = 'j2' AND seq = 6",
        "DELETE FROM ledger WHERE job = 'j2' AND seq = 2",
        "UPDATE events SET entry = replace(entry, 'heart', 'other') WHERE seq = 1",
        "UPDATE heads SET hash = replace(hash, 'a', 'b') WHERE chain = 'events'",
    ],
)
def test_a_broken_chain_is_not_hidden_by_new_links(tmp_path, change):
    path = tmp_path / "store.db"
    earlier(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(change)
        db.commit()
    for _ in range(2):  # nothing of the upgrade stays
        with pytest.raises(StoreError, match="cannot be upgraded"):
            Store.open(path)
