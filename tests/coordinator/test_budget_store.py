"""Budgets in the store: the same on SQLite and PostgreSQL, in one transaction with the ledger."""

from __future__ import annotations

import itertools
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import delete, insert, text, update

from hansa.budget.cost import Need, micro_rdp, need
from hansa.budget.entry import Key
from hansa.budget.touching import NOT_COVERED
from hansa.coordinator import chain, schema
from hansa.coordinator.budget import JobBudget
from hansa.coordinator.budget_book import GAP, charges, stretches
from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.rows import Cosignature, Head, Status
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.events import Gaussian, NoOp
from hansa.core.round import Charge
from hansa.errors import BudgetExceeded, HansaError, Refused, StoreError
from tests.support.budgets import block, plan
from tests.support.store_rows import name_of, start

EVENT = Gaussian(1.0)
SITES = ("kiel", "luebeck", "riga")


def key(number: int = 0, attempt: int = 0, job: str = "j1") -> Key:
    return Key(job, "train", number, attempt)


def decide(store, job: str = "j1", made=None, sites=SITES) -> JobBudget:
    budget: JobBudget = store.budgets.decide(job, made or plan(), "hanse", sites, 2.0)
    return budget


def ledger_of(store, budget, job: str = "j1", allowance: int = 3) -> StoreLedger:
    ticks = itertools.count(100)
    return StoreLedger(store, job, allowance, lambda: float(next(ticks)), budget)


def charge(number: int = 0, attempt: int = 0, job: str = "j1", event=None) -> Charge:
    return Charge(job, number, attempt, Purpose.TRAIN, event or plan().round_event)


def account(store, name: str = "patients"):
    return {s.block.name: s.account for s in store.budgets.standings()}[name]


@pytest.fixture
def running(store):
    start(store)
    store.budgets.create(block(), 1.0)
    return store


EACH = micro_rdp(plan().round_event, 4, plan().relation)


# ------------------------------------------------------------------ deciding


def test_a_job_holds_all_that_it_declares_at_every_block_that_it_touches(running):
    running.budgets.create(block("owner", owner="kiel", order=8), 1.0)
    running.budgets.create(block("elsewhere", population="other"), 1.0)
    found = decide(running)
    assert [b.name for b in found.blocks] == ["owner", "patients"]
    assert account(running).held == need(plan(), 4).urdp == 3 * EACH
    assert account(running, "owner").held == need(plan(), 8).urdp
    assert account(running, "elsewhere").held == 0
    said = [e.body for e in running.events("j1") if e.kind == "job.budget"]
    assert said == [
        {"blocks": {n: need(plan(), o).urdp for n, o in (("owner", 8), ("patients", 4))}}
    ]


def test_what_is_decided_stays_so_when_the_coordinator_asks_again(running):
    first = decide(running)
    running.budgets.create(block("later"), 3.0)
    assert decide(running, sites=("kiel",)) == first
    assert account(running, "later").held == 0
    assert len([e for e in running.events("j1") if e.kind == "job.budget"]) == 1


def test_a_job_that_no_block_covers_says_so_and_is_not_covered_later(store):
    start(store)
    assert decide(store, made=plan(mechanism="none")).blocks == ()
    said = [e.body for e in store.events("j1") if e.kind == "job.budget"]
    assert said == [{"blocks": {}, "note": NOT_COVERED}]
    store.budgets.create(block(), 3.0)
    assert decide(store, made=plan(mechanism="none")).blocks == ()


def test_a_block_without_room_refuses_the_whole_job_and_keeps_nothing(store):
    start(store)
    start(store, "j2")
    store.budgets.create(block("large"), 1.0)
    store.budgets.create(block("small", epsilon=4.0, order=4), 1.0)
    room = account(store, "small").free
    rounds = room // EACH
    decide(store, made=plan(rounds=rounds))
    with pytest.raises(BudgetExceeded, match="'small' has") as caught:
        decide(store, "j2")
    assert "releases would fit" in str(caught.value)
    assert account(store, "large").held == rounds * EACH
    assert [e for e in store.events("j2") if e.kind == "job.budget"] == []
    store.set_status("j1", Status.CANCELLED, "", 5.0)
    assert len(decide(store, "j2").blocks) == 2


