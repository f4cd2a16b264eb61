"""A million clients cost an index: the benchmark's short form, with its bounds."""

from __future__ import annotations

import json

from bench.devices import COLUMNS
from bench.devices import main as bench


def test_a_million_clients_start_at_once_in_little_memory(capsys):
    bench(["--quick", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == set(COLUMNS)
    assert said["rounds"] == 4
    assert said["first_round_seconds"] < 20, "5 s on a machine that does nothing else"
    assert said["peak_mb"] < 300
    assert 300 < said["counted"] <= 400
    assert said["virtual_days"] > 0.005
