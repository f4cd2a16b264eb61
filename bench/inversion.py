"""What an attacker rebuilds of images from updates: raw, clipped, summed, with noise.

    python bench/inversion.py [--quick] [--json] [--picture docs/img/inversion.png]

Each client takes one step on one image, the attacker's best case, but for the smallest sum that
sites allow by themselves, which is of two sites with ten images each. The network is the small one
of the images example with fresh parameters; the attack is that of Geiping et al. (2020).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hansa.core.keys import NoiseSource, ReplayKey
from hansa.core.vector import Vector
from hansa.examples.images.fetch import load
from hansa.examples.images.task import SmallImages
from hansa.redteam.inversion import Target, inverting, psnr
from hansa.redteam.png import write_png
from hansa.redteam.views import Exposure, clipped, label_prior, noised, summed

CLIP = 0.5
"""Norm bound of the clipped views."""

NOISE = 1.0
"""Noise multiplier of the noised view."""

View = Callable[[list[Vector]], Vector]

VIEWS: dict[str, tuple[int, View]] = {
    "raw": (1, lambda seen: seen[0]),
    "clipped": (1, lambda seen: clipped(seen[0], CLIP)),
    "sum_of_2": (2, summed),
    "sum_of_10": (10, summed),
    "smallest_allowed": (20, summed),
    "sum_of_100": (100, summed),
    "sum_of_10_noised": (10, lambda seen: noised(seen, CLIP, NOISE, NoiseSource())),
}
"""Pictures in each view's sum, and what is seen of their gradients.

`smallest_allowed` is a masked sum of two sites, each with as few pictures in its update as a site's
own policy allows (`policy.min_examples`, 10): a step on ten pictures is the sum of their gradients.
"""


def attack(
    target: Target, images: Vector, labels: Vector, name: str, clients: int, steps: int
) -> tuple[Exposure, list[Vector]]:
    """How the first `clients` images fare, each as the victim of a sum with others."""
    size, view = VIEWS[name]
    rng = ReplayKey.of_seed(1).generator(name)
    ratios, hits, pictures, all_labels, nearest = [], [], [], [], []
    for victim in range(clients):
        others = rng.choice(np.arange(clients, len(images)), size - 1, replace=False)
        members = [victim, *others.tolist()]
        seen = view([target.gradient(images[[i]], labels[[i]]) for i in members])
        found = inverting(target, seen, seed=victim, steps=steps)
        pictures.append(found.inputs[0])
        ratios.append(psnr(found.inputs[0], images[victim]))
        nearest.append(max(psnr(found.inputs[0], images[i]) for i in members))
        hits.append(int(found.labels[0]) == int(labels[victim]))
        all_labels.append(labels[members])
    near, close, right = (float(np.mean(found)) for found in (ratios, nearest, hits))
    return Exposure(near, close, right, label_prior(all_labels), clients), pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer images")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--picture", type=Path, help="PNG file for the pictures")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, started = load("mnist5k"), time.perf_counter()
    images = data.train_inputs[:400].astype(np.float32) / 255
    labels = data.train_targets[:400].astype(np.int64)
    target = Target(SmallImages().model(), (28, 28), 10, scale=255.0)
    clients = 4 if wanted.quick else 12
    found: dict[str, object] = {}
    rows = [np.concatenate(list(images[: min(clients, 8)]), axis=1)]
    for name in VIEWS:
        exposure, pictures = attack(target, images, labels, name, clients, 300)
        found[name] = {
            "psnr_db": round(exposure.psnr, 1),
            "any_psnr_db": round(exposure.any_psnr, 1),
            "labels": round(exposure.labels, 3),
            "prior": round(exposure.prior, 3),
            "hides": exposure.hides,
        }
        rows.append(np.concatenate(pictures[:8], axis=1))
        if not wanted.json:
            print(name, found[name], flush=True)
    mean = images[clients:].mean(axis=0)
    found["mean_picture_psnr_db"] = round(
        float(np.mean([psnr(mean, image) for image in images[:clients]])), 1
    )
    found["seconds"] = round(time.perf_counter() - started, 1)
    if wanted.picture is not None:
        write_png(wanted.picture, np.kron(np.concatenate(rows), np.ones((2, 2))))
    print(json.dumps(found, indent=2) if wanted.json else found)


if __name__ == "__main__":
    main()
