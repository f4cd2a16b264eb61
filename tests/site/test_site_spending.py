"""What a site's own ledger allows, remembers and refuses."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hansa.algorithms import fedavg
from hansa.core.events import repeat
from hansa.core.job import Privacy, Rounds
from hansa.core.plan import Plan
from hansa.errors import HansaError, PolicyRefused, StoreError
from hansa.privacy.accountants import DpAccounting, renyi
from hansa.site import logbook
from hansa.site.config import Budget
from hansa.site.spending import NAME, Spending, standings
from hansa.work.dpsgd import RELATION, DpSgd
from tests.support.toy import plan

BUDGET = Budget(name="patients", epsilon=8.0, delta=1e-4)
EXAMPLES = 250


def private(epsilon: float = 2.0, rounds: int = 3) -> Plan:
    return plan(
        privacy=Privacy(
            unit="example", mechanism="dpsgd", clip=1.0, epsilon=epsilon, delta=1e-4, examples=20
        ),
        algorithm=fedavg(client_lr=0.5, local_steps=3, batch_size=8),
        rounds=Rounds(count=rounds),
    )


PLAN = private()


def event(of: Plan = PLAN, examples: int = EXAMPLES):
    work = of.parts.algorithm.work
    assert isinstance(work, DpSgd)
    return work.pace(examples).event


def take(spending: Spending, job: str = "j1", number: int = 0, of: Plan = PLAN) -> None:
    spending.take(of, EXAMPLES, job, "train", number)


def fill(spending: Spending) -> int:
    """Charges until it is refused; how many were taken."""
    for count in range(100_000):
        try:
            take(spending, "j1", count)
        except PolicyRefused:
            return count
    raise AssertionError("the budget has no end")


def test_updates_add_up_and_are_remembered(tmp_path: Path):
    spending = Spending(tmp_path, BUDGET)
    for number in range(3):
        take(spending, "j1", number)
    take(Spending(tmp_path, BUDGET), "j2")
    (found,) = standings(tmp_path)
    order = found.block.order
    assert found.jobs == {"j1": 3, "j2": 1}
    assert found.account.spent / 1e6 == pytest.approx(4 * renyi(event(), order, RELATION), abs=1e-5)
    by_all_orders = DpAccounting("rdp").epsilon(repeat(event(), 4), 1e-4, RELATION)
    assert found.epsilon >= by_all_orders * 0.999, "one order is never better than the best"
    assert found.words["updates"] == 4


def test_the_budget_is_kept_to_the_last_update(tmp_path: Path):
    """What fits is what the divergence says, whoever looks; then nothing more is written."""
    count = fill(Spending(tmp_path, BUDGET))
    (found,) = standings(tmp_path)
    each = found.account.spent // count
    assert found.account.capacity - found.account.spent < each
    assert found.epsilon <= 8.0
    assert DpAccounting("rdp").epsilon(repeat(event(), count), 1e-4, RELATION) <= 8.0
    before = (tmp_path / NAME).read_bytes()
    again = Spending(tmp_path, BUDGET)
    with pytest.raises(PolicyRefused, match="room for 0 more such updates, 1 are asked for"):
        again.check(PLAN, EXAMPLES)
    with pytest.raises(PolicyRefused):
        take(again, "j2")
    assert (tmp_path / NAME).read_bytes() == before


def test_an_update_that_is_made_again_is_charged_again(tmp_path: Path):
    """It has fresh noise: another release, also under the same round and attempt."""
    spending = Spending(tmp_path, BUDGET)
    take(spending)
    once = standings(tmp_path)[0].account.spent
    take(spending)
    assert standings(tmp_path)[0].account.spent == 2 * once


def test_a_job_is_admitted_only_if_all_its_updates_fit(tmp_path: Path):
    spending = Spending(tmp_path, BUDGET)
    spending.admit(PLAN, EXAMPLES, "j9")
    take(spending)
    with pytest.raises(PolicyRefused, match=r"are asked for"):
        spending.admit(replace(PLAN, job=private(rounds=3000).job), EXAMPLES, "j9")
    assert fill(spending) > 0
    with pytest.raises(PolicyRefused, match="room for 0 more"):
        spending.admit(PLAN, EXAMPLES, "j9")


def test_a_job_goes_on_after_a_restart_with_what_it_has_left(tmp_path: Path):
    """The site is offered the job again; its updates that left are paid for."""
    small = replace(BUDGET, epsilon=3.0)
    spending = Spending(tmp_path, small)
    spending.admit(PLAN, EXAMPLES, "j1")
    for number in range(2):
        take(spending, "j1", number)
    again = Spending(tmp_path, small)
    again.admit(PLAN, EXAMPLES, "j1")
    with pytest.raises(PolicyRefused, match="3 are asked for"):
        again.admit(PLAN, EXAMPLES, "j2")
    take(again, "j1", 2)
    Spending(tmp_path, small).admit(PLAN, EXAMPLES, "j1")


def test_a_dearer_job_costs_more(tmp_path: Path):
    spending = Spending(tmp_path, replace(BUDGET, epsilon=100.0, order=4))
    take(spending)
    once = standings(tmp_path)[0].account.spent
    take(spending, "j2", of=private(epsilon=6.0))
    assert standings(tmp_path)[0].account.spent > 3 * once


@pytest.mark.parametrize("budget", [BUDGET, Budget()])
def test_too_few_examples_are_refused_with_and_without_a_budget(tmp_path: Path, budget: Budget):
    with pytest.raises(HansaError, match="fewer than the 20 training examples"):
        Spending(tmp_path, budget).admit(PLAN, 19, "j9")


def test_a_job_that_counts_nothing_by_example_may_not_run_under_a_budget(tmp_path: Path):
    others = (
        plan(),
        plan(
            privacy=Privacy(mechanism="gaussian", clip=1.0, epsilon=4.0, delta=1e-3),
            aggregation=replace(plan().job.aggregation, weighting="uniform"),
        ),
    )
    for other in others:
        with pytest.raises(PolicyRefused, match="counts nothing by example"):
            Spending(tmp_path, BUDGET).admit(other, EXAMPLES, "j9")
        Spending(tmp_path / "free", Budget()).admit(other, EXAMPLES, "j9")


def test_without_a_budget_nothing_is_kept(tmp_path: Path):
    spending = Spending(tmp_path, Budget())
    spending.admit(PLAN, EXAMPLES, "j9")
    spending.check(PLAN, EXAMPLES)
    take(spending)
    assert not (tmp_path / NAME).exists()
    assert standings(tmp_path) == ()


@pytest.mark.parametrize("changed", [{"epsilon": 9.0}, {"delta": 1e-5}, {"order": 200}])
def test_a_budget_never_changes(tmp_path: Path, changed):
    take(Spending(tmp_path, BUDGET))
    with pytest.raises(HansaError, match="which never changes"):
        Spending(tmp_path, replace(BUDGET, **changed))
    other = Spending(tmp_path, replace(BUDGET, name="new-patients", epsilon=9.0))
    take(other)
    assert [s.block.name for s in standings(tmp_path)] == ["patients", "new-patients"]


@pytest.mark.parametrize("budget", [replace(BUDGET, delta=0.0), replace(BUDGET, name="a b")])
def test_an_impossible_budget_is_refused_when_the_agent_starts(tmp_path: Path, budget: Budget):
    with pytest.raises(HansaError):
        Spending(tmp_path, budget)


def test_every_changed_byte_is_noticed(tmp_path: Path):
    spending = Spending(tmp_path, BUDGET)
    take(spending)
    take(spending)
    path = tmp_path / NAME
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << place % 8
        path.write_bytes(bytes(spoiled))
        with pytest.raises(HansaError):
            standings(tmp_path)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(StoreError):
        Spending(tmp_path, BUDGET)


def test_a_charge_that_a_crash_tore_apart_counts(tmp_path: Path):
    """Set aside but not spent for good, at whatever byte it ends: never less than before."""
    spending = Spending(tmp_path, BUDGET)
    take(spending)
    path = tmp_path / NAME
    once, before = path.read_bytes(), standings(tmp_path)[0].account.spent
    take(spending)
    twice = path.read_bytes()
    for size in range(len(once), len(twice), 5):
        path.write_bytes(twice[:size])
        Spending(tmp_path, BUDGET)  # drops a torn line, as after a crash
        found = standings(tmp_path)[0].account.spent
        assert before <= found <= 2 * before
        reserved = b'"kind": "reserve"' in path.read_bytes()[len(once) :]
        assert found == (2 * before if reserved else before)


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_nothing_leaves_where_the_charge_cannot_be_written(tmp_path: Path, monkeypatch, room):
    """The disk is full after so many lines of a new job; the ledger goes on when there is room."""
    spending, append = Spending(tmp_path, BUDGET), logbook._append
    lines: list[bytes] = []
    take(spending)

    def full(path: Path, line: bytes) -> None:
        if len(lines) == room:
            raise OSError(28, "No space left on device")
        lines.append(line)
        append(path, line)

    monkeypatch.setattr(logbook, "_append", full)
    if room < 3:
        with pytest.raises(StoreError, match="nothing may leave"):
            take(spending, "j2")
    monkeypatch.undo()
    assert standings(tmp_path)[0].jobs.get("j2", 0) == max(room - 1, 0) * (room < 3)
    take(spending, "j2")
    assert standings(tmp_path)[0].jobs == {"j1": 1, "j2": 2 if room < 3 else 1}
    take(Spending(tmp_path, BUDGET), "j2")


def test_jobs_that_pack_at_the_same_time_stay_below_the_budget(tmp_path: Path):
    spending, refused = Spending(tmp_path, BUDGET), threading.Event()

    def spend(job: int) -> int:
        count = 0
        while True:
            try:
                take(spending, f"j{job}", count)
            except PolicyRefused:
                refused.set()
                return count
            count += 1

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(spend, range(8)))
    (found,) = standings(tmp_path)
    assert refused.is_set()
    assert sum(counts) == sum(found.jobs.values())
    assert found.epsilon <= 8.0
    assert found.account.free < found.account.spent // sum(counts)


def test_the_ledger_holds_no_more_than_it_must(tmp_path: Path):
    """The site's own file, yet: no data, no parameters; amounts and what they are of."""
    take(Spending(tmp_path, BUDGET))
    lines = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["create", "hold", "reserve", "commit"]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
