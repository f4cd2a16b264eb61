"""Gradient inversion: what somebody who sees an update can rebuild of the examples behind it.

| attack      | looks for inputs whose gradient                    | source                        |
|-------------|----------------------------------------------------|-------------------------------|
| `dlg`       | is near in squared distance, labels sought as well | Zhu et al., NeurIPS 2019      |
| `idlg`      | the same, label read from the last layer           | Zhao et al., arXiv 2001.02610 |
| `inverting` | points the same way, with little total variation   | Geiping et al., NeurIPS 2020  |

All see one vector: what they take for the gradient at known parameters. Inputs are images of values
from 0 to 1, told to the module in its own `scale`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hansa.core.vector import Vector

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Target:
    """What an attacker knows besides the update.

    Attributes:
      module: the network with the parameters that the clients received.
      shape: of one input.
      classes: number of labels.
      scale: what an input of 1 is to the module.
    """

    module: nn.Module
    shape: tuple[int, ...]
    classes: int
    scale: float = 1.0

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, classes) what the network says about (n, *shape) inputs from 0 to 1."""
        found: torch.Tensor = self.module(inputs * self.scale)
        return found

    def slope(self, loss: torch.Tensor, *, graph: bool = False) -> torch.Tensor:
        """(d,) gradient of a loss in all parameters."""
        parts = torch.autograd.grad(loss, list(self.module.parameters()), create_graph=graph)
        return torch.cat([part.reshape(-1) for part in parts])

    def gradient(self, inputs: Vector, labels: Vector) -> Vector:
        """(d,) float32 gradient of the mean cross-entropy: what a client's first step shows."""
        outputs = self.outputs(torch.as_tensor(inputs, dtype=torch.float32))
        loss = nn.functional.cross_entropy(outputs, torch.as_tensor(labels))
        found: Vector = self.slope(loss).numpy()
        return found

    def label(self, seen: Vector) -> int:
        """The likeliest label behind a gradient: where the last bias is pulled up the most.

        Exact for one example (iDLG): the gradient in the bias is p - 1 for its label and p > 0 for
        every other one.
        """
        return int(np.argmin(seen[-self.classes :]))


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Inputs and labels that an attack came up with.

    Attributes:
      inputs: (n, *shape) from 0 to 1.
      labels: (n,) classes.
      distance: how far their gradient still is, in the attack's own measure.
    """

    inputs: Vector
    labels: Vector
    distance: float


def dlg(target: Target, seen: Vector, *, seed: int = 0, steps: int = 60) -> Rebuilt:
    """Deep leakage from gradients: one input and its soft label, by L-BFGS.

    Args:
      target: what the attacker knows.
      seen: (d,) the gradient.
      seed: of the start.
      steps: outer steps of the optimizer.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(1, target.classes, generator=generator).requires_grad_()
    return _by_distance(target, seen, labels, generator, steps)


def idlg(target: Target, seen: Vector, *, seed: int = 0, steps: int = 60) -> Rebuilt:
    """The same with the label that the last layer gives away."""
    generator = torch.Generator().manual_seed(seed)
    known = nn.functional.one_hot(torch.tensor([target.label(seen)]), target.classes)
    return _by_distance(target, seen, known * 50.0, generator, steps)


def inverting(
    target: Target, seen: Vector, *, seed: int = 0, steps: int = 300, variation: float = 1e-3
) -> Rebuilt:
    """Inverting gradients: one input, by the signs of Adam's steps, from the cosine.

    Args:
      target: what the attacker knows.
      seen: (d,) the gradient, up to its length.
      seed: of the start.
      steps: of the optimizer.
      variation: weight of the total variation.
    """
    wanted = torch.as_tensor(seen, dtype=torch.float32)
    label = torch.tensor([target.label(seen)])
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(1, *target.shape, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([inputs], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, least = inputs.detach().clone(), float("inf")
    for _ in range(steps):
        loss = nn.functional.cross_entropy(target.outputs(inputs), label)
        found = target.slope(loss, graph=True)
        apart = 1 - torch.nn.functional.cosine_similarity(found, wanted, dim=0)
        if apart.item() < least:
            best, least = inputs.detach().clone(), apart.item()
        (inputs.grad,) = torch.autograd.grad(apart + variation * _variation(inputs), [inputs])
        inputs.grad.sign_()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            inputs.clamp_(0, 1)
    return Rebuilt(best.numpy(), label.numpy(), least)


def _by_distance(
    target: Target,
    seen: Vector,
    labels: torch.Tensor,
    generator: torch.Generator,
    steps: int,
) -> Rebuilt:
    wanted = torch.as_tensor(seen, dtype=torch.float32)
    inputs = torch.rand(1, *target.shape, generator=generator).requires_grad_()
    sought = [inputs, labels] if labels.requires_grad else [inputs]
    optimizer = torch.optim.LBFGS(sought, line_search_fn="strong_wolfe")
    distances = [float("inf")]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        said = nn.functional.log_softmax(target.outputs(inputs), dim=-1)
        loss = -(labels.softmax(-1) * said).sum(-1).mean()
        apart = ((target.slope(loss, graph=True) - wanted) ** 2).sum()
        for one, slope in zip(sought, torch.autograd.grad(apart, sought), strict=True):
            one.grad = slope
        distances.append(apart.item())
        return apart

    for _ in range(steps):
        optimizer.step(closure)  # type: ignore[no-untyped-call]  # PyTorch's own gap
    found = inputs.detach().clamp(0, 1).numpy()
    return Rebuilt(found, labels.detach().argmax(-1).numpy(), distances[-1])


def _variation(images: torch.Tensor) -> torch.Tensor:
    down, across = images.diff(dim=-2).abs(), images.diff(dim=-1).abs()
    return down.mean() + across.mean()


def rows_of_first_layer(weight: Vector, bias: Vector) -> Vector:
    """(inputs,) the example behind the gradient of a dense first layer, if there was only one.

    Each row of the weights' gradient is the example times the same row of the bias's gradient;
    the row with the largest one is the least disturbed. Of several examples it is a mixture.

    Args:
      weight: (outputs, inputs) gradient in the weights.
      bias: (outputs,) gradient in the bias.
    """
    place = int(np.argmax(np.abs(bias)))
    slope = float(bias[place])
    found: Vector = weight[place] / slope if slope else np.zeros_like(weight[place])
    return found


def psnr(rebuilt: Vector, real: Vector) -> float:
    """Peak signal-to-noise ratio in dB of values from 0 to 1; inf for equal ones."""
    error = float(np.mean((np.asarray(rebuilt, np.float64) - real) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def share_within(rebuilt: Vector, rows: Vector, tolerance: float) -> float:
    """Share of rows of a table that one of the rebuilt ones matches in every column.

    Args:
      rebuilt: (m, columns).
      rows: (n, columns) the real ones.
      tolerance: largest difference that counts as a match.
    """
    apart = np.abs(np.asarray(rebuilt)[None] - np.asarray(rows)[:, None]).max(axis=2)
    return float((apart <= tolerance).any(axis=1).mean())
