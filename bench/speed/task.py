"""Models of three sizes on noise: what is measured is time, and no accuracy is looked at."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import nn

import hansa

EXAMPLES = 50


class Logistic(hansa.TorchTask):
    """Softmax regression, 7,850 parameters."""

    def model(self) -> nn.Module:
        """784 to 10."""
        return nn.Linear(784, 10)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def data(self, site: hansa.Site) -> hansa.Split:
        """The client's own noise; nothing is held out."""
        rng = np.random.default_rng(zlib.crc32(site.name.encode()))
        inputs = rng.standard_normal((EXAMPLES, 784), np.float32)
        targets = rng.integers(0, 10, EXAMPLES)
        train = hansa.Examples(inputs, targets)
        return hansa.Split(train, train.take(np.zeros(0, np.int64)))


class MLP(Logistic):
    """Two hidden layers of 200, 199,210 parameters."""

    def model(self) -> nn.Module:
        """784 to 200 to 200 to 10."""
        return nn.Sequential(
            nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
        )


class CNN(Logistic):
    """The network of McMahan et al. (AISTATS 2017), 1,663,370 parameters."""

    def model(self) -> nn.Module:
        """Two convolutions, two dense layers."""
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
