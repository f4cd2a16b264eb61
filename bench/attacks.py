"""Attacks beside those of byzfl: on the same honest updates, and on the same examples.

    python bench/attacks.py --peers PYTHON [--json]

PYTHON is that of an environment with byzfl (`peer_attacks.py` says how to make it). Both are given
16 updates of 2,000 coordinates, of which 4 more are bad. What both have is compared by the largest
difference of a coordinate, relative to the largest coordinate; noise by its standard deviation over
20 draws; what adapts to a trimmed mean by the damage: the distance between what the rule makes of
all updates and the honest mean.

Flipped labels are compared on 64 random images: the labels that a bad client trains on, and the
gradient of one model on them. byzfl has its honest clients compute them and sends their mean; here
bad clients flip their own.

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
import torch
from torch import nn

from hansa import Site, Split, TorchTask, attacks
from hansa.aggregators import robust
from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples

N, F, D, CLASSES = 16, 4, 2_000, 10
Array = Any


def rule(rows: Array) -> Array:
    return robust.trimmed_mean(rows, F, threads=1)


def damage(honest: Array, bad: Array) -> float:
    rows = np.concatenate([honest, np.tile(bad, (F, 1))]).astype(np.float32)
    return float(np.linalg.norm(rule(rows) - honest.mean(axis=0)))


def apart(ours: Array, theirs: Array) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


class Flat(TorchTask):
    """The model of byzfl that is one linear layer, with its loss, and some examples."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def model(self) -> nn.Module:
        """784 pixels to ten numbers between 0 and 1."""
        return nn.Sequential(nn.Flatten(), nn.Linear(784, CLASSES), nn.Sigmoid())

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of these numbers, as byzfl's benchmark takes it."""
        return nn.functional.cross_entropy(outputs, targets)

    def data(self, site: Site) -> Split:  # noqa: ARG002  all sites have the same
        """The examples, for training and for measuring."""
        return Split(self.examples, self.examples)


def flips(train: Examples, theirs: Any) -> dict[str, float]:
    """Labels that differ, and how far gradients are apart."""
    task = Flat(train)
    split = attacks.LabelFlip(CLASSES).poison(task.data(Site("bad", {})), ReplayKey.of_seed(0))
    _, gradient = task.gradient(theirs["flipped_model"], split.train)
    return {
        "label_flip_labels": float((split.train.targets != theirs["flipped_labels"]).sum()),
        "label_flip_gradient": max(apart(gradient, row) for row in theirs["flipped_gradient"]),
    }


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
    train = Examples(
        rng.standard_normal((64, 28, 28)).astype(np.float32), rng.integers(0, CLASSES, 64)
    )
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch, "given.npz"), Path(scratch, "found.npz")
        np.savez(given, honest=honest, images=train.inputs, classes=train.targets)
        subprocess.run([options.peers, str(script), str(given), str(F), str(found)], check=True)
        theirs = np.load(found)
        result = {**compared(honest, theirs), **flips(train, theirs)}
    for name, value in result.items():
        print(f"{name:<22}{value:.3g}", file=sys.stderr)
    if options.json:
        print(json.dumps({"clients": N, "bad": F, "size": D, **result}))
    formulas = ("sign_flip", "ipm", "alie", "mimic", "trimmed_mean", "label_flip_labels",
                "label_flip_gradient")  # fmt: skip
    return int(any(result[name] > 1e-6 for name in formulas))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