def test_a_job_that_cannot_be_counted_is_refused(running):
    with pytest.raises(Refused, match="no differential privacy"):
        decide(running, made=plan(mechanism="none"))
    with pytest.raises(Refused, match="cannot be added up"):
        decide(running, made=plan(sampler="fixed"))
    assert account(running).held == 0


def test_a_block_that_is_created_while_a_job_is_decided_covers_it(running, monkeypatch):
    created: list[str] = []

    def slow(made, order):
        if not created:
            created.append("second")
            running.budgets.create(block("second"), 1.5)
        return need(made, order)

    monkeypatch.setattr("hansa.coordinator.budget.need", slow)
    assert [b.name for b in decide(running).blocks] == ["patients", "second"]
    assert account(running, "second").held == 3 * EACH


# ------------------------------------------------------------------ with the job's own ledger


def test_a_round_is_charged_to_both_in_one_transaction(running):
    ledger = ledger_of(running, decide(running))
    ledger.reserve(charge())
    assert (account(running).held, account(running).reserved) == (2 * EACH, EACH)
    ledger.reserve(charge())
    ledger.commit(charge())
    ledger.commit(charge())
    assert (account(running).reserved, account(running).committed) == (0, EACH)
    kinds = [json.loads(row.entry)["kind"] for row in running.budgets.entries(job="j1")]
    assert kinds == ["hold", "reserve", "commit"]
    assert [e.kind for e in ledger.entries()] == ["reserve", "commit"]
    ledger.verify()
    running.budgets.verify()


def test_what_the_allowance_refuses_is_charged_to_no_block(running):
    ledger = ledger_of(running, decide(running), allowance=1)
    ledger.reserve(charge())
    head = running.budgets.head()
    with pytest.raises(BudgetExceeded, match="all 1"):
        ledger.reserve(charge(1))
    assert running.budgets.head() == head


def test_what_a_block_refuses_is_not_in_the_jobs_ledger(running):
    start(running, "j2")
    ledger = ledger_of(running, decide(running), allowance=9)
    rest = account(running).free // EACH
    decide(running, "j2", plan(rounds=rest))
    for number in range(3):
        ledger.reserve(charge(number))
    head = ledger.head()
    with pytest.raises(BudgetExceeded, match="beyond what its job declared"):
        ledger.reserve(charge(2, 1))
    assert ledger.head() == head
    assert ledger.used() == 3


def test_a_ledger_that_does_not_know_the_jobs_blocks_charges_nothing(running):
    budget = decide(running)
    blind = ledger_of(running, None)
    with pytest.raises(StoreError, match="does not know"):
        blind.reserve(charge())
    ledger_of(running, budget).reserve(charge())
    with pytest.raises(StoreError, match="does not know"):
        blind.commit(charge())
    assert account(running).committed == 0


def test_a_round_that_reveals_nothing_costs_nothing(running):
    ledger = ledger_of(running, decide(running))
    ledger.reserve(charge(event=NoOp()))
    ledger.commit(charge(event=NoOp()))
    assert account(running).spent == 0
    assert len(ledger.entries()) == 2


@pytest.mark.parametrize("end", [Status.DONE, Status.FAILED, Status.CANCELLED, Status.REFUSED])
def test_a_job_that_ends_gives_back_what_it_never_drew(running, end):
    ledger = ledger_of(running, decide(running))
    ledger.reserve(charge())
    ledger.commit(charge())
    ledger.reserve(charge(1))  # whatever became of it: it counts
    running.set_status("j1", end, "", 9.0)
    found = account(running)
    assert (found.held, found.reserved, found.committed) == (0, 0, 2 * EACH)
    with pytest.raises(HansaError, match="over"):
        ledger.commit(charge(1))
    with pytest.raises(HansaError, match="over"):
        ledger.reserve(charge(2))
    running.budgets.verify()


def test_a_refund_is_in_the_log_with_its_statement(running):
    budget = decide(running)
    ledger_of(running, budget).reserve(charge())
    running.budgets.refund(key(), "the round was never opened", 5.0)
    running.budgets.refund(key(), "the round was never opened", 6.0)
    assert (account(running).held, account(running).spent) == (3 * EACH, 0)
    last = json.loads(running.budgets.entries()[-1].entry)
    assert (last["kind"], last["statement"]) == ("refund", "the round was never opened")
    with pytest.raises(HansaError, match="refunded"):
        ledger_of(running, budget).commit(charge())
    running.budgets.verify()


