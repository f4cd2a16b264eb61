"""Networks of three sizes and clients that hold noise, as PyTorch alone knows them."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

EXAMPLES = 50
RATE = 0.1
BATCH = 10


def network(kind: str) -> nn.Module:
    """A new one.

    | kind       | layers                                                        | parameters |
    |------------|---------------------------------------------------------------|------------|
    | `Logistic` | 784-10                                                        |      7,850 |
    | `MLP`      | 784-200-200-10                                                |    199,210 |
    | `CNN`      | two convolutions, two dense (McMahan et al., AISTATS 2017)    |  1,663,370 |
    """
    return {"Logistic": _logistic, "MLP": _mlp, "CNN": _cnn}[kind]()


def examples(client: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """A client's own noise: (50, 784) float32 and (50,) classes from 0 to 9."""
    rng = np.random.default_rng(zlib.crc32(client.encode()))
    return rng.standard_normal((EXAMPLES, 784), np.float32), rng.integers(0, 10, EXAMPLES)


def _logistic() -> nn.Module:
    return nn.Linear(784, 10)


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    )


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 32, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
