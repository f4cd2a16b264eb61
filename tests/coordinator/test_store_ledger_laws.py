"""The durable ledger keeps the contract that every ledger keeps."""

from __future__ import annotations

import pytest

from hansa.coordinator.ledger import StoreLedger
from tests.laws.privacy import LedgerLaws
from tests.support.store_rows import start


class TestStoreLedger(LedgerLaws):
    job = "j1"

    @pytest.fixture(autouse=True)
    def _running(self, store):
        start(store)
        self.store = store

    def ledger(self, allowance):
        return StoreLedger(self.store, self.job, allowance, lambda: 5.0)
