"""Small PyTorch tasks: one whose clients can be stacked, and some that have a reason against it."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import nn

import hansa
from hansa.core.parts import Examples, Site, Split


class Net(hansa.TorchTask):
    """Two layers over six numbers; clients hold between 2 and 13 examples."""

    def model(self) -> nn.Module:
        """6 to 5 to 3."""
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def data(self, site: Site) -> Split:
        """Drawn from the client's name; the class is that of the largest of three numbers."""
        rng = np.random.default_rng(zlib.crc32(site.name.encode()))
        inputs = rng.standard_normal((int(rng.integers(2, 14)), 6)).astype(np.float32)
        targets = inputs[:, :3].argmax(axis=1)
        held = rng.standard_normal((4, 6)).astype(np.float32)
        return Split(Examples(inputs, targets), Examples(held, held[:, :3].argmax(axis=1)))


class Dropout(Net):
    """Draws in each step."""

    def model(self) -> nn.Module:
        """A layer that drops half of what it sees."""
        return nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3))


class _Branching(nn.Module):
    """What it does follows from the numbers that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Turns round what is large."""
        found: torch.Tensor = self.layer(inputs)
        return -found if bool(found.mean() > 0) else found


class Branching(Net):
    """Python decides by values, which `torch.func.vmap` cannot do for many at once."""

    def model(self) -> nn.Module:
        """6 to 3."""
        return _Branching()


class Weighted(Net):
    """The mean is weighted by the classes in the batch."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in which the classes do not count the same."""
        return nn.functional.cross_entropy(outputs, targets, torch.tensor([1.0, 2.0, 9.0]))


class Summed(Net):
    """The loss is a sum."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Not divided by the number of examples."""
        return 0.1 * nn.functional.cross_entropy(outputs, targets, reduction="sum")


class Normed(Net):
    """Normalises by the other examples of the batch."""

    def model(self) -> nn.Module:
        """Without statistics that would be kept."""
        return nn.Sequential(
            nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3)
        )


class _Mixing(nn.Module):
    """Subtracts the mean over the batch, in a layer that has no name for it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Relative to the others."""
        return torch.tanh(self.layer(inputs - inputs.mean(dim=0, keepdim=True)))


class Mixing(Net):
    """Mixes the examples of a batch by itself."""

    def model(self) -> nn.Module:
        """6 to 3."""
        return _Mixing()


class Own(Net):
    """Has a gradient of its own."""

    def gradient(self, params: np.ndarray, batch: Examples) -> tuple[float, np.ndarray]:
        """Half of what it was."""
        loss, gradient = super().gradient(params, batch)
        return loss, gradient * np.float32(0.5)
