"""Eleven attacks against twelve rules on digits, with even and with skewed data.

    python bench/robust_matrix.py [--quick] [--json] [--seeds 0 1 2] [--bad 4] [--processes 1]

1,797 handwritten digits of 8 x 8 pixels (UCI, as scikit-learn ships them), a network of 64-32-10,
20 clients of which 4 are bad, or as many as --bad says, 250 rounds of one batch of 16 each,
momentum 0.9 at the clients, learning rate 0.3. Test accuracy in percent after the last round. The
rules and attacks are those of `hansa.aggregators.robust` and `hansa.attacks`; the draws of data,
batches and noise are those of `robust_matrix.json`, a table that another program computed in
float64 with seed 0 and 4 bad clients.

A rule that cannot bear so many bad clients has no accuracy (null).

`--quick`: seed 0, skewed data, the rules mean, trimmed mean and DnC, five attacks.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hansa import attacks
from hansa.aggregators import robust
from hansa.core.keys import ReplayKey
from hansa.errors import HansaError
from hansa.examples.packages import cache_folder

N, F, ROUNDS, HIDDEN = 20, 4, 250, 32
RATE, BATCH, MOMENTUM = 0.3, 16, 0.9
SKEWS: dict[str, float | None] = {"iid": None, "dirichlet_0.3": 0.3}
DIGITS = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
"""SHA-256 of scikit-learn's `digits.csv.gz`, the same in all its releases."""

ATTACKS = (
    "none", "label_flip", "sign_flip", "gaussian", "alie_1.5", "ipm_0.5", "ipm_3", "scaling",
    "min_max", "min_sum", "mimic",
)  # fmt: skip
ADAPTIVE = ("adaptive_alie", "adaptive_ipm", "adaptive_min_max")
QUICK_RULES = ("mean", "trimmed_mean", "dnc")
QUICK_ATTACKS = ("none", "sign_flip", "alie_1.5", "scaling", "min_max")

Array = Any
Cell = tuple[str, str, str, int, int]
"""Skew, attack, rule, seed, bad clients."""
Rule = Callable[[Array, int], Array]
"""What (n, d) updates of a round, by its number, become."""


# ------------------------------------------------------------------ data and model


def digits() -> tuple[Array, Array]:
    """(1797, 64) pixels from 0 to 1 and their classes, fetched once from scikit-learn's wheel."""
    kept = cache_folder() / "digits.csv.gz"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch]
            subprocess.run([*pip, "--only-binary=:all:", "scikit-learn"], check=True)
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
                content = wheel.read("sklearn/datasets/data/digits.csv.gz")
        kept.write_bytes(content)
    content = kept.read_bytes()
    if hashlib.sha256(content).hexdigest() != DIGITS:
        raise SystemExit(f"{kept} is not the file that this benchmark knows; remove it")
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",")
    return table[:, :-1] / 16.0, table[:, -1].astype(int)


@cache
def shuffled() -> tuple[Array, Array, Array, Array]:
    """Training inputs and classes, then 360 of them held out."""
    x, y = digits()
    order = np.random.RandomState(0).permutation(len(x))
    x, y = x[order], y[order]
    return x[360:], y[360:], x[:360], y[:360]


def unpacked(w: Array) -> tuple[Array, Array, Array, Array]:
    cut = 64 * HIDDEN
    return (
        w[:cut].reshape(64, HIDDEN),
        w[cut : cut + HIDDEN],
        w[cut + HIDDEN : cut + 11 * HIDDEN].reshape(HIDDEN, 10),
        w[-10:],
    )


def gradient(w: Array, x: Array, y: Array) -> Array:
    """Of the mean cross-entropy of a network with one layer of ReLU."""
    first, bias, second, out_bias = unpacked(w)
    hidden = np.maximum(x @ first + bias, 0)
    scores = hidden @ second + out_bias
    scores -= scores.max(axis=1, keepdims=True)
    error = np.exp(scores)
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = (error @ second.T) * (hidden > 0)
    return np.concatenate(
        [(x.T @ back).ravel(), back.sum(axis=0), (hidden.T @ error).ravel(), error.sum(axis=0)]
    )


def accuracy(w: Array) -> float:
    _, _, x, y = shuffled()
    first, bias, second, out_bias = unpacked(w)
    said = np.argmax(np.maximum(x @ first + bias, 0) @ second + out_bias, axis=1)
    return float((said == y).mean())


