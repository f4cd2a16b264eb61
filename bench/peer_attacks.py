"""The attacks of byzfl 0.0.11 on honest updates, in an environment of its own.

    python3 -m venv peers && peers/bin/pip install 'torch==2.13.0' scipy 'numpy<3'
    peers/bin/pip install --no-deps byzfl==0.0.11
    peers/bin/python bench/peer_attacks.py HONEST.npy BAD FOUND.npz

It needs nothing of Hansa. As in `peer_robust.py`, byzfl's own `__init__` is left out, which wants
torchvision for its benchmark. `bench/attacks.py` runs this and compares.
"""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np


def main(arguments: list[str]) -> int:
    """Writes what each attack sends."""
    found = importlib.util.find_spec("byzfl")
    package = types.ModuleType("byzfl")
    package.__path__ = list(found.submodule_search_locations or []) if found else []
    sys.modules["byzfl"] = package
    from byzfl.aggregators import aggregators  # type: ignore[import-not-found,unused-ignore]
    from byzfl.attacks import attacks  # type: ignore[import-not-found,unused-ignore]

    honest, bad = np.load(arguments[0]).astype(np.float64), int(arguments[1])
    rule = aggregators.TrMean(f=bad)
    optimal = {"pre_agg_list": [], "f": bad}
    np.savez(
        arguments[2],
        sign_flip=attacks.SignFlipping()(honest),
        ipm=attacks.InnerProductManipulation(tau=0.5)(honest),
        alie=attacks.ALittleIsEnough(tau=1.5)(honest),
        mimic=attacks.Mimic(3)(honest),
        gaussian=np.stack([attacks.Gaussian(0.0, 2.0)(honest) for _ in range(20)]),
        adaptive_alie=attacks.Optimal_ALittleIsEnough(rule, **optimal)(honest),
        adaptive_ipm=attacks.Optimal_InnerProductManipulation(rule, **optimal)(honest),
        trimmed_mean=rule(np.concatenate([honest, honest[:bad]])),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
