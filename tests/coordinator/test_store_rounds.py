"""Rounds in the store: every step once, in order, from the head of the lineage, durable members."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import update

from hansa.coordinator import schema
from hansa.coordinator.rows import OpenRound, Status
from hansa.core.contribute import Purpose
from hansa.errors import StoreError
from tests.support.store_rows import (
    COHORT,
    INITIAL,
    fold,
    name_of,
    opening,
    record,
    run_round,
    start,
    state,
)


@pytest.fixture
def running(store):
    """A store with one job that runs."""
    start(store)
    return store


# ------------------------------------------------------------------ opening


def test_an_open_round_is_found_again_as_it_was_begun(running):
    assert running.current_round("j1") is None
    begun = running.open_round("j1", opening(), 20.5)
    assert begun == opening()
    again = replace(opening(), cohort=("lund",))  # a restart may draw another cohort
    assert running.open_round("j1", again, 30.0) == begun
    assert running.current_round("j1") == OpenRound(begun, 20.5)
    assert [e.kind for e in running.events("j1")].count("round.opened") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        opening(1, model=INITIAL),
        opening(0, 1),
        opening(model=name_of("stale")),
        opening(cohort=("kiel", "kiel")),
    ],
    ids=["round", "attempt", "model", "cohort"],
)
def test_only_the_round_that_is_due_opens(running, wrong):
    with pytest.raises(StoreError, match=r"not due|not the head|twice"):
        running.open_round("j1", wrong, 20.0)
    assert running.current_round("j1") is None


def test_one_round_of_a_job_is_open_at_a_time(running):
    start(running, "j2")
    running.open_round("j1", opening(), 20.0)
    running.open_round("j2", opening(), 20.0)
    with pytest.raises(StoreError, match="still open"):
        running.open_round("j1", opening(purpose=Purpose.EVALUATE), 21.0)


def test_an_open_round_is_not_reopened_from_another_model(running):
    running.open_round("j1", opening(), 20.0)
    with pytest.raises(StoreError, match="another model"):
        running.open_round("j1", opening(model=name_of("other")), 21.0)


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize("members", [COHORT, ()], ids=["closed", "void"])
def test_a_round_that_is_over_is_not_opened_again(running, purpose, members):
    begun = running.open_round("j1", opening(purpose=purpose), 20.0)
    done = record(begun, members)
    running.close_round("j1", done, state(done), 21.0)
    with pytest.raises(StoreError, match="over"):
        running.open_round("j1", begun, 22.0)


# ------------------------------------------------------------------ folds


def test_folds_add_up_and_survive(place):
    with place.open(lead=True) as store:
        start(store)
        begun = store.open_round("j1", opening(), 20.0)
        assert store.folded("j1", begun) is None
        store.commit_fold("j1", begun, fold(1, "kiel"))
        store.commit_fold("j1", begun, fold(3, "riga", "bremen"))
    with place.open(lead=True) as store:
        whole = store.folded("j1", replace(opening(), cohort=(), model=""))
        assert whole == fold(3, "kiel", "riga", "bremen")


def test_a_fold_without_receipts_has_none(running):
    begun = running.open_round("j1", opening(), 20.0)
    plain = fold(1, "kiel", receipts=())
    running.commit_fold("j1", begun, plain)
    assert running.folded("j1", begun) == plain


def test_committing_the_same_fold_twice_changes_nothing(running):
    begun = running.open_round("j1", opening(), 20.0)
    running.commit_fold("j1", begun, fold(1, "kiel"))
    running.commit_fold("j1", begun, fold(2, "lund"))
    running.commit_fold("j1", begun, fold(2, "lund"))
    assert running.folded("j1", begun) == fold(2, "kiel", "lund")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (fold(1, "lund"), "does not follow 2"),
        (fold(0, "lund"), "does not follow 2"),
        (fold(2, "riga"), "other members or bytes"),
        (fold(2, "lund", checksum=name_of("x")), "other members or bytes"),
        (fold(2, "lund", slot=1), "other members or bytes"),
        (fold(3, "kiel"), "'kiel' would be counted twice"),
        (fold(3, "lund", "riga"), "'lund' would be counted twice"),
        (fold(3, "riga", "riga"), "'riga' would be counted twice"),
        (fold(3, "mallory"), "'mallory' was never asked"),
        (fold(3, "riga", receipts=("a", "b")), "differ in number"),
    ],
)
def test_a_fold_that_does_not_follow_is_refused(running, wrong, words):
    begun = running.open_round("j1", opening(), 20.0)
    running.commit_fold("j1", begun, fold(1, "kiel"))
    running.commit_fold("j1", begun, fold(2, "lund"))
    with pytest.raises(StoreError, match=words):
        running.commit_fold("j1", begun, wrong)
    assert running.folded("j1", begun) == fold(2, "kiel", "lund")


def test_folds_belong_to_open_rounds(running):
    with pytest.raises(StoreError, match="not open"):
        running.commit_fold("j1", opening(), fold(1, "kiel"))
    run_round(running, "j1", 0)
    with pytest.raises(StoreError, match="not open"):
        running.commit_fold("j1", opening(), fold(2))
    assert running.folded("j1", opening()) == fold(1, *COHORT)


# ------------------------------------------------------------------ closing


def test_closing_moves_the_job_on_in_one_step(running):
    begun = running.open_round("j1", opening(), 20.0)
    running.commit_fold("j1", begun, fold(1, "riga", "kiel"))
    done = record(begun, ("kiel", "riga"))
    after = state(done, best=0.30000000000000004, stale=2)
    assert running.state("j1") is None
    running.close_round("j1", done, after, 25.0)
    assert running.records("j1") == [done]
    assert running.state("j1") == after
    assert running.current_round("j1") is None
    event = running.events("j1")[-1]
    assert event.kind == "round.closed"
    assert event.time == 25.0
    commitment = hashlib.sha256(b'["kiel","riga"]').hexdigest()
    assert event.body == {
        "purpose": "train",
        "round": 0,
        "attempt": 0,
        "asked": 4,
        "counted": 2,
        "metrics": {"loss": 0.30000000000000004, "auroc": None},
        "seconds": 1.25,
        "model": done.model,
        "members_sha256": commitment,
    }


def test_whoever_is_in_no_sum_becomes_durable_with_the_round(running):
    begun = running.open_round("j1", opening(), 20.0)
    running.commit_fold("j1", begun, fold(1, "kiel", "lund"))
    done = record(begun, ("kiel", "lund", "riga"))
    durable = running.folded("j1", begun)
    receipts = {**dict(zip(durable.members, durable.receipts, strict=True)), "riga": name_of("r")}
    running.close_round("j1", done, state(done), 21.0, receipts)
    after = running.folded("j1", begun)
    assert dict(zip(after.members, after.receipts, strict=True)) == receipts
    assert (after.generation, after.checksum) == (2, "")
    running.close_round("j1", done, state(done), 22.0, receipts)
    assert running.folded("j1", begun) == after


def test_a_round_without_any_sum_remembers_its_receipts(running):
    begun = running.open_round("j1", opening(), 20.0)
    done = record(begun, ("riga", "kiel"))
    receipts = {"riga": name_of("r"), "kiel": name_of("k")}
    running.close_round("j1", done, state(done), 21.0, receipts)
    after = running.folded("j1", begun)
    assert dict(zip(after.members, after.receipts, strict=True)) == receipts


@pytest.mark.parametrize(
    ("receipts", "words"),
    [
        ({"kiel": "another", "lund": "a"}, "'kiel' counts with another update already"),
        ({"mallory": "a"}, "'mallory' was never asked"),
        ({"lund": "a", "riga": "b"}, "2 members where 3 are durable"),
        ({}, "2 members where 1 are durable"),
    ],
)
def test_receipts_that_do_not_fit_the_record_close_nothing(running, receipts, words):
    begun = running.open_round("j1", opening(), 20.0)
    running.commit_fold("j1", begun, fold(1, "kiel"))
    done = record(begun, ("kiel", "lund"))
    with pytest.raises(StoreError, match=words):
        running.close_round("j1", done, state(done), 21.0, receipts)
    assert running.records("j1") == []
    assert running.folded("j1", begun) == fold(1, "kiel")


def test_what_counted_since_a_round_is_the_first_that_did(running):
    """kiel counts in rounds 0 and 2, riga in 0 and 1, lund in none but the open one."""
    for number, members in enumerate((("kiel", "riga"), ("riga",), ("bremen", "kiel"))):
        where = opening(number)
        running.open_round("j1", where, 20.0)
        receipts = {member: name_of("sent", number, member) for member in members}
        done = record(where, members)
        running.close_round("j1", done, state(done), 30.0, receipts)
    since = running.counted_since
    assert since("j1", "kiel", 0, 0) == name_of("sent", 0, "kiel")
    assert since("j1", "kiel", 0, 1) == since("j1", "kiel", 1, 0) == name_of("sent", 2, "kiel")
    assert since("j1", "kiel", 2, 0) == name_of("sent", 2, "kiel")
    assert since("j1", "kiel", 2, 1) is since("j1", "kiel", 3, 0) is None
    assert since("j1", "riga", 1, 0) == name_of("sent", 1, "riga")
    assert since("j1", "lund", 0, 0) is since("another", "kiel", 0, 0) is None
    where = opening(3)
    running.open_round("j1", where, 40.0)
    running.commit_fold("j1", where, fold(1, "lund", "bremen"))
    assert since("j1", "lund", 1, 0) == name_of("update", "lund"), "durable before the round ends"


def test_records_come_in_the_order_in_which_rounds_ended(running):
    assert running.last_record("j1") is None
    done = [run_round(running, "j1", number) for number in range(12)]
    assert running.last_record("j1") == done[-1]
    begun = running.open_round("j1", opening(12, purpose=Purpose.EVALUATE), 30.0)
    last = record(begun)
    running.close_round("j1", last, state(last), 31.0)
    assert running.records("j1") == [*done, last]
    assert running.last_record("j1") == last


def test_closing_twice_changes_nothing(running):
    done = run_round(running, "j1", 0)
    later = run_round(running, "j1", 1)
    head, after = running.events_head(), running.state("j1")
    running.close_round("j1", replace(done, seconds=99.0), state(done), 90.0)
    assert running.records("j1") == [done, later]
    assert running.state("j1") == after
    assert running.events_head() == head


@pytest.mark.parametrize(
    "changes",
    [{"model": name_of("x")}, {"members": COHORT[:2]}, {"metrics": {}}, {"void": True}],
    ids=lambda c: next(iter(c)),
)
def test_a_closed_round_is_not_closed_with_another_result(running, changes):
    done = run_round(running, "j1", 0)
    with pytest.raises(StoreError, match="another result"):
        running.close_round("j1", replace(done, **changes), state(done), 30.0)
    assert running.records("j1") == [done]


def test_a_void_round_is_tried_again_from_the_same_model(running):
    begun = running.open_round("j1", opening(), 20.0)
    running.commit_fold("j1", begun, fold(1, "kiel"))
    void = replace(record(begun, ()), members=("kiel",))
    running.close_round("j1", void, state(void), 21.0)
    assert running.events("j1")[-1].kind == "round.void"
    assert running.state("j1") == state(void)
    again = run_round(running, "j1", 0, 1)
    assert running.records("j1") == [void, again]
    assert running.state("j1") == state(again)


def test_a_record_that_does_not_fit_its_round_is_refused(running):
    begun = running.open_round("j1", opening(), 20.0)
    running.commit_fold("j1", begun, fold(1, "kiel", "lund"))
    good = record(begun, ("kiel", "lund"))
    after = state(good)
    for wrong, row, words in (
        (record(opening(0, 1), ("kiel",)), after, "never opened"),
        (replace(good, cohort=COHORT[:3]), after, "another cohort"),
        (replace(good, members=("kiel", "kiel")), after, "counts a client twice"),
        (replace(good, members=("kiel", "mallory")), after, "not asked"),
        (replace(good, members=("kiel",)), after, "1 members where 2 are durable"),
        (replace(good, members=COHORT[:3]), after, "3 members where 2 are durable"),
        (good, replace(after, round=0), "round 1, attempt 0 is due"),
        (good, replace(after, attempt=1), "round 1, attempt 0 is due"),
        (good, replace(after, model_sha256=name_of("x")), "different models"),
        (replace(good, void=True), after, "round 0, attempt 1 is due"),
        (
            replace(good, void=True),
            replace(after, round=0, attempt=1),
            "trained nothing changed the model",
        ),
    ):
        with pytest.raises(StoreError, match=words):
            running.close_round("j1", wrong, row, 21.0)
    assert running.records("j1") == []
    assert running.state("j1") is None
    assert running.current_round("j1") == OpenRound(begun, 20.0)
    running.close_round("j1", good, after, 21.0)


def test_a_void_round_changes_nothing_but_the_attempt(running):
    run_round(running, "j1", 0)
    begun = running.open_round("j1", opening(1), 30.0)
    void = record(begun, ())
    for changes in ({"server_sha256s": ()}, {"best": 1.0}, {"stale": 1}):
        with pytest.raises(StoreError, match="void round"):
            running.close_round("j1", void, state(void, **changes), 31.0)
    running.close_round("j1", void, state(void), 31.0)


@pytest.mark.parametrize(
    "column",
    [{"model_sha256": name_of("x")}, {"round": 7}, {"attempt": 1}],
    ids=lambda c: next(iter(c)),
)
def test_a_round_is_closed_from_the_head_of_the_lineage_alone(running, column):
    """Compare-and-swap: the state moved on while the round was open."""
    run_round(running, "j1", 0)
    begun = running.open_round("j1", opening(1), 30.0)
    running.database.write(lambda c: (c.execute(update(schema.states).values(**column)), None)[1])
    moved = running.state("j1")
    done = record(begun)
    with pytest.raises(StoreError, match="not the head"):
        running.close_round("j1", done, state(done), 31.0)
    assert running.state("j1") == moved
    assert len(running.records("j1")) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e-320, -0.0, 5.0, None])
def test_every_float_survives(running, value):
    begun = running.open_round("j1", opening(), 20.0)
    done = record(begun, metrics={"loss": value})
    running.close_round("j1", done, state(done, best=value), 21.0)
    running.close_round("j1", done, state(done, best=value), 21.0)
    back, best = running.records("j1")[0].metrics["loss"], running.state("j1").best
    assert repr(back) == repr(best) == repr(value)
    running.verify_events()


# ------------------------------------------------------------------ jobs that do not run


def test_rounds_belong_to_running_jobs(running):
    for status in (Status.FAILED, Status.CANCELLED, Status.REFUSED):
        identifier = start(running, status.value)
        begun = running.open_round(identifier, opening(), 20.0)
        running.commit_fold(identifier, begun, fold(1, "kiel"))
        running.set_status(identifier, status, "", 21.0)
        assert running.current_round(identifier) is None
        done = record(begun, ("kiel",))
        late: Callable[[], object]
        for late in (
            lambda: running.open_round(identifier, begun, 22.0),  # noqa: B023  # called at once
            lambda: running.commit_fold(identifier, begun, fold(2, "lund")),  # noqa: B023
            lambda: running.close_round(identifier, done, state(done), 22.0),  # noqa: B023
        ):
            with pytest.raises(StoreError):
                late()
        assert running.records(identifier) == []
        assert running.state(identifier) is None


def test_a_job_is_not_done_with_a_round_open(running):
    begun = running.open_round("j1", opening(), 20.0)
    with pytest.raises(StoreError, match="while a round"):
        running.set_status("j1", Status.DONE, "", 21.0)
    done = record(begun)
    running.close_round("j1", done, state(done), 22.0)
    running.set_status("j1", Status.DONE, "", 23.0)
    with pytest.raises(StoreError, match="is done"):
        running.open_round("j1", opening(1), 24.0)