def divided(alpha: float | None, rng: np.random.RandomState, n: int = N) -> list[Array]:
    """Positions of each client's examples; a client with fewer than four gets eight of any."""
    _, y, _, _ = shuffled()
    if alpha is None:
        return np.array_split(rng.permutation(len(y)), n)
    parts: list[list[int]] = [[] for _ in range(n)]
    for label in range(10):
        members = rng.permutation(np.where(y == label)[0])
        shares = rng.dirichlet([alpha] * n)
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part += list(piece)
    return [np.array(p) if len(p) >= 4 else rng.choice(len(y), 8) for p in parts]


# ------------------------------------------------------------------ rules


class Clipping:
    """Centred clipping from the median on, with the median distance as its radius, three times."""

    def __init__(self) -> None:
        self.centre: Array = None

    def __call__(self, x: Array, _: int) -> Array:
        """The next centre."""
        self.centre = self.result(x)
        return self.centre

    def result(self, x: Array) -> Array:
        """What the next centre would be."""
        centre = robust.median(x, threads=1) if self.centre is None else self.centre
        for _ in range(3):
            radius = float(np.median(np.linalg.norm(x - centre, axis=1)))
            centre = robust.centered_clipping(x, max(radius, 1e-12), centre, threads=1)
        return centre


def mixed(x: Array, f: int) -> Array:
    return robust.nearest_neighbor_mixing(x, f, threads=1)


KEY = ReplayKey.of_seed(1)
RULES: dict[str, Callable[[int], Rule]] = {
    "mean": lambda _f: lambda x, _: x.mean(axis=0, dtype=np.float64),
    "median": lambda _f: lambda x, _: robust.median(x, threads=1),
    "trimmed_mean": lambda f: lambda x, _: robust.trimmed_mean(x, f, threads=1),
    "krum": lambda f: lambda x, _: robust.krum(x, f, threads=1),
    "multi_krum": lambda f: lambda x, _: robust.multi_krum(x, f, threads=1),
    "geometric_median": lambda _f: lambda x, _: robust.geometric_median(x, threads=1),
    "centered_clipping": lambda _f: Clipping(),
    "dnc": lambda f: lambda x, t: robust.dnc(x, f, KEY.derive("dnc", t), sample=1_000, threads=1),
    "nearest+trimmed_mean": lambda f: lambda x, _: robust.trimmed_mean(mixed(x, f), f, threads=1),
    "nearest+median": lambda f: lambda x, _: robust.median(mixed(x, f), threads=1),
    "nearest+geometric_median": lambda f: (
        lambda x, _: robust.geometric_median(mixed(x, f), threads=1)
    ),
    "bucketing+geometric_median": lambda _f: (
        lambda x, t: robust.geometric_median(
            robust.bucketing(x, 2, KEY.derive("bucketing", t), threads=1), threads=1
        )
    ),
}


# ------------------------------------------------------------------ one cell


def sent(name: str, h: Array, f: int, rng: Any, rule: Callable[[Array], Array]) -> Array:
    """What the bad clients send, seeing the honest momentums."""
    match name:
        case "sign_flip":
            return attacks.sign_flip(h, f)
        case "gaussian":
            return attacks.gaussian(h, f, rng)
        case "alie_1.5":
            return attacks.alie(h, f, 1.5)
        case "ipm_0.5":
            return attacks.ipm(h, f, 0.5)
        case "ipm_3":
            return attacks.ipm(h, f, 3.0)
        case "scaling":
            return attacks.scaling(h, f)
        case "min_max":
            return attacks.min_max(h, f)
        case "min_sum":
            return attacks.min_sum(h, f)
        case "mimic":
            return attacks.mimic(h, f)
        case "adaptive_alie":
            return attacks.adaptive_alie(h, f, rule)
        case "adaptive_ipm":
            return attacks.adaptive_ipm(h, f, rule)
        case _:
            return attacks.adaptive_min_max(h, f, rule)


