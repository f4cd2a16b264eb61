"""Attacks on updates beside those of byzfl, on the same honest updates.

    python bench/attacks.py --peers PYTHON [--json]

PYTHON is that of an environment with byzfl (`peer_attacks.py` says how to make it). Both are given
16 updates of 2,000 coordinates, of which 4 more are bad. What both have is compared by the largest
difference of a coordinate, relative to the largest coordinate; noise by its standard deviation over
20 draws; what adapts to a trimmed mean by the damage: the distance between what the rule makes of
all updates and the honest mean.

byzfl's ALIE divides its variance by n - 1, although its page and the attack's paper divide by n;
the difference that follows is taken out, and reported as `alie_variance`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hansa import attacks
from hansa.aggregators import robust

N, F, D = 16, 4, 2_000
Array = Any


def rule(rows: Array) -> Array:
    return robust.trimmed_mean(rows, F, threads=1)


def damage(honest: Array, bad: Array) -> float:
    rows = np.concatenate([honest, np.tile(bad, (F, 1))]).astype(np.float32)
    return float(np.linalg.norm(rule(rows) - honest.mean(axis=0)))


def apart(ours: Array, theirs: Array) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compared(honest: Array, theirs: Any) -> dict[str, float]:
    """Differences and ratios by attack."""
    mu, spread = honest.mean(axis=0), honest.std(axis=0)
    alie = mu + (theirs["alie"] - mu) * np.sqrt((N - 1) / N)
    noise = attacks.gaussian(honest, 20, np.random.default_rng(1), 1.0)
    length = float(np.linalg.norm(mu)) / np.sqrt(D)
    return {
        "sign_flip": apart(attacks.sign_flip(honest, F)[0], theirs["sign_flip"]),
        "ipm": apart(attacks.ipm(honest, F, 0.5)[0], theirs["ipm"]),
        "alie": apart(attacks.alie(honest, F, 1.5)[0], alie),
        "alie_variance": apart(mu + 1.5 * spread, theirs["alie"]),
        "mimic": apart(attacks.mimic(honest, F, 3)[0], theirs["mimic"]),
        "gaussian_deviation": float(noise.std() / length / (theirs["gaussian"].std() / 2.0)),
        "gaussian_mean": float(abs(noise.mean()) / noise.std()),
        "trimmed_mean": apart(
            rule(np.concatenate([honest, honest[:F]]).astype(np.float32)), theirs["trimmed_mean"]
        ),
        "adaptive_alie_damage": damage(honest, attacks.adaptive_alie(honest, F, rule)[0])
        / damage(honest, theirs["adaptive_alie"]),
        "adaptive_ipm_damage": damage(honest, attacks.adaptive_ipm(honest, F, rule)[0])
        / damage(honest, theirs["adaptive_ipm"]),
    }


def main(arguments: list[str]) -> int:
    """Compares, and ends with 1 if what is a formula differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True, help="Python of an environment with byzfl")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    honest = rng.standard_normal(D) + rng.standard_normal((N, D)) * rng.uniform(0.1, 2, D)
    script = Path(__file__).with_name("peer_attacks.py")
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch, "honest.npy"), Path(scratch, "found.npz")
        np.save(given, honest)
        subprocess.run([options.peers, str(script), str(given), str(F), str(found)], check=True)
        result = compared(honest, np.load(found))
    for name, value in result.items():
        print(f"{name:<22}{value:.3g}", file=sys.stderr)
    if options.json:
        print(json.dumps({"clients": N, "bad": F, "size": D, **result}))
    formulas = ("sign_flip", "ipm", "alie", "mimic", "trimmed_mean")
    return int(any(result[name] > 1e-6 for name in formulas))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
