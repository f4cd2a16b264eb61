"""The statement of a job at a coordinator: its plan, and what its ledger and its records say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.statements import statement_of_job
from hansa.coordinator.store import Store
from hansa.core import canonical, events
from hansa.core.contribute import Purpose
from hansa.core.job import Privacy
from hansa.core.plan import Plan
from hansa.core.round import Charge
from hansa.errors import DigestMismatch
from hansa.jobfile import job_to_words, load_job
from hansa.privacy.accountants import DpAccounting
from hansa.recipes import compile_plan
from tests.support import store_rows

JOB = "heart-1"


@pytest.fixture(scope="module")
def plan() -> Plan:
    words = load_job("heart")
    privacy = Privacy(mechanism="gaussian", clip=8.0, noise_multiplier=20.0, delta=1e-5)
    aggregation = replace(words.aggregation, clip=0.0)
    return compile_plan(replace(words, privacy=privacy, aggregation=aggregation))


@pytest.fixture
def store(tmp_path, plan):
    with Store.open(tmp_path / "store.db") as opened:
        opened.acquire_lease("coordinator of the tests", 30.0)
        store_rows.start(
            opened,
            JOB,
            words_json=canonical.dumps(job_to_words(plan.job)),
            facts_json=canonical.dumps(plan.task),
            plan_digest=plan.digest,
        )
        yield opened


def charge(plan: Plan, number: int, attempt: int = 0) -> Charge:
    return Charge(JOB, number, attempt, Purpose.TRAIN, plan.round_event)


def test_before_the_first_round_nothing_is_charged(store, plan):
    said = statement_of_job(store, JOB)
    assert said.plan_digest == plan.digest
    assert said.released is not None
    assert (said.released.charges, said.released.epsilon, said.released.rounds) == (0, 0.0, 0)
    assert said.released.final is False
    assert "none yet" in said.released.ledger_head


def test_each_charge_counts_once_and_only_rounds_that_count_are_models(store, plan):
    ledger = StoreLedger(store, JOB, plan.charges, lambda: 1.0)
    for number, attempt in ((0, 0), (0, 1), (1, 0)):
        ledger.reserve(charge(plan, number, attempt))
    ledger.commit(charge(plan, 0, 0))
    begun = store.open_round(JOB, store_rows.opening(), 20.0)
    void = store_rows.record(begun, ())
    store.close_round(JOB, void, store_rows.state(void), 21.0)
    store_rows.run_round(store, JOB, 0, attempt=1)
    said = statement_of_job(store, JOB).released
    assert said is not None
    oracle = DpAccounting("pld").epsilon(
        events.repeat(events.Gaussian(20.0), 3), 1e-5, plan.relation
    )
    assert said.epsilon == pytest.approx(oracle, rel=1e-9)
    assert (said.charges, said.declared, said.rounds) == (3, 40, 1)
    assert said.ledger_entries == 4
    assert said.ledger_head == ledger.head().hash


def test_a_plan_that_is_not_the_approved_one_gets_no_statement(store, plan):
    store.add_job(
        store_rows.job(
            "other",
            words_json=canonical.dumps(job_to_words(plan.job)),
            facts_json=canonical.dumps(plan.task),
        )
    )
    with pytest.raises(DigestMismatch):
        statement_of_job(store, "other")
