"""Low-rank adapters for any PyTorch module: LoRA (Hu et al., ICLR 2022, arXiv 2106.09685).

`adapt` freezes a module and puts adapters beside some of its linear layers:

    before   y = W x + b
    after    y = W x + b + (alpha / rank) * B (A x)        W, b frozen; A, B trained

All parameters of a task travel, so what is frozen must be no parameter: it becomes a buffer that
is not saved, which is the same at every site because the task checks it (see `base.py`).
"""

from __future__ import annotations

import math
import re

import torch
from torch import nn


class Adapted(nn.Module):
    """A frozen linear layer with an adapter beside it; at first it is the layer alone.

    Args:
      linear: (out, in) the layer; it is kept as `linear`.
      rank: r, of the adapter.
      alpha: what the adapter counts for, times its rank.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as the paper's own code does

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        low = nn.functional.linear(inputs, self.down)
        added = nn.functional.linear(low, self.up)
        outputs: torch.Tensor = self.linear(inputs) + self.scale * added
        return outputs


def adapt(module: nn.Module, where: str, rank: int = 8, alpha: float = 16.0) -> tuple[str, ...]:
    """Freezes a module, in place, and puts adapters beside its linear layers of some names.

    Args:
      module: any module.
      where: a regular expression that matches the end of a layer's dotted name.
      rank: of the adapters.
      alpha: what they count for, times their rank.

    Returns:
      The names of the adapted layers, in the module's order.

    Raises:
      ValueError: no linear layer has such a name.
    """
    freeze(module)
    found = [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and re.search(f"(?:{where})$", name)
    ]
    if not found:
        raise ValueError(f"no linear layer's name ends with '{where}'")
    for name, layer in found:
        home, _, last = name.rpartition(".")
        setattr(module.get_submodule(home), last, Adapted(layer, rank, alpha))
    return tuple(name for name, _ in found)


def freeze(module: nn.Module) -> None:
    """Turns all parameters into buffers that are not saved, in place; values stay as they are."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach(), persistent=False)
