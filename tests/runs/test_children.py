"""Several things at a time: how many, in what order, and what is left when one goes wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from hansa.runs.children import Children, Stopped, each

SLEEPS = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)")


def test_no_more_than_so_many_at_a_time_and_all_of_them():
    lock, now, most, done = threading.Lock(), [0], [0], []

    def work(item: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return 2 * item

    def ended(item: int, found: int) -> tuple[int, ...]:
        done.append((item, found))
        return ()

    each(3, range(10), work, ended, lambda: None)
    assert sorted(done) == [(i, 2 * i) for i in range(10)]
    assert most[0] == 3


def test_what_can_be_done_now_is_begun_next_in_its_order():
    begun: list[str] = []
    frees = {"a": ("a1", "a2"), "a1": ("deep",)}
    each(1, ("a", "b", "c"), begun.append, lambda item, _: frees.get(item, ()), lambda: None)
    assert begun == ["a", "a1", "deep", "a2", "b", "c"]


@pytest.mark.parametrize("where", ["work", "ended"])
def test_an_error_stops_the_others_and_begins_no_more(where):
    begun, stopped = [], threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            assert stopped.wait(10)
        elif where == "work":
            raise ValueError("here")

    def ended(item: int, _: None) -> tuple[int, ...]:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        each(2, range(6), work, ended, stopped.set)
    assert sorted(begun) == [0, 1]


def test_children_are_told_to_end_and_none_begins_afterwards():
    for ending in (signal.SIGINT, signal.SIGTERM):
        children = Children(ending)
        process = children.start(SLEEPS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"up\n"
            children.stop()
        assert process.poll() in (-ending, 128 + ending)
        assert children.stopped
        with pytest.raises(Stopped):
            children.start(SLEEPS)


def test_what_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr("hansa.runs.children.PATIENCE_SECONDS", 0.2)
    children = Children()
    deaf = "import signal, time; signal.signal(2, 1); print('up', flush=True); time.sleep(60)"
    process = children.start((sys.executable, "-c", deaf), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        children.stop()
    assert process.poll() == -signal.SIGKILL
