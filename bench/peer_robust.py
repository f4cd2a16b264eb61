r"""Robust rules of Flower and of byzfl on the updates of a cohort, each in a process of its own.

    python3 -m venv peers && peers/bin/pip install 'torch==2.13.0' scipy 'numpy<3'
    peers/bin/pip install --no-deps byzfl==0.0.11 flwr==1.42.0
    peers/bin/pip install 'protobuf<7' grpcio cryptography pycryptodome iterators 'typer<0.21' \
        tomli tomli-w pathspec prompt-toolkit 'rich<15' pyyaml requests httpx click
    peers/bin/python bench/peer_robust.py LIBRARY RULE CLIENTS SIZE BAD REPEATS [FILE]

It needs an environment of its own, and nothing of Hansa. Flower takes NumPy arrays and computes
with them; byzfl is given torch tensors, with which it is faster, and torch takes the threads that
it likes. byzfl's own `__init__` wants torchvision and seaborn for its benchmark, which no rule
needs: its rules are imported without it. Prints one JSON object: the best wall time in seconds,
the CPU time of that run, and the peak memory of the process in MB with the updates in it. With
FILE, the result of the rule is written there with `numpy.save`.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rule = Callable[[], Any]


def flower(rule: str, updates: Any, bad: int) -> Rule:
    """A rule as a strategy of Flower calls it: one list of layers for each client."""
    from flwr.server.strategy import aggregate  # type: ignore[import-not-found,unused-ignore]

    clients = [([row], 1) for row in updates]
    n = len(updates)
    return {
        "median": lambda: aggregate.aggregate_median(clients)[0],
        "trimmed_mean": lambda: aggregate.aggregate_trimmed_avg(clients, (bad + 0.5) / n)[0],
        "krum": lambda: aggregate.aggregate_krum(clients, bad, 0)[0],
        "multi_krum": lambda: aggregate.aggregate_krum(clients, bad, n - bad)[0],
    }[rule]


def byzfl(rule: str, updates: Any, bad: int) -> Rule:
    """A rule of byzfl on one tensor."""
    found = importlib.util.find_spec("byzfl")
    package = types.ModuleType("byzfl")
    package.__path__ = list(found.submodule_search_locations or []) if found else []
    sys.modules["byzfl"] = package
    import torch
    from byzfl.aggregators import (  # type: ignore[import-not-found,unused-ignore]
        aggregators,
        preaggregators,
    )

    tensor = torch.from_numpy(updates)
    made = {
        "median": lambda: aggregators.Median(),
        "trimmed_mean": lambda: aggregators.TrMean(bad),
        "krum": lambda: aggregators.Krum(bad),
        "multi_krum": lambda: aggregators.MultiKrum(bad),
        "geometric_median": lambda: aggregators.GeometricMedian(nu=1e-6, T=8),
        "centered_clipping": lambda: aggregators.CenteredClipping(L=1, tau=1000.0),
        "nearest_neighbor_mixing": lambda: preaggregators.NNM(bad),
    }[rule]()
    return lambda: made(tensor).numpy()


def main(arguments: list[str]) -> int:
    """Measures one rule of one library."""
    library, rule = arguments[:2]
    clients, size, bad, repeats = map(int, arguments[2:6])
    updates = np.random.default_rng(0).standard_normal((clients, size), dtype=np.float32)
    run = {"flower": flower, "byzfl": byzfl}[library](rule, updates, bad)
    runs, found = [], None
    for _ in range(repeats):
        found = None  # not two results at once
        start = time.perf_counter(), time.process_time()
        found = run()
        runs.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    if arguments[6:]:
        np.save(Path(arguments[6]), np.asarray(found))
    seconds, cpu = min(runs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
