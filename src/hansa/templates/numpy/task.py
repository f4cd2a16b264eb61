"""Everything that runs on a site's data: the model, and the code that reads the data.

This file is packed with the job and sent to each site, which reads and approves it before it
runs there. It may import the standard library, NumPy and Hansa, and other files of this folder.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import hansa
from hansa.work.numpy_task import Parameters

FEATURES = 4
CLASSES = 3


class Task(hansa.NumpyTask):
    """Softmax regression: three classes, told apart by four numbers."""

    # What is measured on held-out examples. Metrics are sums, so that sites can add them up.
    metrics = (hansa.Loss(), hansa.Accuracy(), hansa.Calibration())

    def parameters(self, rng: np.random.Generator) -> Parameters:
        """The arrays to start from. Draw random ones from `rng`, so that runs can be repeated."""
        return {
            "weights": 0.01 * rng.standard_normal((FEATURES, CLASSES)),
            "bias": np.zeros(CLASSES),
        }

    def probabilities(
        self, parameters: Parameters, inputs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(n, classes) probabilities of the inputs."""
        scores = inputs @ parameters["weights"] + parameters["bias"]
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return shares

    def loss_and_gradients(
        self, parameters: Parameters, inputs: NDArray[np.float32], targets: NDArray[np.int64]
    ) -> tuple[float, Parameters]:
        """Mean loss over the batch, and its gradient in each array, under the same names."""
        shares = self.probabilities(parameters, inputs)
        loss = float(self.losses(shares, targets).mean())
        error = (shares - np.eye(CLASSES, dtype=np.float32)[targets]) / len(targets)
        return loss, {"weights": inputs.T @ error, "bias": error.sum(axis=0)}

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