def test_what_is_spent_survives(place):
    with place.open() as store:
        start(store)
        store.budgets.create(block(), 1.0)
        ledger_of(store, decide(store)).reserve(charge())
        seen = store.budgets.head()
    with place.open() as store:
        ledger_of(store, decide(store)).commit(charge())
        assert account(store).committed == EACH
        store.budgets.verify(seen)


# ------------------------------------------------------------------ many writers


def test_two_stores_cannot_both_have_the_last_of_a_block(place):
    with place.open() as one, place.open() as other:
        one.budgets.create(block(), 1.0)
        stores, jobs = (one, other), 24
        whole = account(one).capacity
        share = Need(whole // 5, whole // 5, 1)

        def hold(number: int) -> bool:
            budgets = stores[number % 2].budgets
            try:
                budgets.write(
                    lambda _, book: book.hold(f"j{number // 2}", {"patients": share}, 2.0)
                )
            except BudgetExceeded:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:  # each job comes by both stores
            won = list(pool.map(hold, range(2 * jobs)))
        assert len({number // 2 for number, ok in enumerate(won) if ok}) == 5
        assert account(other).held == 5 * share.urdp
        other.budgets.verify()


def test_a_refused_step_does_not_trouble_those_in_the_same_transaction(running):
    budgets, barrier = running.budgets, threading.Barrier(8)
    free = account(running).free
    budgets.write(lambda _, book: book.hold("j1", {"patients": Need(free, free, 1)}, 2.0))

    def spend(number: int) -> str:
        barrier.wait()
        try:
            budgets.reserve(key(number), EVENT, {"patients": free // 3}, 3.0)
        except BudgetExceeded:
            return "refused"
        return "reserved"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(spend, range(8))) == ["refused"] * 5 + ["reserved"] * 3
    budgets.verify()


# ------------------------------------------------------------------ the chain


def test_a_head_is_proved_to_extend_another_by_hashes_alone(running):
    before = running.budgets.head()
    ledger = ledger_of(running, decide(running))
    for number in range(3):
        ledger.reserve(charge(number))
    end = before.hash
    for digest in running.budgets.digests(before.seq):
        assert len(digest) == 32
        end = chain.follow(end, digest.hex())
    assert Head(before.seq + 4, end) == running.budgets.head()
    assert running.budgets.digests(before.seq + 4) == []


def test_countersignatures_are_kept_once_and_only_over_heads_that_are_in_the_chain(running):
    budgets, head = running.budgets, running.budgets.head()
    values = {"name": "kiel", "organisation": "Uni", "enrolled": 1.0}
    running.database.write(lambda c: (c.execute(insert(schema.sites).values(values)), None)[1])
    word = Cosignature("kiel", head.seq, head.hash, "01" * 64, 5.0)
    for _ in range(2):
        assert budgets.store_cosignatures([word]) == []
    assert budgets.cosignatures() == [word]
    assert budgets.cosignatures(head.seq) == []
    for seq, name in ((head.seq, name_of("x")), (head.seq + 1, head.hash)):
        strange = replace(word, seq=seq, hash=name)
        assert budgets.store_cosignatures([strange, word]) == ["kiel"]
    assert budgets.cosignatures() == [word]


BLOCKS, POSITIONS, ENTRIES = schema.budget_blocks, schema.budget_positions, schema.budget_entries

TAMPERED = {
    "a larger block": update(BLOCKS).values(capacity=10**12),
    "another definition": update(BLOCKS).values(block_json=json.dumps(block(delta=1e-4).words)),
    "less spent": update(BLOCKS).values(committed=0),
    "less held": update(BLOCKS).values(held=0),
    "a job that is over": update(POSITIONS).values(settled=True),
    "more left": update(POSITIONS).values(left=10**6),
    "a cheaper charge": update(ENTRIES).where(ENTRIES.c.seq == 3).values(urdp=1),
    "another round": update(ENTRIES).where(ENTRIES.c.seq == 3).values(round=7),
    "another text": update(ENTRIES).where(ENTRIES.c.seq == 3).values(entry="{}"),
    "another hash": update(ENTRIES).where(ENTRIES.c.seq == 3).values(hash=name_of("x")),
    "a gap": delete(ENTRIES).where(ENTRIES.c.seq == 3),
    "no tail": delete(ENTRIES).where(ENTRIES.c.seq >= 3),
    "no position": delete(POSITIONS),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_whatever_is_changed_in_the_store_is_noticed(running, how):
    ledger = ledger_of(running, decide(running))
    for number in range(2):
        ledger.reserve(charge(number))
        ledger.commit(charge(number))
    running.budgets.verify()
    running.database.write(lambda c: (c.execute(TAMPERED[how]), None)[1])
    with pytest.raises(HansaError):
        running.budgets.verify()


def test_a_store_that_was_set_back_is_noticed_by_whoever_kept_a_head(running):
    seen = running.budgets.head()
    with pytest.raises(StoreError, match="was seen with"):
        running.budgets.verify(Head(seen.seq + 1, name_of("lost")))
    with pytest.raises(StoreError, match="another one than was seen"):
        running.budgets.verify(Head(seen.seq, name_of("other")))


# ------------------------------------------------------------------ long logs


def test_rounds_are_looked_up_in_stretches():
    assert stretches([]) == []
    assert stretches([7]) == [(7, 7)]
    assert stretches([9, 7, 8, 8 + GAP, 9 + GAP]) == [(7, 9 + GAP)]
    assert stretches([7, 8, 9 + GAP]) == [(7, 8), (9 + GAP, 9 + GAP)]


def test_charges_of_distant_rounds_are_found_together(running):
    far = [0, 1, GAP, 1000, 1001, 5000]
    running.budgets.write(lambda _, book: book.hold("j1", {"patients": Need(0, 0, 0)}, 2.0))
    for number in far:
        running.budgets.reserve(key(number), EVENT, {"patients": 3 + number}, 3.0)
    wanted = [key(number) for number in [*far, 2, 1002, 7000]]

    def known(_, book):
        book.prefetch(wanted)
        return [sum(draw.urdp for draw in book.draws(one).values()) for one in wanted]

    assert running.budgets.write(known) == [*(3 + number for number in far), 0, 0, 0]


@pytest.mark.parametrize("analysed", [False, True])
def test_a_charge_is_looked_up_by_its_round_whatever_the_database_knows(place, running, analysed):
    """Else each look-up reads all entries of its job: unnoticed at first, hopeless in the end."""
    running.budgets.write(lambda _, book: book.hold("j1", {"patients": Need(0, 0, 0)}, 2.0))

    def many(_, book):
        for number in range(3000):
            book.reserve(key(number), EVENT, {"patients": 1}, 3.0)

    running.budgets.write(many)
    engine = running.database.engine
    query = charges("j1", "train", 2000, 2031).compile(
        engine, compile_kwargs={"literal_binds": True}
    )
    words = "EXPLAIN QUERY PLAN" if place.kind == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        if analysed:
            connection.execute(text("ANALYZE budget_entries"))
        rows = connection.execute(text(f"{words} {query}")).all()
        connection.rollback()
    told = "\n".join(str(row[-1]) for row in rows)
    assert re.search(r"(Index Cond: |USING INDEX )\S.*\bround ?>.*\bround ?<", told), told


def test_a_plan_from_when_the_log_was_short_is_not_kept(postgres):
    """Of a few entries known to be few, PostgreSQL rightly reads all; of many it must not."""
    reads = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'budget_entries'"
    with Store.open(postgres.url(postgres.create())) as store:
        store.budgets.create(block(), 1.0)
        store.budgets.write(lambda _, book: book.hold("j1", {"patients": Need(0, 0, 0)}, 2.0))
        store.budgets.reserve(key(), EVENT, {"patients": 1}, 3.0)
        store.database.write(lambda connection: (connection.execute(text("ANALYZE")), None)[1])
        for number in range(30):  # often enough that driver and server would both keep it
            store.budgets.reserve(key(number), EVENT, {"patients": 1}, 3.0)

        def many(_, book):
            book.prefetch([key(number) for number in range(3000)])
            for number in range(3000):
                book.reserve(key(number), EVENT, {"patients": 1}, 3.0)

        def read(connection, book):
            before = connection.scalar(text(reads))
            book.prefetch([key(2000)])
            return connection.scalar(text(reads)) - before

        store.budgets.write(many)
        assert store.budgets.write(read) == 0


def test_examples_are_counted_by_sites_and_not_here(store):
    with pytest.raises(Refused, match="only their sites know"):
        store.budgets.create(block(unit="example", relation="zero_out"), 1.0)
    assert store.budgets.standings() == []
