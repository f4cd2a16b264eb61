"""The rules of spending, in any order of calls, against a model that keeps sets of charges."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from hansa.budget.block import Block
from hansa.budget.book import Book, replay
from hansa.budget.cost import Need
from hansa.budget.entry import Entry, Key, Kind, entry_of
from hansa.budget.rules import Fate
from hansa.core import canonical
from hansa.core.canonical import Json
from hansa.core.events import Gaussian
from hansa.errors import BudgetExceeded, HansaError, Refused
from tests.support.budgets import block

EVENT = Gaussian(1.0)
BLOCKS = ("one", "two")


def small(name: str) -> Block:
    return block(name, epsilon=0.1, delta=0.25, order=2)


CAPACITY = small("one").capacity


def book_of(*names: str) -> Book:
    book = Book()
    for name in names:
        book.create(small(name), 1.0)
    return book


def need(urdp: int, each: int = 0) -> Need:
    return Need(urdp, each or urdp, urdp // each if each else 1)


def key(number: int = 0, attempt: int = 0, job: str = "j", purpose: str = "train") -> Key:
    return Key(job, purpose, number, attempt)


class BookMachine(RuleBasedStateMachine):
    """Two blocks, three jobs; more is asked for than there is."""

    def __init__(self):
        super().__init__()
        self.book = book_of(*BLOCKS)
        self.declared: dict[str, dict[str, int]] = {}
        self.settled: set[str] = set()
        self.charged: dict[tuple[str, Key], int] = {}
        self.fate: dict[tuple[str, Key], Fate] = {}
        self.beyond: dict[tuple[str, Key], int] = {}

    # ------------------------------------------------ the model: nothing but sums over sets

    def live(self, name: str, job: str) -> list[tuple[str, Key]]:
        """The charges of one job at one block that were not refunded."""
        return [
            at
            for at in self.charged
            if at[0] == name and at[1].job == job and self.fate[at] is not Fate.REFUNDED
        ]

    def drawn(self, name: str, job: str) -> int:
        return sum(self.charged[at] for at in self.live(name, job))

    def left(self, name: str, job: str) -> int:
        """What a job declared, without the parts of its charges that came from there."""
        used = sum(self.charged[at] - self.beyond[at] for at in self.live(name, job))
        return self.declared[job][name] - used

    def taken(self, name: str) -> int:
        """What was declared and what went beyond, of open jobs; what was drawn, of settled ones."""
        return sum(
            self.drawn(name, job)
            if job in self.settled
            else declared[name] + sum(self.beyond[at] for at in self.live(name, job))
            for job, declared in self.declared.items()
            if name in declared
        )

    def call(self, allowed: bool, error: type[Exception], call: Callable[[], object]) -> bool:
        before = len(self.book.log)
        if allowed:
            call()
            return True
        with pytest.raises(error):
            call()
        assert len(self.book.log) == before
        return False

    # ------------------------------------------------ calls

    @rule(
        job=st.sampled_from("abc"),
        amounts=st.dictionaries(
            st.sampled_from(BLOCKS), st.integers(0, CAPACITY * 2 // 3), min_size=1
        ),
    )
    def hold(self, job, amounts):
        needs = {name: need(urdp) for name, urdp in amounts.items()}
        if job in self.declared:
            same = self.declared[job] == amounts
            self.call(same, HansaError, lambda: self.book.hold(job, needs, 2.0))
            return
        room = all(self.taken(n) + urdp <= CAPACITY for n, urdp in amounts.items())
        if self.call(room, BudgetExceeded, lambda: self.book.hold(job, needs, 2.0)):
            self.declared[job] = amounts

    @rule(
        job=st.sampled_from("abc"),
        number=st.integers(0, 2),
        attempt=st.integers(0, 1),
        urdp=st.integers(0, CAPACITY // 3),
        whole=st.booleans(),
    )
    def reserve(self, job, number, attempt, urdp, whole):
        name, held = key(number, attempt, job), self.declared.get(job, {})
        names = held if whole else dict.fromkeys(BLOCKS[:1])
        costs = dict.fromkeys(names, urdp)

        def call():
            self.book.reserve(name, EVENT, costs, 3.0)

        known = {b: self.charged[b, name] for b in BLOCKS if (b, name) in self.charged}
        if held.keys() != costs.keys():
            self.call(allowed=False, error=HansaError, call=call)
        elif job in self.settled:
            same = known == costs  # nothing is written, whatever it says
            if not same:
                self.call(allowed=not costs, error=HansaError, call=call)
        elif known:
            refunded = any(self.fate[b, name] is Fate.REFUNDED for b in known)
            self.call(known == costs and not refunded, HansaError, call)
        else:
            beyond = {b: max(0, urdp - self.left(b, job)) for b in costs}
            room = all(self.taken(b) + more <= CAPACITY for b, more in beyond.items())
            if self.call(room, BudgetExceeded, call):
                for b, more in beyond.items():
                    at = (b, name)
                    self.charged[at], self.fate[at], self.beyond[at] = urdp, Fate.RESERVED, more

    def end(
        self, job: str, number: int, attempt: int, fate: Fate, call: Callable[[], object]
    ) -> None:
        name = key(number, attempt, job)
        known = [b for b in BLOCKS if (b, name) in self.charged]
        if job not in self.declared:
            call()  # a job that holds nothing is charged nothing
            return
        other = Fate.REFUNDED if fate is Fate.COMMITTED else Fate.COMMITTED
        allowed = (
            bool(known)
            and job not in self.settled
            and all(self.fate[b, name] is not other for b in known)
        )
        if self.call(allowed, HansaError, call):
            for b in known:
                self.fate[b, name] = fate

    @rule(job=st.sampled_from("abc"), number=st.integers(0, 2), attempt=st.integers(0, 1))
    def commit(self, job, number, attempt):
        call = lambda: self.book.commit(key(number, attempt, job), 4.0)  # noqa: E731
        self.end(job, number, attempt, Fate.COMMITTED, call)

    @rule(job=st.sampled_from("abc"), number=st.integers(0, 2), attempt=st.integers(0, 1))
    def refund(self, job, number, attempt):
        call = lambda: self.book.refund(key(number, attempt, job), "nobody asked", 5.0)  # noqa: E731
        self.end(job, number, attempt, Fate.REFUNDED, call)

    @rule(job=st.sampled_from("abc"))
    def settle(self, job):
        self.book.settle(job, 6.0)
        if job in self.declared:
            self.settled.add(job)

    # ------------------------------------------------ what is always true

    @invariant()
    def nothing_is_ever_above_the_capacity(self):
        for name in BLOCKS:
            account = self.book.account(name)
            assert account.held >= 0
            assert account.reserved >= 0
            assert account.committed >= 0
            assert account.committed + account.reserved + account.held <= CAPACITY

    @invariant()
    def the_book_says_what_the_model_says(self):
        for name in BLOCKS:
            account = self.book.account(name)
            spent = sum(self.drawn(name, job) for job in self.declared)
            assert account.spent == spent
            assert account.free == CAPACITY - self.taken(name)
            open_ = sum(
                urdp
                for (b, k), urdp in self.charged.items()
                if b == name and self.fate[b, k] is Fate.RESERVED and k.job not in self.settled
            )
            assert account.reserved == open_

    @invariant()
    def a_refund_is_its_own_reservation(self):
        reserved = {(e.block, e.key): e.urdp for e in self.book.log if e.kind is Kind.RESERVE}
        for entry in self.book.log:
            if entry.kind is Kind.REFUND:
                assert entry.urdp == reserved[entry.block, entry.key]

    def teardown(self):
        texts = [canonical.dumps(entry.body) for entry in self.book.log]
        again = replay(entry_of(json.loads(text)) for text in texts)
        for name in BLOCKS:
            assert again.account(name) == self.book.account(name)
        assert again.all_positions() == self.book.all_positions()


def test_the_book_is_what_the_model_says_in_any_order():
    run_state_machine_as_test(
        BookMachine,
        settings=settings(
            derandomize=True, deadline=None, max_examples=100, stateful_step_count=40
        ),
    )


# ------------------------------------------------------------------ single rules, by hand


def test_a_job_from_its_hold_to_its_end():
    book = book_of("one")
    book.hold("j", {"one": need(9000, 3000)}, 2.0)
    for number in range(2):
        book.reserve(key(number), EVENT, {"one": 3000}, 3.0)
    book.commit(key(0), 4.0)
    account = book.account("one")
    assert (account.held, account.reserved, account.committed) == (3000, 3000, 3000)
    book.settle("j", 5.0)
    account = book.account("one")
    assert (account.held, account.reserved, account.committed) == (0, 0, 6000)
    assert account.free == CAPACITY - 6000
    assert [e.kind.value for e in book.log] == [
        *("create", "hold", "reserve", "reserve", "commit", "settle")
    ]


def test_holding_is_all_or_nothing_over_all_blocks():
    book = book_of("one", "two")
    book.hold("a", {"two": need(CAPACITY - 10)}, 2.0)
    with pytest.raises(BudgetExceeded, match="'two' has 10 of") as caught:
        book.hold("b", {"one": need(50, 5), "two": need(50, 5)}, 3.0)
    assert "2 of its 10 releases would fit" in str(caught.value)
    assert book.account("one").free == CAPACITY
    assert book.positions("b") == {}


def test_a_wrong_amount_at_one_block_changes_no_other_block():
    book = book_of("one", "two")
    with pytest.raises(HansaError, match="no amount"):
        book.hold("j", {"one": need(5), "two": Need(-1, -1, 1)}, 2.0)
    assert book.account("one").held == 0
    book.hold("j", {"one": need(5), "two": need(5)}, 2.0)
    with pytest.raises(HansaError, match="no amount"):
        book.reserve(key(), EVENT, {"one": 5, "two": -5}, 3.0)
    assert book.account("one").reserved == 0
    assert len(book.log) == 4


def test_a_retry_beyond_the_declared_releases_needs_room_of_its_own():
    book = book_of("one")
    book.hold("a", {"one": need(CAPACITY - 100)}, 2.0)
    book.hold("b", {"one": need(60, 60)}, 2.0)
    book.reserve(key(0, job="b"), EVENT, {"one": 60}, 3.0)
    with pytest.raises(BudgetExceeded, match="beyond what its job declared"):
        book.reserve(key(0, 1, job="b"), EVENT, {"one": 60}, 3.0)
    book.settle("a", 4.0)
    book.reserve(key(0, 1, job="b"), EVENT, {"one": 60}, 5.0)
    assert book.account("one").reserved == 120


def test_every_block_of_a_job_is_charged_or_none():
    book = book_of("one", "two")
    book.hold("j", {"one": need(5), "two": need(5)}, 2.0)
    for costs in ({"one": 5}, {}, {"one": 5, "two": 5, "three": 5}):
        with pytest.raises(HansaError, match="is charged at"):
            book.reserve(key(), EVENT, costs, 3.0)


def test_a_refund_goes_back_where_it_came_from_and_needs_a_statement():
    book = book_of("one")
    book.hold("j", {"one": need(100)}, 2.0)
    book.reserve(key(0), EVENT, {"one": 150}, 3.0)
    with pytest.raises(HansaError, match="only with a statement"):
        book.refund(key(0), "  ", 4.0)
    book.refund(key(0), "the round was never opened", 4.0)
    account = book.account("one")
    assert (account.held, account.reserved, account.spent) == (100, 0, 0)
    assert book.log[-1].more["statement"] == "the round was never opened"
    with pytest.raises(HansaError, match="refunded"):
        book.commit(key(0), 5.0)
    with pytest.raises(HansaError, match="was refunded"):
        book.reserve(key(0), EVENT, {"one": 150}, 5.0)


def test_a_committed_charge_is_never_refunded():
    book = book_of("one")
    book.hold("j", {"one": need(100)}, 2.0)
    book.reserve(key(0), EVENT, {"one": 100}, 3.0)
    book.commit(key(0), 4.0)
    with pytest.raises(HansaError, match="committed already"):
        book.refund(key(0), "I would like it back", 5.0)


def test_a_reservation_that_nobody_ended_is_spent_and_stays_so():
    book = book_of("one")
    book.hold("j", {"one": need(100)}, 2.0)
    book.reserve(key(0), EVENT, {"one": 40}, 3.0)
    book.settle("j", 4.0)
    assert book.account("one").committed == 40
    calls: tuple[Callable[[], None], ...] = (
        lambda: book.commit(key(0), 5.0),
        lambda: book.refund(key(0), "too late", 5.0),
        lambda: book.reserve(key(1), EVENT, {"one": 1}, 5.0),
    )
    for call in calls:
        with pytest.raises(HansaError, match="over"):
            call()
    assert book.account("one").committed == 40


def test_no_block_ever_changes():
    book = book_of("one")
    book.create(small("one"), 9.0)
    assert len(book.log) == 1
    with pytest.raises(Refused, match="none ever changes"):
        book.create(block("one", epsilon=9.0), 9.0)


@pytest.mark.parametrize("urdp", [-1, 1.5, True, None])
def test_amounts_are_whole_numbers(urdp):
    book = book_of("one")
    book.hold("j", {"one": need(100)}, 2.0)
    with pytest.raises((HansaError, TypeError)):
        book.reserve(key(0), EVENT, {"one": urdp}, 3.0)
    assert book.account("one").spent == 0


# ------------------------------------------------------------------ a log that breaks a rule


def log() -> list[Entry]:
    book = book_of("one")
    book.hold("j", {"one": need(100, 40)}, 2.0)
    book.reserve(key(0), EVENT, {"one": 40}, 3.0)
    book.commit(key(0), 4.0)
    book.reserve(key(1), EVENT, {"one": 40}, 5.0)
    book.settle("j", 6.0)
    return book.log


def changed(number: int, **words: Json) -> list[Entry]:
    said = [entry.body for entry in log()]
    said[number] = {**said[number], **words}
    return [entry_of(body) for body in said]


BROKEN: dict[str, Callable[[], list[Entry]]] = {
    "a larger block": lambda: changed(0, urdp=CAPACITY * 2),
    "another block's definition": lambda: changed(0, block="two"),
    "more held than there is": lambda: changed(1, urdp=CAPACITY + 1),
    "drawn without a hold": lambda: [log()[0], *log()[2:]],
    "a hold twice": lambda: [*log()[:2], *log()[1:]],
    "a cheaper commit": lambda: changed(3, urdp=39),
    "a commit without a reserve": lambda: [*log()[:2], *log()[3:]],
    "a charge twice": lambda: [*log()[:3], *log()[2:]],
    "another share of the hold": lambda: changed(2, from_hold=39),
    "a refund after the commit": lambda: changed(4, kind="refund", round=0, statement="no"),
    "a refund without a statement": lambda: changed(3, kind="refund"),
    "more given back than was held": lambda: changed(5, urdp=60),
    "an open reservation that vanished": lambda: changed(5, open=0),
    "a negative charge": lambda: changed(2, urdp=-40),
    "something after the end": lambda: [*log(), log()[2]],
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_log_that_breaks_a_rule_is_refused(how):
    replay(log())
    with pytest.raises(HansaError):
        replay(BROKEN[how]())


@pytest.mark.parametrize(
    "words", [{"kind": "gift"}, {"urdp": 1.0}, {"urdp": True}, {"round": "0"}, {"time": None}]
)
def test_what_is_no_entry_is_refused(words):
    with pytest.raises(HansaError, match="no entry"):
        entry_of({**log()[1].body, **words})
    with pytest.raises(HansaError, match="no entry"):
        entry_of({})
