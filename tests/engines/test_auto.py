"""The choice of the engine: by time, with its reason, and never with another result."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from hansa.core.job import SecureAggregation
from hansa.core.vector import sha256
from hansa.engines import auto
from hansa.engines.auto import START_SECONDS, Ahead, AutoEngine, estimates, quickest
from hansa.engines.inline import InlineEngine
from hansa.engines.workers import WorkersEngine
from hansa.engines.workers_messages import FromJob
from hansa.errors import HansaError
from hansa.simulation import choose, simulate
from hansa.work.threads import VARIABLES, _settings, one_thread
from tests.support.sources import Both
from tests.support.toy import POPULATION, TOY, data, gathered, job, plan, round_task

HIDDEN = job(secure_aggregation=SecureAggregation(enabled=True))


def engines(step: float, number: int = 2) -> AutoEngine:
    """Every look at the clock is `step` seconds later."""
    ticks = count(step=step)
    workers = WorkersEngine(Both(TOY, data), number)
    return AutoEngine(InlineEngine(TOY, data), workers, ticks.__next__)


def test_what_each_engine_would_take():
    found = estimates(0.1, Ahead(1000, 10), 2, 4.0)
    more = 10 * auto.ROUND_SECONDS + START_SECONDS
    assert found == pytest.approx(
        {"inline": 100, "vector": 25, "workers": 50 + more, "workers+vector": 12.5 + more}
    )


@pytest.mark.parametrize(
    ("seconds", "ahead", "workers", "gain", "engine"),
    [
        (0.1, Ahead(10, 1), 64, 1.0, "inline"),
        (0.1, Ahead(1000, 10), 2, 1.0, "workers"),
        (0.001, Ahead(5000, 50), 2, 8.0, "vector"),
        (0.001, Ahead(500_000, 5000), 2, 8.0, "workers+vector"),
        (0.0001, Ahead(10_000, 5_000), 2, 1.0, "inline"),
        (5.0, Ahead(1000, 10), 1, 1.0, "inline"),
        (5.0, Ahead(1000, 10), 1, 1.5, "vector"),
    ],
)
def test_the_quickest_engine(seconds, ahead, workers, gain, engine):
    assert quickest(estimates(seconds, ahead, workers, gain)) == engine


def test_a_short_job_stays_inline_and_starts_nothing():
    engine = engines(0.01)
    partials, dropouts = gathered(engine, round_task(plan()), POPULATION)
    assert (engine.name, engine.workers.pids(), dropouts) == ("inline", (), [])
    assert "not do sooner" in engine.because
    assert sorted(m for p in partials for m in p.members) == sorted(POPULATION)


def test_a_long_job_goes_on_with_workers():
    engine = engines(50.0)
    with engine.workers:
        for number in range(2):
            partials, _ = gathered(engine, round_task(plan(), number=number), POPULATION)
            assert sorted(m for p in partials for m in p.members) == sorted(POPULATION)
        assert engine.name == "workers"
        assert "a client takes 50 s" in engine.because
        assert len(engine.workers.pids()) >= 1


def test_what_workers_cannot_do_goes_on_inline():
    """Here: load the task. All clients are counted all the same, and nobody twice."""
    engine = engines(50.0)
    engine.workers = WorkersEngine(FromJob(job(task="task:Missing")), 2)
    with engine.workers:
        assert engine.workers.start()._nursery.wire.poll(60.0)
        partials, dropouts = gathered(engine, round_task(plan()), POPULATION)
    assert dropouts == []
    assert sorted(m for p in partials for m in p.members) == sorted(POPULATION)
    assert engine.name == "inline"
    assert "Missing" in engine.because


def test_a_machine_without_room_for_processes_goes_on_inline(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(11, "no more processes")

    monkeypatch.setattr("hansa.engines.workers.Pool", refuse)
    engine = engines(50.0)
    partials, _ = gathered(engine, round_task(plan()), POPULATION)
    assert sorted(m for p in partials for m in p.members) == sorted(POPULATION)
    assert engine.name == "inline"
    assert "no more processes" in engine.because


@pytest.mark.parametrize(
    ("asked", "of", "words", "name", "because"),
    [
        ("inline", job(), {}, "inline", "asked for"),
        ("workers", job(), {}, "workers", "asked for"),
        ("auto", job(), {"debug": True}, "inline", "its own process"),
        ("auto", job(), {"handed": True}, "inline", "handed in"),
        ("auto", HIDDEN, {}, "inline", "masks"),
        ("workers", HIDDEN, {}, "inline", "masks"),
        ("workers", HIDDEN, {"masked": False}, "workers", "asked for"),
    ],
)
def test_what_is_known_before_anything_was_timed(asked, of, words, name, because):
    found = choose(asked, of, **{"debug": False, "masked": True, "handed": False, **words})
    assert found.name == name
    assert because in found.because


@pytest.mark.parametrize("words", [{"debug": True}, {"task": TOY}])
def test_what_workers_cannot_do_is_refused_where_they_were_asked_for(words):
    with pytest.raises(HansaError, match="the engine is workers"):
        simulate(job(), engine="workers", **words)


def test_one_core_needs_no_workers():
    engine = engines(50.0, number=1)
    gathered(engine, round_task(plan()), POPULATION)
    assert (engine.name, engine.workers.pids()) == ("inline", ())


def test_without_stacks_auto_gives_the_same_bits_whatever_the_clock_says(monkeypatch):
    inline = simulate(job())
    monkeypatch.setattr(auto, "START_SECONDS", -1e9)
    forced = simulate(job(), engine="auto")
    assert forced.engine == "workers"
    assert forced.model_sha256 == inline.model_sha256
    monkeypatch.undo()
    short = simulate(job(), engine="auto")
    assert short.engine == "inline"
    assert short.model_sha256 == inline.model_sha256
    assert [replace(r, seconds=0) for r in forced.records] == [
        replace(r, seconds=0) for r in inline.records
    ]


def test_a_simulation_computes_on_one_thread_and_gives_the_others_back():
    import torch

    known = list(_settings())
    assert len(known) >= 2, "PyTorch's, and that of NumPy's wheel"
    before = [ask() for ask, _ in known]
    try:
        for _, change in known:
            change(3)
        with one_thread():
            assert [ask() for ask, _ in known] == [1] * len(known)
            assert torch.get_num_threads() == 1
        assert [ask() for ask, _ in known] == [3] * len(known)
    finally:
        for (_, change), number in zip(known, before, strict=True):
            change(number)


def test_a_wide_product_has_the_bits_of_one_thread_inside():
    """As NumPy gives them in a process that was started with one thread."""
    script = "from tests.engines.test_auto import product; print(product())"
    env = {**os.environ, **dict.fromkeys(VARIABLES, "1")}
    root = Path(__file__).resolve().parents[2]
    alone = subprocess.run(
        [sys.executable, "-c", script],
        env=env,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    with one_thread():
        assert product() == alone.stdout.strip()


def product() -> str:
    """What products that OpenBLAS divides among threads come to."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((300, 2000)), rng.standard_normal((2000, 300))
    return sha256((left @ right).ravel()) + sha256(right.T @ left[0])
