r"""Discrete Gaussian samples per second by OpenDP's exact sampler, through its own measurement.

    python3 -m venv opendp && opendp/bin/pip install opendp numpy
    opendp/bin/python bench/peer_opendp.py SIGMA ...

It needs an environment of its own, and nothing of Hansa. Prints one JSON object: million samples
per second of CPU time, by sigma.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version

import opendp.prelude as dp  # type: ignore[import-not-found]

SIZE, SECONDS = 20_000, 1.0


def main(sigmas: list[float]) -> None:
    """Measures each sigma for about a second."""
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    found = {}
    for sigma in sigmas:
        measurement = dp.m.make_gaussian(*space, scale=sigma)
        zeros, best, until = [0] * SIZE, float("inf"), time.process_time() + SECONDS
        while time.process_time() < until:
            started = time.process_time()
            measurement(zeros)
            best = min(best, time.process_time() - started)
        found[f"sigma{sigma:g}"] = SIZE / best / 1e6
    sys.stdout.write(json.dumps({"what": f"opendp {version('opendp')}", **found}) + "\n")


if __name__ == "__main__":
    main([float(word) for word in sys.argv[1:]])
