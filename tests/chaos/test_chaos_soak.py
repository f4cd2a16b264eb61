"""A hundred runs with a kill at a random moment, and one for each named point; `make soak`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.chaos.arena import COORDINATOR, arena, expected, plain_job, private_job, wait_for
from tests.chaos.cases import Case, at_random, run, undisturbed
from tests.chaos.evidence import nothing_lost_or_doubled
from tests.support.postgres import Server

pytestmark = pytest.mark.soak

ROUNDS = 10
BATCH = 10

COORDINATOR_POINTS = {
    "submitted": 1,
    "decided": 2,
    "running": 1,
    "reserved": 3,
    "opened": 3,
    "folded": 9,
    "written": 4,
    "synced": 4,
    "committed": 4,
    "spent": 3,
    "put": 3,
    "closed": 3,
    "done": 1,
}
"""Each point of the coordinator, and how often it is passed before it kills."""

SITE_POINTS = {
    "accepted": 1,
    "fetched": 4,
    "worked": 3,
    "left": 3,
    "acknowledged": 3,
    "received": 3,
}


@pytest.mark.parametrize("batch", range(10))
def test_ten_of_a_hundred_random_kills(
    batch: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Half of the batches run `hansa` as it is, half have rounds that last; the last two are on
    PostgreSQL."""
    pace, longest = ("", 0.06) if batch % 2 == 0 else ("slow", 0.2)
    store = ""
    if batch >= 8:
        server: Server = request.getfixturevalue("postgres")
        store = server.url(server.create())
    with arena(tmp_path, pace=pace, store=store) as here:
        undisturbed(here, plain_job, batch % 5, ROUNDS)
        for number in range(BATCH * batch, BATCH * (batch + 1)):
            case = at_random(number, ROUNDS, longest)
            print(case)
            run(here, case)


@pytest.mark.parametrize("make", [plain_job, private_job])
def test_the_coordinator_dies_at_each_point(make, tmp_path: Path) -> None:
    with arena(tmp_path, pace="slow") as here:
        for number, (point, count) in enumerate(COORDINATOR_POINTS.items()):
            if point == "submitted":
                continue  # whoever submits is not answered: see test_chaos_more.py
            print(point)
            run(here, Case(1000 + number, make, 5, (COORDINATOR,), point, count))
        for purpose_ends in (6, 7):  # the last training round; the measurement
            run(here, Case(1020 + purpose_ends, make, 6, (COORDINATOR,), "closed", purpose_ends))


def test_a_site_dies_at_each_point(tmp_path: Path) -> None:
    with arena(tmp_path, pace="slow") as here:
        for number, (point, count) in enumerate(SITE_POINTS.items()):
            for site in ("hungarian", "va"):
                print(point, site)
                run(here, Case(1100 + number, plain_job, 5, (site,), point, count))


def test_the_coordinator_dies_after_each_transaction(tmp_path: Path) -> None:
    """Whatever the store holds, what follows is the same as if nobody had died."""
    wanted, dead = expected(plain_job, 0, 2), 0
    with arena(tmp_path, pace="slow") as here:
        for count in range(2, 42):  # the first takes the job in: see test_chaos_more.py
            print(f"write {count}")
            here.condemn(COORDINATOR, "wrote", count)
            job = here.submit(plain_job(0, 2))
            wait_for(partial(here.over, job), f"a death or the end of {job}")
            here.pardon(COORDINATOR)
            if not here.federation.running(COORDINATOR):
                dead += 1
                here.kill(COORDINATOR)
                here.revive(COORDINATOR)
            nothing_lost_or_doubled(here.finished(job), wanted)
    assert dead >= 20
