"""Samples of noise per second of CPU time: ours, NumPy's, and exact samplers of others."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hansa.core.keys import NoiseSource, ReplayKey
from hansa.privacy.discrete import discrete_gaussian

SIGMAS = (1.0, 8.0, 1000.0, 1e5)
PEERS = {
    "exact_fractions": "peer_exact_sampler.py",
    "opendp": "peer_opendp.py",
}
"""Exact samplers of others, by the script that measures them."""


def million_per_second(draw: Callable[[int], object], size: int, seconds: float) -> float:
    """Million samples per second of CPU time, the best of the runs within so many seconds."""
    draw(1000)
    best, until = float("inf"), time.process_time() + seconds
    while time.process_time() < until:
        started = time.process_time()
        draw(size)
        best = min(best, time.process_time() - started)
    return size / best / 1e6


def ours(size: int, seconds: float) -> Iterator[tuple[str, float]]:
    """Each sampler and each sigma; the discrete one with fresh noise and with a simulation's."""
    fresh, key = NoiseSource().words(), ReplayKey.of_seed(0).words()
    for sigma in SIGMAS:
        for name, words in (("discrete", fresh), ("discrete_simulated", key)):
            yield (
                f"{name}_sigma{sigma:g}",
                million_per_second(
                    lambda n, s=sigma, w=words: discrete_gaussian(n, s, w),  # type: ignore[misc]
                    size,
                    seconds,
                ),
            )
    yield "continuous", million_per_second(NoiseSource().normal, size, seconds)
    generator = np.random.default_rng(0)
    yield "numpy_normal", million_per_second(generator.standard_normal, size, seconds)


def peer(script: str, python: str) -> dict[str, Any]:
    """What a peer's script measures, in its own environment."""
    done = subprocess.run(
        [python, Path(__file__).parents[1] / script, *map(repr, SIGMAS)],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