def trained(skew: str, attack: str, name: str, seed: int, f: int) -> float | None:
    """Test accuracy after training under an attack, in percent; None if the rule refuses."""
    rng = np.random.RandomState(seed)
    x, y, _, _ = shuffled()
    w = np.concatenate(
        [
            rng.randn(64 * HIDDEN) / 8,
            np.zeros(HIDDEN),
            rng.randn(HIDDEN * 10) / np.sqrt(HIDDEN),
            np.zeros(10),
        ]
    )
    parts, rule = divided(SKEWS[skew], rng), RULES[name](f)
    momentum, sending = np.zeros((N, len(w))), attack not in ("none", "label_flip")
    for number in range(ROUNDS):
        for client in range(N - f if sending else N):
            mine = parts[client]
            batch = rng.choice(mine, min(BATCH, len(mine)), False)
            targets = y[batch]
            if attack == "label_flip" and client >= N - f:
                targets = 9 - targets
            slope = gradient(w, x[batch], targets)
            momentum[client] = MOMENTUM * momentum[client] + (1 - MOMENTUM) * slope
        updates = momentum.astype(np.float32)
        if not np.isfinite(updates).all():
            break  # the model diverged; its accuracy is what it is
        if sending:
            seen = rule.result if isinstance(rule, Clipping) else _known(rule, number)
            updates[N - f :] = sent(attack, momentum[: N - f], f, rng, seen)
        try:
            w = w - RATE * rule(updates, number)
        except HansaError:
            return None  # so many bad clients are more than it can bear
    return 100 * accuracy(w)


def _known(rule: Rule, number: int) -> Callable[[Array], Array]:
    """The rule as the attacker knows it, its draws of this round included: the worst case."""
    return lambda x: rule(x, number)


# ------------------------------------------------------------------ the table


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    rules = QUICK_RULES if options.quick else options.rules
    tried = QUICK_ATTACKS if options.quick else ADAPTIVE if options.adaptive else ATTACKS
    for skew in ["dirichlet_0.3"] if options.quick else options.skews:
        for rule in rules:
            for attack in tried:
                for seed in [0] if options.quick else options.seeds:
                    yield skew, attack, rule, seed, options.bad


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy by skew, rule, attack and seed."""
    shuffled()
    found: dict[str, Any] = {}
    wanted = list(cells(options))
    with ProcessPoolExecutor(options.processes) as pool:
        for cell, value in zip(wanted, pool.map(_cell, wanted), strict=True):
            skew, attack, rule, seed, _ = cell
            row = found.setdefault(skew, {}).setdefault(rule, {})
            row.setdefault(attack, {})[str(seed)] = value
            if (attack, seed) == (wanted[-1][1], wanted[-1][3]):
                say(f"{skew} {rule}: {shown(row)}")
    return found


def _cell(cell: Cell) -> float | None:
    with np.errstate(all="ignore"):  # a mean under attack diverges
        return trained(*cell)


def mean_of(by_seed: dict[str, float | None]) -> float | None:
    known = [value for value in by_seed.values() if value is not None]
    return round(sum(known) / len(known), 2) if known else None


def worst_of(row: dict[str, float | None]) -> float | None:
    return min((value for value in row.values() if value is not None), default=None)


def shown(row: dict[str, dict[str, float | None]]) -> str:
    means = {attack: mean_of(values) for attack, values in row.items()}
    told = " ".join(f"{attack} {value}" for attack, value in means.items())
    return f"{told}, worst {worst_of(means)}"


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Seed 0 beside the other program's table."""
    known = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    apart = {
        (skew, rule, attack): by_seed["0"] - known[skew][rule][known["attacks"].index(attack)]
        for skew, rules in found.items()
        for rule, row in rules.items()
        for attack, by_seed in row.items()
        if "0" in by_seed and attack in known["attacks"]
    }
    if not apart:
        return {}
    far = {" ".join(cell): gap for cell, gap in apart.items() if abs(gap) > 3}
    return {
        "cells": len(apart),
        "within_3_points": len(apart) - len(far),
        "median_difference": float(np.median(np.abs(list(apart.values())))),
        "further": far,
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rules, five attacks, one seed")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--adaptive", action="store_true", help="the attacks that know the rule")
    parser.add_argument("--bad", type=int, default=F, help="bad clients, of 20")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--skews", nargs="+", choices=SKEWS, default=list(SKEWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    found = measured(options)
    means = {
        skew: {
            rule: {attack: mean_of(values) for attack, values in row.items()}
            for rule, row in rules.items()
        }
        for skew, rules in found.items()
    }
    against = compared(found) if options.bad == F else {}
    for cell, gap in against.get("further", {}).items():
        say(f"more than 3 points from the table: {cell} {gap:+.1f}")
    if options.json:
        print(
            json.dumps(
                {
                    "clients": N,
                    "bad": options.bad,
                    "accuracy": means,
                    "worst": {
                        s: {r: worst_of(row) for r, row in rules.items()}
                        for s, rules in means.items()
                    },
                    "by_seed": found,
                    "reference": against,
                    "seconds": time.perf_counter() - started,
                }
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
