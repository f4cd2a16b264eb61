"""Everything that runs on a site's data: the model, and the code that reads the data.

This file is packed with the job and sent to each site, which reads and approves it before it
runs there. It may import the standard library, NumPy, PyTorch and Hansa, and other files of this
folder.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import hansa

FEATURES = 4
CLASSES = 3


class Task(hansa.TorchTask):
    """A small network: three classes, told apart by four numbers."""

    # What is measured on held-out examples. Metrics are sums, so that sites can add them up.
    metrics = (hansa.Loss(), hansa.Accuracy(), hansa.Calibration())

    def model(self) -> nn.Module:
        """A new module. Use GroupNorm, not BatchNorm: statistics of the data must not travel."""
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss over the batch; it must also work under `torch.func.vmap`."""
        return nn.functional.cross_entropy(outputs, targets)

    def data(self, site: hansa.Site) -> hansa.Split:
        """This site's own examples: what to train on, and what to hold out.

        `site.config` is the `[data]` section of the site's own `site.toml`; nobody else sees it.
        A simulation has no sites, so examples are made up there, a little different for each.
        """
        if "path" in site.config:
            rows = np.loadtxt(Path(site.config["path"]), delimiter=",", skiprows=1, ndmin=2)
            inputs, targets = rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int64)
        else:
            inputs, targets = made_up(site.name)
        held_out = len(targets) // 5
        return hansa.Split(
            train=hansa.Examples(inputs[held_out:], targets[held_out:]),
            test=hansa.Examples(inputs[:held_out], targets[:held_out]),
        )


def made_up(name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Between 50 and 150 examples around three centres, the same for the same name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    centres = np.array([[2, 0, 0, 1], [0, 2, 0, -1], [0, 0, 2, 0]], np.float32)
    targets = rng.integers(CLASSES, size=rng.integers(50, 151))
    shift = 0.3 * rng.standard_normal(FEATURES)  # sites measure a little differently
    inputs = centres[targets] + shift + rng.standard_normal((len(targets), FEATURES))
    return inputs.astype(np.float32), targets
