"""The workers engine: real processes that are really killed, and the bits of the inline engine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hansa.core.job import Aggregation, Quantization, Rounds, SecureAggregation
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.workers import MOST_LOSSES, WorkersEngine
from hansa.engines.workers_messages import FromJob, Memory, put_places, take_place
from hansa.errors import HansaError, JobError
from hansa.simulation import Result, simulate
from tests.support.sources import Both, Infinite, Killing, Raising, Slow, Threaded
from tests.support.toy import (
    POPULATION,
    TOY,
    data,
    gathered,
    job,
    plan,
    round_task,
    run,
    start,
    world,
)
from tests.test_simulation import JOBS

PLAN = plan()
UNIFORM = Aggregation(weighting="uniform", clip=1.0, max_weight=2)
HIDDEN = {
    "quantization": Quantization(step=1e-4),
    "secure_aggregation": SecureAggregation(enabled=True),
    "aggregation": UNIFORM,
}
MORE = {
    "masked": job(**HIDDEN),
    "masked groups": job(
        quantization=Quantization(step=1e-4),
        secure_aggregation=SecureAggregation(enabled=True, groups=3),
        aggregation=Aggregation(rule="median", weighting="uniform", clip=1.0, max_weight=2),
        rounds=Rounds(count=3, quorum=6),
    ),
}


@pytest.fixture
def engine():
    """Makes engines of two workers, and ends them."""
    made: list[WorkersEngine] = []

    def make(source, model=TOY) -> WorkersEngine:
        made.append(WorkersEngine(Both(model, source), 2))
        return made[-1]

    yield make
    for each in made:
        each.close()


def model_of(engine, of=PLAN) -> str:
    model: str = run(train(of, initial_state(of, start()), world(of, engine))).model
    return model


def gone(pid: int) -> bool:
    """Whether a process has ended, or is a zombie that waits for somebody to ask."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


