"""Models of three sizes on noise: what is measured is time, and no accuracy is looked at."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import hansa

from . import models


class Logistic(hansa.TorchTask):
    """Softmax regression, 7,850 parameters."""

    def model(self) -> nn.Module:
        """A network of this name."""
        return models.network(type(self).__name__)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def data(self, site: hansa.Site) -> hansa.Split:
        """The client's own noise; nothing is held out."""
        train = hansa.Examples(*models.examples(site.name))
        return hansa.Split(train, train.take(np.zeros(0, np.int64)))


class MLP(Logistic):
    """Two hidden layers of 200, 199,210 parameters."""


class CNN(Logistic):
    """The network of McMahan et al. (AISTATS 2017), 1,663,370 parameters."""
