"""The choice of stacks by time: with its reason, and the result of inline to about 1e-4."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from hansa.algorithms import fedavg, fedsgd
from hansa.core.contribute import Purpose, RoundTask
from hansa.core.job import Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Algorithm, Partial, Site, Split
from hansa.core.vector import sha256
from hansa.engines.auto import AutoEngine
from hansa.engines.inline import InlineEngine
from hansa.engines.stacking import Stacking, decide, first_examples
from hansa.engines.workers import WorkersEngine
from hansa.engines.workers_messages import FromJob
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of
from tests.support import toy
from tests.support.stackjob.task import Dropout, Net
from tests.support.stacks import CLIENTS, job

PLAIN = fedavg(client_lr=0.1, local_epochs=2, batch_size=4)


def data(client: str) -> Split:
    return Net().data(Site(client, MappingProxyType({})))


def task_of(algorithm: Algorithm = PLAIN, rounds: int = 20, number: int = 0) -> RoundTask:
    of = job(algorithm, rounds=Rounds(count=rounds))
    params = Net().initial(of.seed)
    plan = compile_plan(of, facts_of(of, Net()))
    return RoundTask(
        plan, number, 0, Purpose.TRAIN, params, sha256(params), ReplayKey.of_seed(of.seed)
    )


def engine(step: float, number: int = 2) -> AutoEngine:
    """Every look at the clock is `step` seconds later."""
    workers = WorkersEngine(FromJob(job(PLAIN)), number)
    return AutoEngine(InlineEngine(Net(), data), workers, itertools.count(step=step).__next__)


@pytest.fixture
def gains(monkeypatch):
    """Stacks of four, in a tenth of the time."""
    monkeypatch.setattr("hansa.engines.auto.decide", lambda *_: Stacking(4, "in stacks of 4", 10.0))


def same(partials: list[Partial], task: RoundTask) -> bool:
    """Whether a sum is that of inline, up to what stacks add up in another order."""
    (expected,), _ = toy.gathered(InlineEngine(Net(), data), task, CLIENTS)
    total = sum(partial.value for partial in partials)
    return bool(np.abs(total - expected.value).max() <= 1e-4 * np.abs(expected.value).max())


@pytest.mark.usefixtures("gains")
def test_a_job_of_middling_length_goes_on_in_stacks_here():
    task = task_of()
    auto = engine(0.1)  # 160 clients, 16 s inline, 1.6 s in stacks
    for number in range(2):
        partials, dropouts = toy.gathered(auto, task, CLIENTS)
        assert dropouts == []
        assert sorted(m for p in partials for m in p.members) == sorted(CLIENTS)
        assert same(partials, task)
        assert auto.name == "vector", number
    assert auto.workers.pids() == ()
    assert "a client takes 0.1 s and about 165 are left; in stacks of 4" in auto.because


@pytest.mark.usefixtures("gains")
def test_a_long_job_goes_on_in_stacks_in_processes():
    task = task_of(rounds=5000)
    auto = engine(0.1)
    with auto.workers:
        toy.gathered(auto, task, CLIENTS)
        assert auto.workers.start()._nursery.wire.poll(60.0)
        partials, dropouts = toy.gathered(auto, task, CLIENTS)
        assert (auto.name, auto.workers.stack, dropouts) == ("workers+vector", 4, [])
        assert same(partials, task)
        assert len(partials) == 2
    assert "which 2 processes do sooner; in stacks of 4" in auto.because


def test_a_short_job_is_not_tried_in_stacks(monkeypatch):
    monkeypatch.setattr("hansa.engines.auto.decide", None)
    auto = engine(0.01)
    partials, _ = toy.gathered(auto, task_of(), CLIENTS)
    assert auto.name == "inline"
    assert len(partials) > 1


def test_what_cannot_be_stacked_says_why_beside_the_choice():
    auto = engine(0.1)
    toy.gathered(auto, task_of(fedsgd()), CLIENTS)
    assert auto.name in {"inline", "workers"}
    assert "one after the other, because stacks are for LocalSGD" in auto.because
    auto.workers.close()


def test_the_size_of_a_stack_is_that_whose_clients_take_least_time(monkeypatch):
    took = {1: 0.002, 5: 0.001, 25: 0.0004, 50: 0.0005}
    probe = "hansa.work.stacked_probe"
    monkeypatch.setattr(f"{probe}.seconds_alone", lambda *_: 0.004)
    monkeypatch.setattr(f"{probe}.seconds_stacked", lambda *of: took[of[-1]])
    examples = first_examples(CLIENTS, data)
    assert examples is not None
    found = decide(Net(), task_of(), examples, 50)
    assert found.size == 25
    assert found.gain == pytest.approx(10)
    assert "up to 25 clients are trained in one stack, in 1/10 of the time" in found.how
    took[1] = 0.02  # a long step has nothing to share
    monkeypatch.setattr(f"{probe}.seconds_alone", lambda *_: 0.03)
    assert decide(Net(), task_of(), examples, 50).size == 1
    monkeypatch.setattr(f"{probe}.seconds_alone", lambda *_: 0.01)
    slower = decide(Net(), task_of(), examples, 50)
    assert (slower.size, "takes longer" in slower.how) == (0, True)


def test_a_reason_against_stacks_needs_no_clock():
    examples = first_examples(CLIENTS, data)
    assert examples is not None
    found = decide(Dropout(), task_of(), examples, 50)
    assert (found.size, "draws random numbers" in found.how) == (0, True)


def test_examples_are_those_of_the_first_client_that_has_some():
    def source(client: str) -> Split:
        if client == "raises":
            raise OSError
        return toy.nobody(client) if client == "empty" else data(client)

    found = first_examples(("raises", "empty", CLIENTS[0]), source)
    assert found is not None
    np.testing.assert_array_equal(found.inputs, data(CLIENTS[0]).train.inputs)
    assert first_examples(("raises", "empty", "empty", CLIENTS[0]), source) is None


@pytest.mark.soak
def test_ten_thousand_clients_a_round_need_the_memory_of_a_hundred():
    """Peak memory of two processes of the vector engine and the simulation, by the same clients."""
    few, many = (peak_mb(cohort) for cohort in (100, 10_000))
    assert many < 1.2 * few


def peak_mb(cohort: int) -> float:
    """Of twenty thousand clients, so many in a round."""
    from bench.simulation import Peak

    script = f"""
from dataclasses import replace
from hansa.core.job import Cohort, Rounds
from hansa.simulation import simulate
from tests.support.stacks import job
from tests.engines.test_auto_stacks import PLAIN
of = job(PLAIN, rounds=Rounds(count=20_000 // {cohort}), evaluate_every=0)
of = replace(of, cohort=Cohort(population=10_000, sampler="fixed", size={cohort}))
assert "in one stack" in simulate(of, engine="vector").engine_because
"""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script], cwd=root) as process:
        peak = Peak(process.pid)
        assert process.wait() == 0
    return peak.stop()
