"""Rounds and ledger in any order of calls, against models of them in plain Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.rows import Fold, StateRow, Status
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.events import Gaussian, NonPrivate, NoOp
from hansa.core.round import Charge, Opening, RoundRecord
from hansa.errors import BudgetExceeded, StoreError
from tests.support.store_rows import COHORT, INITIAL, fold, name_of, record, start, state

RUNS = settings(derandomize=True, deadline=None, max_examples=12, stateful_step_count=25)
FRESH = itertools.count()


class RoundsMachine(RuleBasedStateMachine):
    """A job's rounds; half of the calls are wrong on purpose."""

    store: Store

    def __init__(self):
        super().__init__()
        self.job = start(self.store, f"job-{next(FRESH)}")
        self.running = True
        self.head = StateRow(0, 0, INITIAL, (), None, 0)
        self.state: StateRow | None = None
        self.open: Opening | None = None
        self.fold: Fold | None = None
        self.last_joined: frozenset[str] = frozenset()
        self.over: dict[tuple[Purpose, int, int], tuple[RoundRecord, Fold | None]] = {}
        self.records: list[RoundRecord] = []

    def expect(self, allowed: object, call: Callable[[], object]) -> None:
        """Makes the call; it succeeds if and only if the model allows it."""
        if allowed:
            call()
            return
        with pytest.raises(StoreError):
            call()

    @rule(
        purpose=st.sampled_from(Purpose),
        late=st.sampled_from([0, 0, 0, 1, -1]),
        attempt=st.sampled_from([0, 0, 0, 1]),
        stale=st.sampled_from([False, False, False, True]),
    )
    def open_round(self, purpose, late, attempt, stale):
        head = self.head
        model = name_of("stale") if stale else head.model_sha256
        wanted = Opening(purpose, head.round + late, head.attempt + attempt, COHORT, model)
        key = (wanted.purpose, wanted.round, wanted.attempt)
        again = self.open is not None and key == key_of(self.open)
        due = self.open is None and self.running and not late and not attempt and not stale
        allowed = (again and not stale) or (due and key not in self.over)
        self.expect(allowed, lambda: self.store.open_round(self.job, wanted, 20.0))
        if allowed and not again:
            self.open, self.fold, self.last_joined = wanted, None, frozenset()

    @precondition(lambda self: self.open)
    @rule(
        step=st.sampled_from([1, 1, 1, 2, 0, -1]),
        members=st.lists(st.sampled_from([*COHORT, "mallory"]), max_size=3),
        other=st.booleans(),
    )
    def commit_fold(self, step, members, other):
        opened, before = self.open, self.fold
        assert opened is not None
        generation = (before.generation if before else 0) + step
        new = fold(generation, *members)
        if other:
            new = replace(new, checksum=name_of("other", generation))
        known = before.members if before else ()
        joins = (
            step > 0
            and len(set(members)) == len(members)
            and not set(members) & set(known)
            and set(members) <= set(COHORT)
        )
        repeats = (
            step == 0
            and before is not None
            and frozenset(members) == self.last_joined
            and new.place == before.place
        )
        allowed = self.running and (joins or repeats)
        self.expect(allowed, lambda: self.store.commit_fold(self.job, opened, new))
        if allowed and joins:
            receipts = (before.receipts if before else ()) + new.receipts
            self.fold = replace(new, members=known + new.members, receipts=receipts)
            self.last_joined = frozenset(members)

    @precondition(lambda self: self.open)
    @rule(
        void=st.booleans(),
        lose=st.sampled_from([False, False, False, True]),
        jump=st.sampled_from([0, 0, 0, 1]),
    )
    def close_round(self, void, lose, jump):
        assert self.open is not None
        members = self.fold.members if self.fold else COHORT[:1]
        if lose:
            members = tuple(c for c in COHORT if c not in members)
        done = record(self.open, () if void else members)
        done = replace(done, members=tuple(sorted(members)))
        after = state(done, server_sha256s=self.head.server_sha256s)
        after = replace(after, round=after.round + jump)
        wrong = jump or (lose and self.fold is not None)
        allowed = self.running and not wrong
        self.expect(allowed, lambda: self.store.close_round(self.job, done, after, 21.0))
        if allowed:
            self.over[key_of(self.open)] = (done, self.fold)
            self.records.append(done)
            self.head = self.state = after
            self.open = self.fold = None

    @precondition(lambda self: self.records)
    @rule(data=st.data(), same=st.booleans())
    def close_again(self, data, same):
        done = data.draw(st.sampled_from(self.records))
        wanted = replace(done, seconds=9.0) if same else replace(done, void=not done.void)
        self.expect(same, lambda: self.store.close_round(self.job, wanted, state(wanted), 22.0))

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def reopen_or_fold_what_is_over(self, data):
        done = data.draw(st.sampled_from(self.records))
        old = Opening(done.purpose, done.round, done.attempt, done.cohort, done.model)
        self.expect(False, lambda: self.store.open_round(self.job, old, 23.0))
        self.expect(False, lambda: self.store.commit_fold(self.job, old, fold(99, "kiel")))

    @rule()
    def restart(self):
        self.expect(
            self.running, lambda: self.store.set_status(self.job, Status.RUNNING, "again", 24.0)
        )

    @precondition(lambda self: len(self.records) > 3)
    @rule()
    def cancel(self):
        self.expect(
            self.running, lambda: self.store.set_status(self.job, Status.CANCELLED, "", 25.0)
        )
        self.running, self.open, self.fold = False, None, None

    @invariant()
    def the_store_says_what_the_model_says(self):
        assert self.store.state(self.job) == self.state
        assert self.store.records(self.job) == self.records
        current = self.store.current_round(self.job)
        assert (current.opening if current else None) == self.open
        if self.open:
            assert self.store.folded(self.job, self.open) == self.fold

    def teardown(self):
        for (purpose, number, attempt), (_, kept) in self.over.items():
            opening = Opening(purpose, number, attempt, (), "")
            assert self.store.folded(self.job, opening) == kept
        kinds = [e.kind for e in self.store.events(self.job)]
        assert kinds.count("round.closed") + kinds.count("round.void") == len(self.records)
        self.store.verify_events()


