"""Other misfortunes: deaths in a row, a long sleep, bad networks, lost answers, a busy house."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from hansa.core.job import Cohort
from hansa.errors import HansaError
from hansa.examples.heart.task import HOSPITALS
from tests.chaos.arena import (
    COORDINATOR,
    Arena,
    arena,
    expected,
    plain_job,
    private_job,
    wait_for,
)
from tests.chaos.evidence import key, nothing_lost_or_doubled
from tests.support.postgres import Server
from tests.support.proxy import Proxy

pytestmark = pytest.mark.soak

ROUNDS = 8


@pytest.fixture(scope="module")
def arenas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Arena]]:
    """Makes federations with slow rounds; the last one is used again if nothing is wrong in it."""
    last: Arena | None = None
    with contextlib.ExitStack() as stack:

        def get() -> Arena:
            nonlocal last
            if last is None or not last.healthy:
                stack.close()
                last = stack.enter_context(arena(tmp_path_factory.mktemp("arena"), pace="slow"))
            return last

        yield get


@pytest.fixture
def here(arenas: Callable[[], Arena]) -> Arena:
    """A federation in good health."""
    return arenas()


def check(here: Arena, job: str, seed: int, *disturbed: str, rounds: int = ROUNDS) -> None:
    wanted = expected(plain_job, seed, rounds)
    nothing_lost_or_doubled(here.finished(job, *disturbed), wanted, frozenset(disturbed))


def test_the_coordinator_dies_before_it_answers_a_submission(here: Arena) -> None:
    known = {row.id for row in here.store.jobs()}
    here.condemn(COORDINATOR, "submitted")
    with pytest.raises(HansaError, match="does not answer"):
        here.submit(plain_job(1, ROUNDS))
    here.await_death(COORDINATOR)
    here.revive(COORDINATOR)
    (job,) = {row.id for row in here.store.jobs()} - known
    check(here, job, 1)


def test_the_coordinator_dies_again_while_it_comes_back(here: Arena) -> None:
    for number, point in enumerate(("reserved", "opened", "folded", "committed", "put", "closed")):
        job = here.submit(plain_job(number, ROUNDS))
        here.await_rounds(job, 3)
        time.sleep(0.05)
        here.kill(COORDINATOR)
        here.condemn(COORDINATOR, point)
        here.revive_to_die()
        here.revive_to_die(0.03 * number)
        here.revive(COORDINATOR)
        check(here, job, number)


def test_all_die_at_once(here: Arena) -> None:
    job = here.submit(plain_job(2, ROUNDS))
    here.await_rounds(job, 4)
    here.kill(COORDINATOR, *HOSPITALS)
    here.revive(COORDINATOR, *HOSPITALS)
    check(here, job, 2, *HOSPITALS)


@pytest.mark.parametrize("name", [COORDINATOR, "switzerland"])
def test_a_process_sleeps_for_a_while(here: Arena, name: str) -> None:
    job = here.submit(plain_job(3, ROUNDS))
    for count in (2, 5):
        here.await_rounds(job, count)
        here.federation.pause(name)
        time.sleep(3.0)
        here.federation.proceed(name)
    check(here, job, 3)


def test_the_coordinator_is_killed_while_a_site_sleeps_in_a_round(here: Arena) -> None:
    """Some updates are durable when it dies, the others come to the next process."""
    job = here.submit(plain_job(4, ROUNDS))
    here.await_rounds(job, 3)
    here.federation.pause("va")

    def some_are_durable() -> bool:
        return any(len(members) in (2, 3) for members in here.traces(job).members.values())

    wait_for(some_are_durable, "a durable sum without va")
    here.kill(COORDINATOR)
    here.revive(COORDINATOR)
    time.sleep(1.0)
    here.federation.proceed("va")
    check(here, job, 4)


def test_three_jobs_at_once_lose_nothing(here: Arena) -> None:
    jobs = {seed: here.submit(plain_job(seed, ROUNDS)) for seed in range(3)}
    here.await_rounds(jobs[2], 2)
    here.kill("hungarian")
    here.revive("hungarian")
    here.await_rounds(jobs[1], 5)
    here.kill(COORDINATOR, "va")
    here.revive(COORDINATOR, "va")
    for seed, job in jobs.items():
        check(here, job, seed, "hungarian", "va")


@pytest.mark.parametrize(
    "point", ["ledger.reserve?", "open_round?", "commit_fold?", "ledger.commit?", "close_round?"]
)
def test_an_answer_of_the_store_is_lost(here: Arena, point: str) -> None:
    """The transaction happened, and nobody said so: it is asked for again and happens once."""
    job_before = {row.id for row in here.store.jobs()}
    here.condemn(COORDINATOR, point, 3)
    job = here.submit(plain_job(0, ROUNDS))
    assert job not in job_before
    here.finished(job)
    assert not (here.doom / COORDINATOR).exists(), "the answer was not lost"
    check(here, job, 0)


def test_an_attempt_is_remembered(here: Arena) -> None:
    """A round that was void is tried again; who dies in the second try does not begin a third."""
    job = plain_job(1, ROUNDS)
    job_id = here.submit(replace(job, rounds=replace(job.rounds, deadline=3.0)))
    here.await_rounds(job_id, 3)
    here.federation.pause("va")
    time.sleep(1.0)  # now the open round is one that va misses
    here.condemn(COORDINATOR, "opened")
    here.await_death(COORDINATOR)
    here.federation.proceed("va")
    here.revive(COORDINATOR)
    traces = here.finished(job_id, "va")
    void = [key(r) for r in traces.records if r.void]
    assert len(void) == 1
    again = (void[0][0], void[0][1], 1)
    wanted = expected(plain_job, 1, ROUNDS)
    rounds = [name for name in wanted.rounds if name != void[0]]
    rounds = sorted([*rounds, void[0], again], key=lambda name: (name[0] != "train", *name[1:]))
    metrics = {again if name == void[0] else name: m for name, m in wanted.metrics.items()}
    metrics[void[0]] = {}
    nothing_lost_or_doubled(
        traces, replace(wanted, rounds=tuple(rounds), metrics=metrics), frozenset({"va"})
    )


def test_a_cohort_is_remembered(here: Arena) -> None:
    """Who was drawn before a death works after it, also if they would not be drawn again."""
    job = private_job(0, 6)
    cohort = Cohort(population=len(HOSPITALS), sampler="fixed", size=2)
    rounds = replace(job.rounds, quorum=2)
    here.condemn(COORDINATOR, "opened", 3)
    job_id = here.submit(replace(job, cohort=cohort, rounds=rounds))
    here.await_death(COORDINATOR)
    opened = here.store.current_round(job_id)
    assert opened is not None
    secret = here.federation.coordinator / "secret.key"
    before = secret.read_bytes()
    for other in range(20):  # another key, hence other cohorts; one of a few draws differs surely
        secret.write_bytes(bytes([other]) * 32)
        here.condemn(COORDINATOR, "opened")
        here.revive_to_die()
        again = here.store.current_round(job_id)
        assert again == opened
        if other == 3:
            break
    here.revive(COORDINATOR)
    traces = here.finished(job_id)
    secret.write_bytes(before)
    assert traces.status.value == "done", traces.reason
    assert opened.opening.cohort in [record.cohort for record in traces.records]
    assert all(record.members == record.cohort for record in traces.records)
    charged = [key(e) for e in traces.entries if e.kind == "commit"]
    assert charged == [key(record) for record in traces.records]


# ------------------------------------------------------------------ networks


def trouble(proxies: list[Proxy], seed: int, seconds: float) -> None:
    """Treats connections badly for a while, then well."""
    rng = random.Random(seed)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        proxy = rng.choice(proxies)
        match rng.randrange(4):
            case 0:
                proxy.cut()
            case 1:
                proxy.half_close()
            case 2:
                proxy.hold()
                time.sleep(rng.uniform(0.1, 0.5))
                proxy.cut()
                proxy.flow()
            case 3:
                proxy.delay = rng.choice((0.0, 0.01, 0.05))
        time.sleep(rng.uniform(0.05, 0.4))
    for proxy in proxies:
        proxy.delay = 0.0
        proxy.flow()


@pytest.mark.parametrize("seed", range(4))
def test_bad_connections_change_nothing(seed: int, tmp_path: Path) -> None:
    with arena(tmp_path, pace="slow", proxied=True) as here:
        job = here.submit(plain_job(seed, 20))
        here.await_rounds(job, 2)
        trouble(list(here.proxies.values()), seed, 10.0)
        check(here, job, seed, rounds=20)
        assert here.healthy


def test_a_death_behind_bad_connections(tmp_path: Path) -> None:
    with arena(tmp_path, pace="slow", proxied=True) as here:
        job = here.submit(plain_job(1, 20))
        here.await_rounds(job, 2)
        thread = threading.Thread(target=trouble, args=(list(here.proxies.values()), 9, 8.0))
        thread.start()
        time.sleep(2.0)
        here.kill(COORDINATOR)
        here.revive(COORDINATOR)
        time.sleep(2.0)
        here.kill("va")
        here.revive("va")
        thread.join()
        check(here, job, 1, "va", rounds=20)
        assert here.healthy


# ------------------------------------------------------------------ databases


def test_the_connections_to_the_database_are_cut(tmp_path: Path, postgres: Server) -> None:
    name = postgres.create()
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    conninfo = f"host=127.0.0.1 port={postgres.port} user=hansa dbname=postgres"
    with arena(tmp_path, pace="slow", store=postgres.url(name)) as here:
        for seed in range(3):
            job = here.submit(plain_job(seed, ROUNDS))
            with contextlib.suppress(AssertionError):
                here.await_rounds(job, 2)
            with psycopg.connect(conninfo, autocommit=True) as connection:
                for _ in range(5):
                    time.sleep(0.2)
                    connection.execute(cut.encode())
            check(here, job, seed)
