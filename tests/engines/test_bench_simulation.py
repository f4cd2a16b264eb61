"""The benchmark of simulations in its short form: all its keys, and one model from all engines."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.simulation import COLUMNS, EXACT, MODELS, RECORDED, Peak, alone, descendants
from bench.simulation import main as bench
from bench.speed.loop import run


def test_the_short_form_prints_one_object(capsys):
    words = ["--only", "logistic", "--clients", "6", "--parties", "inline"]
    bench(["--quick", "--json", "--peers", *words])
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {*COLUMNS, "peers"}
    for column in COLUMNS[:4]:
        assert said[column]["logistic"].keys() == {"inline"}
        assert said[column]["logistic"]["inline"] > 0
    assert said["engine"]["logistic"] == {"inline": "inline"}
    assert said["peers"]["recorded"] is True
    assert said["peers"]["clients_per_second"].keys() == {model.key for model in MODELS}
    assert all(figures.keys() >= {"flower", "pfl_2"} for figures in RECORDED.values())


def test_a_network_gives_the_same_bits_in_workers_as_here():
    """Convolutions and wide products are where threads would show."""
    found = [alone(engine, "CNN", 2, 3, 0.0) for engine in EXACT]
    assert [each.engine for each in found] == ["inline", "workers"]
    assert len({each.model for each in found}) == 1
    assert [len(each.seconds) for each in found] == [2, 2]


def test_the_loop_by_hand_runs():
    seconds, first = run("Logistic", [["a", "b"], ["c", "a"]], 1)
    assert len(seconds) == 2
    assert first > seconds[0] > 0


def test_memory_is_that_of_a_process_and_all_that_it_started():
    script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; "
    script += "x = bytearray(50_000_000); print(1, flush=True); time.sleep(0.5)']).wait()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        peak = Peak(process.pid)
        assert process.stdout is not None
        process.stdout.readline()
        assert len(descendants(process.pid)) == 2
        process.wait()
    assert 50 < peak.stop() < 500