def key_of(opening: Opening) -> tuple[Purpose, int, int]:
    return opening.purpose, opening.round, opening.attempt


def test_rounds_are_what_the_model_says_in_any_order(store):
    RoundsMachine.store = store
    run_state_machine_as_test(RoundsMachine, settings=RUNS)


class LedgerMachine(RuleBasedStateMachine):
    """A job's ledger, asked through two stores in turn."""

    stores: tuple[Store, Store]

    def __init__(self):
        super().__init__()
        self.job = start(self.stores[0], f"job-{next(FRESH)}")
        self.ledgers = [StoreLedger(store, self.job, 3, lambda: 5.0) for store in self.stores]
        self.reserved: dict[tuple[int, int, Purpose], object] = {}
        self.committed: list[tuple[int, int, Purpose]] = []
        self.spent = 0
        self.heads = [self.ledgers[0].head()]

    @rule(
        step=st.sampled_from(["reserve", "reserve", "commit"]),
        number=st.integers(0, 2),
        attempt=st.integers(0, 1),
        purpose=st.sampled_from(Purpose),
        event=st.sampled_from([Gaussian(1.0), Gaussian(1.0), Gaussian(2.0), NoOp(), NonPrivate()]),
        by=st.integers(0, 1),
    )
    def charge(self, step, number, attempt, purpose, event, by):
        key = (number, attempt, purpose)
        ledger = self.ledgers[by]
        charge = Charge(self.job, number, attempt, purpose, event)
        known = key in self.reserved
        costs = isinstance(event, Gaussian)
        call = getattr(ledger, step)
        if known and self.reserved[key] != event:
            with pytest.raises(StoreError, match="another event"):
                call(charge)
        elif step == "commit" and not known:
            with pytest.raises(StoreError, match="not reserved"):
                call(charge)
        elif step == "reserve" and not known and costs and self.spent == 3:
            with pytest.raises(BudgetExceeded):
                call(charge)
        else:
            call(charge)
            if not known:
                self.reserved[key] = event
                self.spent += costs
            if step == "commit" and key not in self.committed:
                self.committed.append(key)
        self.heads.append(ledger.head())

    @invariant()
    def the_ledger_says_what_the_model_says(self):
        entries = self.ledgers[1].entries()
        named = [(e.round, e.attempt, Purpose(e.purpose), e.kind) for e in entries]
        assert [n[:3] for n in named if n[3] == "reserve"] == list(self.reserved)
        assert [n[:3] for n in named if n[3] == "commit"] == self.committed
        assert self.ledgers[0].used() == self.spent <= 3
        assert [h.seq for h in self.heads] == sorted(h.seq for h in self.heads)

    def teardown(self):
        for head in self.heads:
            self.ledgers[0].verify(head)


def test_the_ledger_is_what_the_model_says_in_any_order(place):
    with place.open() as one, place.open() as other:
        LedgerMachine.stores = (one, other)
        run_state_machine_as_test(LedgerMachine, settings=RUNS)
