r"""Finds the matrices of correlated noise that the package ships, by jax-privacy.

    python3 -m venv matrices && matrices/bin/pip install jax-privacy==2.0.0
    matrices/bin/python tools/matrices.py [--only blt | banded | vectors]

It needs an environment of its own, and nothing of Hansa: what it writes is data, and the numbers
beside each matrix are jax-privacy's, not ours. It writes `src/hansa/privacy/matrices/data/*.json`
and `tests/privacy/matrices/vectors.json`. It is no benchmark, and nothing that runs needs it again,
so it is neither in `bench` nor in the package.

Each file is written after each matrix, and what is in it already is not found again: remove a file
to begin anew. Banded matrices take a second each, buffered ones up to a minute.

Each matrix minimises the mean squared error of prefix sums at equal privacy, for `rounds` T and
a client that takes part at most ceil(T / b) times, at least b rounds apart. A buffered linear
Toeplitz matrix has as few buffers as come within 0.1 % of one more, up to five.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_privacy.matrix_factorization import buffered_toeplitz, sensitivity, toeplitz

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "src/hansa/privacy/matrices/data"
VECTORS = ROOT / "tests/privacy/matrices/vectors.json"

ROUNDS = (32, 64, 128, 256, 512, 1024, 2048)
LONG = 8192
"""Rounds of the buffered matrix for long runs; found for one separation, as it is slow."""

SEPARATIONS = (4, 8, 16, 32, 64, 128, 256)
"""Of buffered matrices; and T itself, where a client takes part once."""

BANDS = (2, 4, 8, 16, 32, 64)
ENOUGH = 1.001
"""A matrix whose error is at most so many times the best is as good."""


def main() -> None:
    """Writes the files that are asked for; all, if none is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("banded", "blt", "vectors"))
    only = parser.parse_args().only
    jax.config.update("jax_enable_x64", True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    if only in (None, "banded"):
        grid = [(t, b) for t in ROUNDS for b in BANDS if b <= t]
        collect(DATA / "banded.json", "banded", banded, grid)
    if only in (None, "blt"):
        grid = [(t, b) for t in ROUNDS for b in sorted({*SEPARATIONS, t}) if b <= t]
        collect(DATA / "blt.json", "blt", blt, [*grid, (LONG, 64)])
    if only in (None, "vectors"):
        write(VECTORS, "vectors", vectors())


def collect(
    path: Path,
    kind: str,
    find: Callable[[int, int], dict[str, Any]],
    grid: list[tuple[int, int]],
) -> None:
    """Adds to a file what it lacks of the grid of rounds and separations."""
    entries = json.loads(path.read_text("ascii"))["matrices"] if path.exists() else []
    known = {(entry["rounds"], entry["separation"]) for entry in entries}
    for rounds, separation in grid:
        if (rounds, separation) not in known:
            entries.append(find(rounds, separation))
            jax.clear_caches()
            write(path, kind, sorted(entries, key=lambda e: (e["rounds"], e["separation"])))


def banded(rounds: int, separation: int) -> dict[str, Any]:
    """The best Toeplitz matrix of as many bands as rounds between two turns."""
    coefficients = toeplitz.optimize_banded_toeplitz(n=rounds, bands=separation)
    return entry(rounds, separation, coefficients) | {"coefficients": plain(coefficients)}


def blt(rounds: int, separation: int) -> dict[str, Any]:
    """The best buffered linear Toeplitz matrix, with as few buffers as are enough."""
    often = -(-rounds // separation)
    loss = buffered_toeplitz.LossFn.build_min_sep(
        n=rounds, error="mean", min_sep=separation, max_participations=often
    )
    found: list[tuple[Any, float]] = []
    for buffers in range(1, 6):
        try:
            matrix, value = buffered_toeplitz.optimize_loss(loss, num_buffers=buffers)
        except RuntimeError as error:  # it happens where fewer buffers would do
            say(f"{buffers} buffers for {rounds}, {separation}: {str(error).splitlines()[0]}")
            break
        found.append((matrix, float(value)))
        if len(found) > 1 and found[-2][1] <= ENOUGH * found[-1][1]:
            break
    best = min(value for _, value in found)
    matrix = next(matrix for matrix, value in found if value <= ENOUGH * best)
    scales, decays = plain(matrix.output_scale), plain(matrix.buf_decay)
    if not (min(scales) > 0 and sum(scales) <= 1 and 0 < min(decays) <= max(decays) <= 1):
        raise SystemExit(f"{matrix} does not decrease, so its sensitivity is not known")
    coefficients = matrix.toeplitz_coefs(rounds)
    return entry(rounds, separation, coefficients) | {"scales": scales, "decays": decays}


def entry(rounds: int, separation: int, coefficients: jax.Array) -> dict[str, Any]:
    """What jax-privacy says about a matrix: its sensitivity, and its errors at equal privacy."""
    often = -(-rounds // separation)
    if len(coefficients) <= separation:
        squared = often * float(toeplitz.sensitivity_squared(coefficients, rounds))
    else:
        squared = float(
            toeplitz.minsep_sensitivity_squared(coefficients, separation, often, rounds)
        )
    errors = toeplitz.per_query_error(strategy_coef=coefficients, n=rounds)
    say(f"{rounds} rounds, {separation} apart: mean error {squared * float(errors.mean()):.6g}")
    return {
        "rounds": rounds,
        "separation": separation,
        "participations": often,
        "sens": squared**0.5,
        "mean_error": squared * float(errors.mean()),
        "max_error": squared * float(errors.max()),
    }


def vectors() -> list[dict[str, Any]]:
    """Numbers of jax-privacy for matrices that are not in the data: oracles of our tests."""
    found = []
    scales, decays = [0.3, 0.12, 0.05], [0.97, 0.7, 0.25]
    matrix = buffered_toeplitz.BufferedToeplitz.build(buf_decay=decays, output_scale=scales)
    for rounds, separation, often in ((24, 5, 3), (100, 7, 15), (64, 64, 1), (50, 1, 50)):
        for kind, coefficients in (
            ("blt", matrix.toeplitz_coefs(rounds)),
            ("root", toeplitz.optimal_max_error_strategy_coefs(rounds)),
        ):
            errors = toeplitz.per_query_error(strategy_coef=coefficients, n=rounds)
            square = toeplitz.minsep_sensitivity_squared(coefficients, separation, often, rounds)
            found.append(
                {
                    "kind": kind,
                    "rounds": rounds,
                    "separation": separation,
                    "participations": often,
                    "scales": scales if kind == "blt" else [],
                    "decays": decays if kind == "blt" else [],
                    "coefficients": plain(coefficients[:6]),
                    "inverse": plain(toeplitz.inverse_coef(coefficients, rounds)[:6]),
                    "sens": float(square) ** 0.5,
                    "mean_error": float(square * errors.mean()),
                    "max_error": float(square * errors.max()),
                }
            )
    for rounds, separation, often in ((16, 4, 4), (32, 8, 2), (20, 3, 7), (64, 16, 4)):
        bound = sensitivity.get_min_sep_sensitivity_upper_bound(tree(rounds), separation, often)
        found.append(
            {
                "kind": "tree",
                "rounds": rounds,
                "separation": separation,
                "participations": often,
                "bound": float(bound),
            }
        )
    return found


def tree(rounds: int) -> jax.Array:
    """The complete nodes of a binary tree over the rounds: (nodes, rounds), of zeros and ones."""
    rows = []
    width = 1
    while width <= rounds:
        for start in range(0, rounds - width + 1, width):
            row = np.zeros(rounds)
            row[start : start + width] = 1
            rows.append(row)
        width *= 2
    return jnp.array(rows)


def plain(array: jax.Array) -> list[float]:
    """An array as JSON holds it."""
    return [float(value) for value in np.asarray(array, np.float64)]


def write(path: Path, kind: str, entries: list[dict[str, Any]]) -> None:
    """Writes one file, with a checksum over all that it says."""
    content = {
        "kind": kind,
        "jax_privacy": version("jax-privacy"),
        "made_by": "tools/matrices.py",
        "matrices": entries,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(text.encode("ascii")).hexdigest()
    lines = ",\n".join(json.dumps(e, sort_keys=True, separators=(",", ":")) for e in entries)
    head = {k: v for k, v in content.items() if k != "matrices"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head)[:-1] + ', "matrices": [\n' + lines + "\n]}\n", "ascii")
    say(f"{path.relative_to(ROOT)}: {len(entries)} matrices, {path.stat().st_size} bytes")


def say(words: str) -> None:
    """Progress, for whoever waits."""
    sys.stderr.write(words + "\n")


if __name__ == "__main__":
    main()
