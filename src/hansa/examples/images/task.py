"""Ten kinds of small images, told apart by the network of McMahan et al. (AISTATS 2017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import hansa

from .fetch import Dataset, read
from .sites import names_of, share_of


class Grey(nn.Module):
    """Bytes (n, 28, 28) to one channel around zero, by numbers that hold for such images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) float32."""
        return (images.unsqueeze(1).float() / 255 - 0.1307) / 0.3081


class Images(hansa.TorchTask):
    """The network of the paper: two convolutions and two dense layers, 1,663,370 parameters.

    Args:
      dataset: mnist5k, mnist or fashion-mnist, where sites have no file of their own.
      rule: dirichlet, shards or iid: how those images are divided among the clients.
    """

    metrics = (hansa.Loss(), hansa.Accuracy())

    def __init__(self, dataset: str = "mnist5k", rule: str = "dirichlet") -> None:
        self.dataset = dataset
        self.rule = rule

    def model(self) -> nn.Module:
        """The network."""
        return nn.Sequential(
            Grey(),
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

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def clients(self, job: hansa.Job) -> tuple[str, ...]:
        """The names of the clients in a simulation."""
        return names_of(job.cohort.population)

    def data(self, site: hansa.Site) -> hansa.Split:
        """One client's images, kept as bytes.

        `site.config` has `path`, a file that `sites.write_sites` wrote. A client of a simulation
        has none: its images follow from its name.

        Raises:
          HansaError: there is no such file.
          Unavailable: the images of a simulation could not be fetched.
        """
        path = site.config.get("path")
        if path is not None:
            return _split(read(Path(str(site.config.get("folder", "")), str(path))))
        return _split(share_of(site.name, self.dataset, self.rule))


class SmallImages(Images):
    """The same images for a network of 50,890 parameters: one hidden layer."""

    def model(self) -> nn.Module:
        """The network."""
        return nn.Sequential(
            Grey(), nn.Flatten(), nn.Linear(28 * 28, 64), nn.ReLU(), nn.Linear(64, 10)
        )


class Devices(Images):
    """MNIST among a thousand devices, each class divided by shares of a Dirichlet distribution."""

    def __init__(self) -> None:
        super().__init__("mnist", "dirichlet")


class DevicesIid(Images):
    """MNIST among a thousand devices, by chance alone."""

    def __init__(self) -> None:
        super().__init__("mnist", "iid")


def _split(images: Dataset) -> hansa.Split:
    return hansa.Split(
        hansa.Examples(images.train_inputs, images.train_targets.astype(np.int64)),
        hansa.Examples(images.test_inputs, images.test_targets.astype(np.int64)),
    )
