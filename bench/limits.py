"""What a machine's matrix products alone allow, for two models of simulation.py.

    python bench/limits.py [--quick] [--json]

A client is five steps of ten examples each. Of each step the products are done, forwards, backwards
and into the parameters, on numbers that are in the cache already, and nothing else: no loss, no
other layer, no examples that are read, no parameters that are received, no update that is encoded,
checked and added. Clients per second of simulation.py divided by these say what is left to gain
with the same library of products. One process for each core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from multiprocessing.pool import Pool
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STEPS, BATCH, RATE = 5, 10, 1e-6
WIDTHS = {"logistic": (784, 10), "mlp": (784, 200, 200, 10)}
Step = Callable[[], object]


def products(widths: Sequence[int]) -> list[Step]:
    """Those of dense layers from inputs of these widths: forwards, backwards, into the weights."""
    import torch

    steps: list[Step] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        inputs, slopes = torch.randn(1, BATCH, before), torch.randn(1, BATCH, after)
        weights = torch.randn(1, after, before)
        outputs, back = torch.empty(1, BATCH, after), torch.empty(1, BATCH, before)

        def forwards(
            inputs: torch.Tensor = inputs,
            weights: torch.Tensor = weights,
            outputs: torch.Tensor = outputs,
        ) -> object:
            return torch.bmm(inputs, weights.transpose(1, 2), out=outputs)

        def backwards(
            slopes: torch.Tensor = slopes,
            weights: torch.Tensor = weights,
            back: torch.Tensor = back,
        ) -> object:
            return torch.bmm(slopes, weights, out=back)

        def along(
            weights: torch.Tensor = weights,
            slopes: torch.Tensor = slopes,
            inputs: torch.Tensor = inputs,
        ) -> object:
            return weights.baddbmm_(slopes.transpose(1, 2), inputs, alpha=-RATE)

        steps += [forwards, along] if number == 0 else [forwards, backwards, along]
    return steps


def clients_per_second(kind: str, seconds: float) -> float:
    """Of one process with one thread: the best of several stretches."""
    import torch

    torch.set_num_threads(1)
    with torch.no_grad():
        steps = products(WIDTHS[kind])
        best, ends = 0.0, time.perf_counter() + seconds
        while time.perf_counter() < ends:
            clients, begun = 0, time.perf_counter()
            while time.perf_counter() < begun + seconds / 10:
                for _ in range(STEPS):
                    for step in steps:
                        step()
                clients += 1
            best = max(best, clients / (time.perf_counter() - begun))
    return best


def measure(pool: Pool, kind: str, processes: int, seconds: float) -> float:
    """The sum over processes that run at the same time."""
    return sum(pool.starmap(clients_per_second, [(kind, seconds)] * processes, chunksize=1))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half a second for each model")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    processes = len(os.sched_getaffinity(0))
    found: dict[str, float] = {}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for kind in WIDTHS:
            found[kind] = measure(pool, kind, processes, 0.5 if args.quick else 4.0)
            print(f"{kind}: at most {found[kind]:.4g} clients a second", file=sys.stderr)
    if args.json:
        print(json.dumps({"clients_per_second_at_most": found, "processes": processes}))


if __name__ == "__main__":
    main()
