"""Charges jobs to a budget again and again, killed at every step; prints what came of each kill.

Usage: python -m tests.support.crash_budget KILLS FOLDER [URL]

A child process holds, reserves, commits, releases and settles job after job; at its n-th point it
kills itself with SIGKILL, and another one goes on. Points are before and after each commit of the
database, before and after what is written in it, and on both sides of a release. One line of JSON
is printed for each kill, and one at the end.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hansa.budget.block import Block
from hansa.budget.cost import Need, cost_at
from hansa.coordinator.budget import JobBudget
from hansa.coordinator.budget_book import StoredBook
from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.rows import Status
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.events import Gaussian
from hansa.core.round import Charge
from tests.support.budgets import block
from tests.support.crash_store import Point, forked, killer, note, notes, nothing
from tests.support.store_rows import empty, start

EVENT, ROUNDS, NOW = Gaussian(20.0), 2, 5.0
BLOCKS: tuple[Block, ...] = (block("one", epsilon=400.0), block("two", epsilon=400.0, order=8))
COSTS = {b.name: cost_at(b, EVENT) for b in BLOCKS}


def prepare(url: str) -> None:
    with Store.open(url) as store:
        store.database.write(empty)
        for one in BLOCKS:
            store.budgets.create(one, 1.0)


def run(url: str, folder: Path, jobs: int, point: Point) -> None:
    """Runs jobs to their end, from wherever an earlier process left them."""
    with Store.open(url) as store:
        arm(store, point)
        found = {row.id: row.status for row in store.jobs()}
        for name in (f"j{number}" for number in range(jobs)):
            if name not in found or not found[name].final:
                one_job(store, folder, name, found.get(name), point)


def one_job(store: Store, folder: Path, job: str, found: Status | None, point: Point) -> None:
    if found is not Status.RUNNING:
        begin(store, job, found is None)
    needs = {name: Need(ROUNDS * urdp, urdp, ROUNDS) for name, urdp in COSTS.items()}
    store.budgets.write(lambda _, book: book.hold(job, needs, NOW))
    note(folder, "held", job)
    ledger = StoreLedger(store, job, ROUNDS, lambda: NOW, JobBudget(job, BLOCKS))
    for number in range(ROUNDS):
        charge = Charge(job, number, 0, Purpose.TRAIN, EVENT)
        ledger.reserve(charge)
        note(folder, "reserved", job, number)
        ledger.commit(charge)
        point("before the release")
        note(folder, "released", job, number)
        point("after the release")
    store.set_status(job, Status.DONE, "", NOW)


def begin(store: Store, job: str, new: bool) -> None:
    if new:
        start(store, job)
        return
    if store.job(job).status is Status.SUBMITTED:
        store.set_status(job, Status.OFFERED, "", NOW)
    store.set_status(job, Status.RUNNING, "", NOW)


def arm(store: Store, point: Point) -> None:
    """Calls `point` around every commit, and around what the book writes before it."""
    dialect: Any = store.database.engine.dialect
    dialect.do_commit = around(dialect.do_commit, point, "commit")
    StoredBook.flush = around(StoredBook.flush, point, "flush")  # type: ignore[method-assign]


def around(real: Callable[..., Any], point: Point, what: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        point(f"before {what}")
        result = real(*arguments)
        point(f"after {what}")
        return result

    return call


def spent(store: Store) -> dict[str, int]:
    return {s.block.name: s.account.spent for s in store.budgets.standings()}


def look(url: str, folder: Path) -> None:
    """What is wrong after a kill: less spent than before, or something released uncommitted."""
    path = folder / "spent"
    before = json.loads(path.read_text()) if path.exists() else dict.fromkeys(COSTS, 0)
    wrong: list[object] = []
    with Store.open(url) as store:
        store.budgets.verify()
        now = spent(store)
        wrong += [("less spent", name) for name in now if now[name] < before[name]]
        wrong += [
            ("above the cap", s.block.name) for s in store.budgets.standings() if s.account.free < 0
        ]
        entries = [json.loads(row.entry) for row in store.budgets.entries(limit=10**6)]
        kept = {(e["kind"], e["job"], e["round"], e["block"]) for e in entries}
        kinds = {"held": "hold", "reserved": "reserve", "released": "commit"}
        for what, job, *number in notes(folder):
            place = (kinds[what], job, *(number or [0]))
            wrong += [(what, job, *number, b.name) for b in BLOCKS if (*place, b.name) not in kept]
    path.write_text(json.dumps(now))
    what = (folder / "point").read_text() if (folder / "point").exists() else "end"
    print(json.dumps({"what": what, "wrong": wrong, "spent": now}), flush=True)


def jobs_of(kills: int) -> int:
    """Enough jobs that the last kill finds one; a job has about 30 points."""
    return kills + 3


def main(kills: int, folder: Path, url: str) -> None:
    jobs, chance, done = jobs_of(kills), random.Random(11), 0
    forked(lambda: prepare(url))
    while done < kills:
        at = 1 + done % 12 if done % 2 else chance.randrange(1, 40)
        if not forked(lambda: run(url, folder, jobs, killer(folder, at))):  # noqa: B023  # at once
            break
        done += 1
        forked(lambda: look(url, folder))
    forked(lambda: run(url, folder, jobs, nothing))
    (folder / "point").unlink(missing_ok=True)
    forked(lambda: look(url, folder))


if __name__ == "__main__":
    FOLDER = Path(sys.argv[2])
    main(int(sys.argv[1]), FOLDER, sys.argv[3] if len(sys.argv) > 3 else str(FOLDER / "store.db"))
