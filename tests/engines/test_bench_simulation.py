"""The benchmark of simulations in its short form: all its keys, and one model from all engines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.peer_environments import folder_of
from bench.peer_simulation import peer_command
from bench.simulation import COLUMNS, EXACT, Peak, alone, descendants, times_slower
from bench.simulation import main as bench
from bench.speed import models, task
from bench.speed.loop import run
from hansa.core.parts import Site


def test_the_short_form_prints_one_object(capsys):
    words = ["--only", "logistic", "--clients", "6", "--parties", "inline"]
    bench(["--quick", "--json", *words])
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {*COLUMNS}
    for column in COLUMNS[:4]:
        assert said[column]["logistic"].keys() == {"inline"}
        assert said[column]["logistic"]["inline"] > 0
    assert said["engine"]["logistic"] == {"inline": "inline"}


def test_peers_are_run_by_their_own_pythons_and_compared_with_the_exact_engines(
    tmp_path, monkeypatch
):
    """The environments are empty here: making them takes minutes and a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, said in (("flower", []), ("pfl", ["1"])):
        folder = folder_of(name)
        assert folder.parent == tmp_path / "hansa" / "peers"
        folder.mkdir(parents=True)
        (folder / ".done").touch()
        peer = name if name == "flower" else "pfl_1"
        python, script, kind, rounds, clients, _, *more = peer_command(peer, "bench", "MLP", 3, 20)
        assert python == str(folder / "bin" / "python")
        assert Path(script).is_file()
        assert [kind, rounds, clients, *more] == ["MLP", "3", "20", *said]
    row = {
        "inline": 10.0,
        "workers": 20.0,
        "vector": 90.0,
        "flower": 5.0,
        "pfl_1": 8.0,
        "pfl_2": 40,
    }
    rows = {"mlp": {party: {"clients_per_second": value} for party, value in row.items()}}
    assert times_slower(rows) == {"mlp": {"flower": 4.0, "pfl_1": 2.5, "pfl_2": 0.5}}


def test_peers_train_the_same_networks_on_the_same_examples():
    for kind, parameters in (("Logistic", 7850), ("MLP", 199_210), ("CNN", 1_663_370)):
        assert sum(p.numel() for p in models.network(kind).parameters()) == parameters
        assert getattr(task, kind)().schema.size == parameters
    inputs, targets = models.examples("client-0007")
    split = task.Logistic().data(Site("client-0007", {}))
    assert (split.train.inputs == inputs).all()
    assert (split.train.targets == targets).all()
    assert inputs.shape == (50, 784)
    assert (inputs != models.examples("client-0008")[0]).any()


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


def test_products_of_a_step_are_those_of_the_network():
    """As many multiplications as the layers need: three products each, the first layer two."""
    from bench.limits import STEPS, WIDTHS, clients_per_second, products

    for kind, widths in WIDTHS.items():
        layers = [m for m in models.network(_CLASSES[kind]).modules() if hasattr(m, "in_features")]
        assert [layer.in_features for layer in layers] == list(widths[:-1])
        assert layers[-1].out_features == widths[-1]
        assert len(products(widths)) == 3 * len(layers) - 1
    assert STEPS * models.BATCH == models.EXAMPLES
    assert clients_per_second("logistic", 0.05) > 1


_CLASSES = {"logistic": "Logistic", "mlp": "MLP"}