def all_gone(pids, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(gone(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def told(result: Result) -> list[object]:
    """All of a result that must not follow from the engine."""
    return [
        (r.purpose, r.cohort, r.members, r.dropouts, r.void, r.metrics, r.model)
        for r in result.records
    ]


# ------------------------------------------------------------------ the same bits


@pytest.mark.parametrize("name", ["mean", "median", "ring", *MORE])
def test_every_kind_of_job_gives_the_bits_and_records_of_inline(name):
    of = {**JOBS, **MORE}[name]
    masked = name not in MORE
    inline = simulate(of, masked=False)
    workers = simulate(of, engine="workers", masked=masked)
    assert workers.engine == "workers"
    assert workers.model_sha256 == inline.model_sha256
    assert told(workers) == told(inline)


@pytest.mark.parametrize("source", [Raising(POPULATION[3]), Infinite(POPULATION[1])])
def test_who_drops_out_is_told_as_inline_tells_it(engine, source):
    task, workers = round_task(PLAN), engine(source)
    with np.errstate(all="ignore"):
        _, expected = gathered(InlineEngine(TOY, source), task, POPULATION)
        partials, dropouts = gathered(workers, task, POPULATION)
    assert len(expected) == 1
    assert dropouts == expected
    assert sorted(m for p in partials for m in p.members) == sorted(
        set(POPULATION) - {expected[0].client}
    )


def test_each_worker_sends_one_sum(engine, tmp_path):
    partials, _ = gathered(engine(Slow(tmp_path, 0.02)), round_task(PLAN), POPULATION)
    assert 1 <= len(partials) <= 2
    assert len(partials) == len({name.name.split("-")[2] for name in tmp_path.iterdir()})


def test_two_jobs_can_share_an_engine(engine):
    """The plan travels when it is a new one."""
    workers, ring = engine(data), plan(**{**HIDDEN, "secure_aggregation": SecureAggregation()})
    for of in (PLAN, ring, PLAN):
        assert model_of(workers, of) == model_of(InlineEngine(TOY, data), of)


def test_the_longest_clients_come_first_once_they_are_known(engine, monkeypatch):
    workers, ordered = engine(data), []
    pool = workers.start()
    send = pool.order

    def order(what, digest):
        ordered.append([client for _, client in what.clients])
        send(what, digest)

    monkeypatch.setattr(pool, "order", order)
    sizes = {client: len(data(client).train) for client in POPULATION}
    for cohort in (POPULATION[1:], POPULATION):
        gathered(workers, round_task(PLAN), cohort)
    assert ordered[0] == [*POPULATION[1:]], "nothing is known yet"
    assert ordered[1][0] == POPULATION[0], "it may be the longest of all"
    assert [sizes[client] for client in ordered[1][1:]] == sorted(
        (sizes[client] for client in POPULATION[1:]), reverse=True
    )
    assert len(set(sizes.values())) > 2


# ------------------------------------------------------------------ kills


def test_a_killed_worker_is_replaced_and_nobody_counts_twice(engine, tmp_path):
    """It dies with clients that it had folded already; they are trained once more."""
    source = Killing(POPULATION[4], tmp_path, times=1)
    assert model_of(engine(source)) == model_of(InlineEngine(TOY, data))
    assert [file.name for file in tmp_path.iterdir()] == ["1"]


def test_workers_that_are_killed_again_and_again_end_the_run(engine, tmp_path):
    workers = engine(Killing(POPULATION[4], tmp_path))
    with pytest.raises(HansaError, match="SIGKILL") as caught:
        gathered(workers, round_task(PLAN, number=7), POPULATION)
    assert f"with '{POPULATION[4]}'" in caught.value.message
    assert f"{MOST_LOSSES} workers were lost in round 7" in caught.value.message
    assert workers.pids() == ()


@pytest.mark.parametrize("victims", [slice(1, 2), slice(1, 3), slice(0, 1), slice(0, 3)])
def test_processes_may_be_killed_from_outside(engine, tmp_path, victims):
    """One worker, all workers, the process that starts them, and all of them."""
    workers = engine(Slow(tmp_path, 0.1))
    gathered(workers, round_task(PLAN), POPULATION[:1])  # all are up, few clients are cached

    async def round_with_a_kill() -> list[str]:
        async def kill() -> None:
            await asyncio.sleep(0.05)
            for pid in workers.pids()[victims]:
                os.kill(pid, signal.SIGKILL)

        killing = asyncio.create_task(kill())
        found = [i async for i in workers.gather(round_task(PLAN), POPULATION)]
        await killing
        return sorted(member for partial in found for member in partial.members)

    assert run(round_with_a_kill()) == sorted(POPULATION)
    partials, dropouts = gathered(workers, round_task(PLAN), POPULATION)
    assert dropouts == []
    assert sorted(m for p in partials for m in p.members) == sorted(POPULATION)


# ------------------------------------------------------------------ nothing is left behind


def test_closing_ends_all_processes_and_leaves_no_memory(engine):
    files = len([*Path("/proc/self/fd").iterdir()])
    workers = engine(data)
    gathered(workers, round_task(PLAN), POPULATION)
    pids = workers.pids()
    assert len(pids) == 3
    assert not any(gone(pid) for pid in pids)
    memory = Path(f"/proc/self/fd/{workers.start().memory.fd}").readlink()
    assert str(memory).endswith("(deleted)"), "it never had a name that could be left behind"
    workers.close()
    assert all_gone(pids)
    assert len([*Path("/proc/self/fd").iterdir()]) == files
    gathered(workers, round_task(PLAN), POPULATION)  # it can begin anew


@pytest.mark.parametrize("odd", [(0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_closing_ends_workers_that_nobody_starts_or_that_stand_still(engine, odd):
    """The first end by the pipe that ends, the second are ended by the process that forked them."""
    workers, (which, number) = engine(data), odd
    gathered(workers, round_task(PLAN), POPULATION)
    pids = workers.pids()
    os.kill(pids[which], number)
    workers.close()
    assert all_gone(pids)


@pytest.mark.parametrize("starter", [True, False])
def test_a_round_that_is_given_up_ends_the_processes(engine, tmp_path, starter):
    """In the middle of a long client, and also if the process that forked them is gone."""
    workers = engine(Slow(tmp_path, 60.0))

    async def give_up() -> tuple[int, ...]:
        async def all_of_it() -> None:
            async for _ in workers.gather(round_task(PLAN), POPULATION):
                pass

        going = asyncio.create_task(all_of_it())
        while not list(tmp_path.iterdir()):  # noqa: ASYNC110  what is waited for is a process
            await asyncio.sleep(0.01)
        pids: tuple[int, ...] = workers.pids()
        if not starter:
            os.kill(pids[0], signal.SIGKILL)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        return pids

    pids: tuple[int, ...] = run(give_up())
    assert len(pids) == 3
    assert all_gone(pids)
    assert workers.pids() == ()


SCRIPT = """
import signal
import sys
from pathlib import Path
from hansa.engines.workers import WorkersEngine
from tests.support.sources import Both, Slow
from tests.support.toy import POPULATION, TOY, gathered, plan, round_task

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests ignore it
engine = WorkersEngine(Both(TOY, Slow(Path(sys.argv[1]), 1.0)), 2)
with engine:
    gathered(engine, round_task(plan()), POPULATION)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_simulation_however_it_ends(tmp_path, number):
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=env, cwd=root, stderr=subprocess.DEVNULL
    ) as simulation:
        end = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        pids = {int(file.name.rpartition("-")[2]) for file in tmp_path.iterdir()}
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        simulation.send_signal(number)
        assert simulation.wait(30) != 0
    assert all_gone(pids)
    assert len(list(tmp_path.iterdir())) <= 4, "nobody went on"


# ------------------------------------------------------------------ loading


def test_a_task_that_starts_threads_is_loaded_in_each_worker(tmp_path):
    with WorkersEngine(Threaded(tmp_path), 2) as workers:
        partials, _ = gathered(workers, round_task(PLAN), POPULATION)
        assert sorted(m for p in partials for m in p.members) == sorted(POPULATION)
        loaded = {int(file.name) for file in tmp_path.iterdir()}
        assert set(workers.pids()[1:]) <= loaded


def test_a_task_that_cannot_be_loaded_is_told():
    with (
        WorkersEngine(FromJob(job(task="task:Missing")), 2) as workers,
        pytest.raises(HansaError, match="Missing"),
    ):
        gathered(workers, round_task(PLAN), POPULATION)
    with pytest.raises(JobError, match="Missing"):
        simulate(job(task="task:Missing"), engine="workers")


@pytest.mark.parametrize("number", [0, -1, 5000])
def test_a_senseless_number_of_workers_is_refused(number):
    with pytest.raises(HansaError, match="workers"):
        WorkersEngine(Both(TOY, data), number).start()


# ------------------------------------------------------------------ shared memory


def test_places_are_taken_once_each_and_in_order():
    take, put = os.pipe()
    os.set_blocking(take, False)
    put_places(put, 8192)
    assert [take_place(take) for _ in range(8193)] == [*range(8192), None]
    os.close(put)
    assert take_place(take) is None
    os.close(take)


def test_parameters_are_those_that_were_written_last_and_cannot_be_written_to():
    memory = Memory.new()
    for size, value in ((10, 1.0), (100_000, 2.0), (10, 3.0)):
        memory.write(np.full(size, value, np.float32))
        read = memory.read(size)
        assert (read == value).all()
        assert not read.flags.writeable
        assert read.ctypes.data % 64 == 0
    assert memory.worked_on(0) is memory.worked_on(1023) is None
    memory.works_on(3, 7)
    assert (memory.worked_on(3), memory.worked_on(2)) == (7, None)
    memory.close()
