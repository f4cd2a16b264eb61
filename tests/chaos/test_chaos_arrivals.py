"""Buffers of a federation whose coordinator or sites are killed: all that counts, counts once.

Who is quick is not the same in two runs, so the model is no evidence here. What is: every round is
closed once with a full buffer, no update is in two of them, and each site holds receipts for
exactly those of its updates that are in one.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hansa.coordinator.rows import Status
from hansa.core.contribute import Purpose
from hansa.core.job import Cohort, Job
from hansa.core.round import Opening
from hansa.examples.heart.task import HOSPITALS
from hansa.site.agent import LOG
from tests.chaos.arena import COORDINATOR, Arena, arena, plain_job, private_job, wait_for

ROUNDS, BUFFER = 10, 3
"""Three of four hospitals: two make a durable sum before the round ends."""


@dataclass(frozen=True)
class Case:
    """What is killed, and when: in the middle of some round, or at a point for the n-th time."""

    number: int
    victims: tuple[str, ...]
    point: str = ""
    count: int = 1
    private: bool = False

    def job(self) -> Job:
        of = (private_job if self.private else plain_job)(self.number, ROUNDS)
        cohort = Cohort(
            population=len(HOSPITALS), sampler="arrival", buffer=BUFFER, concurrency=len(HOSPITALS)
        )
        return replace(of, cohort=cohort, rounds=replace(of.rounds, quorum=0, attempts=5))


CASES = (
    Case(0, (COORDINATOR,), "folded", 5),
    Case(1, (COORDINATOR,), "synced", 2),
    Case(2, (COORDINATOR,), "committed", 3, private=True),
    Case(3, (COORDINATOR,), "put", 4),
    Case(4, (COORDINATOR,), "closed", 5),
    Case(5, (COORDINATOR,), "close_round?", 3),
    Case(6, ("va",), "left", 2),
    Case(7, (COORDINATOR,)),
    Case(8, (COORDINATOR, "cleveland")),
    Case(9, (COORDINATOR,), private=True),
)


def members(here: Arena, job: str, record) -> dict[str, str]:
    opening = Opening(record.purpose, record.round, record.attempt, (), "")
    fold = here.store.folded(job, opening)
    return {} if fold is None else dict(zip(fold.members, fold.receipts, strict=True))


def entries(here: Arena, site: str, job: str) -> list[dict[str, Any]]:
    lines = (here.folders[site] / LOG).read_text("utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry.get("job") == job]


def disturb(here: Arena, case: Case, job: str) -> None:
    """Kills and starts again; a point that raises kills nobody."""
    if case.point.endswith("?"):
        return
    if case.point:
        here.federation.wait(case.victims[0], 60.0)
        here.federation.kill(case.victims[0])
    else:
        rng = random.Random(f"arrivals {case.number}")
        here.await_rounds(job, rng.randrange(2, ROUNDS - 1))
        time.sleep(rng.uniform(0, 0.15))
        here.federation.kill(*case.victims)
    here.revive(*case.victims)


def run(here: Arena, case: Case) -> None:
    if case.point:
        here.condemn(case.victims[0], case.point, case.count)
    job = here.submit(case.job())
    disturb(here, case, job)
    wait_for(lambda: here.store.job(job).status.final, f"the end of {job}")
    assert here.store.job(job).status is Status.DONE, here.store.job(job).reason
    records = [r for r in here.store.records(job) if r.purpose is Purpose.TRAIN]
    counting = [record for record in records if not record.void]
    assert [record.round for record in counting] == list(range(ROUNDS))
    assert all(len(record.members) == BUFFER for record in counting)
    counted = {(r.round, r.attempt): members(here, job, r) for r in records}
    for record in counting:
        assert tuple(sorted(counted[record.round, record.attempt])) == record.members
    hashes = Counter(sha for each in counted.values() for sha in each.values())
    assert set(hashes.values()) == {1}, "an update counts twice"
    for site in HOSPITALS:
        _told_what_counts(here, site, job, counted, disturbed=site in case.victims)
    charges = [e for e in here.traces(job).entries if e.kind == "commit" and e.purpose == "train"]
    assert len(charges) == len(records)


def _told_what_counts(
    here: Arena,
    site: str,
    job: str,
    counted: dict[tuple[int, int], dict[str, str]],
    *,
    disturbed: bool,
) -> None:
    """The site's receipts are for the updates that are in a round; nobody else's."""
    mine = {each[site] for each in counted.values() if site in each}

    def heard() -> bool:
        kinds = [e["kind"] for e in entries(here, site, job) if e.get("purpose") == "train"]
        return kinds.count("left") <= kinds.count("received") + kinds.count("dropped")

    if not disturbed:
        wait_for(heard, f"the last words of {site}", seconds=20)
    said = [e for e in entries(here, site, job) if e.get("purpose") == "train"]
    left = {(e["round"], e["attempt"]): e["sha256"] for e in said if e["kind"] == "left"}
    got = [(e["round"], e["attempt"]) for e in said if e["kind"] == "received"]
    assert len(got) == len(set(got)), f"{site} was told twice"
    received = {left[start] for start in got}
    assert received <= mine, f"{site} holds a receipt for what counts nowhere"
    if not disturbed:
        assert received == mine, f"{site} lost a receipt"
    starts = {sha: start for start, sha in left.items()}
    for where, each in counted.items():
        if site in each and each[site] in starts:
            assert starts[each[site]] <= where, "counted before it was asked for"


def test_kills_lose_no_update_and_count_none_twice(tmp_path: Path) -> None:
    with arena(tmp_path, pace="slow") as here:
        for case in CASES:
            print(case)  # shown if the run fails
            run(here, case)
