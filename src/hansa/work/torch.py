"""Tasks written in PyTorch, over the same flat vectors as all others."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.core.metrics import Accuracy, Loss, Metric, Outputs
from hansa.core.parts import Examples, Site, Split
from hansa.core.vector import Schema, Tensor, Vector
from hansa.errors import HansaError, MissingExtra

try:
    import torch
    from torch import nn
except ImportError as error:
    raise MissingExtra("torch", "torch", "TorchTask") from error

PREDICTED_AT_ONCE = 1024
"""Most examples in one forward pass outside training: bounds memory."""


class TorchTask(ABC):
    """Everything that runs on a site's data, in PyTorch, on the CPU.

    Write three methods; two more things have defaults that suit a classifier:

    | write           | gives                                                               |
    |-----------------|---------------------------------------------------------------------|
    | `model`         | a new module; its random weights are seeded by Hansa                |
    | `loss`          | the mean loss over a batch; must work under `torch.func`            |
    | `data`          | a site's own examples                                               |
    | `probabilities` | what outputs stand for; softmax over the last axis if left out      |
    | `metrics`       | what is measured; loss and accuracy if left out                     |

    The module's parameters are views into one flat buffer, and their gradients into another, in
    the order of `named_parameters`. One task serves one thread at a time.
    """

    metrics: Sequence[Metric] = (Loss(), Accuracy())

    @abstractmethod
    def model(self) -> nn.Module:
        """A new module."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss over the batch, a scalar."""

    @abstractmethod
    def data(self, site: Site) -> Split:
        """The site's examples, read from its own configuration."""

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """(n, classes) probabilities that the module's outputs stand for."""
        return outputs.softmax(dim=-1)

    @cached_property
    def _flat(self) -> _FlatModule:
        with _seeded(0):
            return _FlatModule(self.model())

    @property
    def schema(self) -> Schema:
        """The arrays of the module, in the order of `named_parameters`.

        Raises:
          HansaError: the module cannot be averaged; the message says why.
        """
        return self._flat.schema

    def initial(self, seed: int) -> Vector:
        """(d,) float32 parameters to start from, the same for the same seed."""
        with _seeded(int.from_bytes(ReplayKey.of_seed(seed).derive("initial").key[:8], "big")):
            return _FlatModule(self.model()).params

    def gradient(self, params: Vector, batch: Examples) -> tuple[float, Vector]:
        """Mean loss over the batch and its (d,) float32 gradient, in memory that is reused.

        What the module draws, as dropout does, is seeded by the parameters and the batch: a pure
        function of both, so that a round can be replayed, and new for each step.
        """
        flat = self._flat.load(params)
        flat.gradient.fill(0)
        flat.module.train()
        inputs, targets = _tensor(batch.inputs), _classes(batch.targets)
        with _seeded(_seed_of(params, batch)):
            loss = self.loss(flat.module(inputs), targets)
            torch.autograd.backward(loss)
        return loss.item(), flat.gradient

    def predict(self, params: Vector, examples: Examples) -> Outputs:
        """What the module says about the examples, in evaluation mode, a part at a time."""
        module = self._flat.load(params).module.eval()
        probabilities, losses = [], []
        with torch.no_grad():
            for start in range(0, len(examples), PREDICTED_AT_ONCE):
                part = slice(start, start + PREDICTED_AT_ONCE)
                outputs = module(_tensor(examples.inputs[part]))
                losses.append(self._losses(outputs, _classes(examples.targets[part])))
                probabilities.append(self.probabilities(outputs))
        return Outputs(
            torch.cat(probabilities).numpy(), examples.targets, torch.cat(losses).numpy()
        )

    def _losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(n,) the loss of each example, as a batch of its own."""

        def alone(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return self.loss(output.unsqueeze(0), target.unsqueeze(0))

        return torch.func.vmap(alone)(outputs, targets)


class _FlatModule:
    """A module whose parameters and gradients are views into two flat NumPy vectors.

    PyTorch adds gradients in place where there is one already, so the views last.

    Attributes:
      module: the module.
      schema: its parameters' names and shapes.
      params: (d,) float32 parameters.
      gradient: (d,) float32 gradient of the last backward pass.
    """

    def __init__(self, module: nn.Module) -> None:
        _refuse_what_cannot_be_averaged(module)
        named = dict(module.named_parameters())
        self.module = module
        self.schema = Schema(tuple(Tensor(name, tuple(p.shape)) for name, p in named.items()))
        self.params = self.schema.flatten({n: p.detach().numpy() for n, p in named.items()})
        self.gradient = np.zeros_like(self.params)
        views, slopes = self.schema.views(self.params), self.schema.views(self.gradient)
        for name, parameter in named.items():
            parameter.data = torch.from_numpy(views[name])
            parameter.grad = torch.from_numpy(slopes[name])

    def load(self, params: Vector) -> _FlatModule:
        """Takes over parameters; the caller's vector is left alone, and may be read-only."""
        np.copyto(self.params, params)
        return self


def _refuse_what_cannot_be_averaged(module: nn.Module) -> None:
    name = type(module).__name__
    parameters = dict(module.named_parameters(remove_duplicate=False))
    if not parameters:
        raise HansaError(
            f"the module {name} has no parameters to train", fix="return a module that has some"
        )
    for key, parameter in parameters.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise HansaError(
                f"parameter '{key}' of {name} has no shape yet",
                fix="use a layer that is told its sizes instead of a lazy one",
            )
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            raise HansaError(
                f"parameter '{key}' of {name} is {parameter.dtype} on {parameter.device.type}",
                fix="keep the module in torch.float32 on the CPU",
            )
        if not parameter.requires_grad:
            raise HansaError(
                f"parameter '{key}' of {name} is frozen, but all parameters travel and decay",
                fix="train it, or register it as a buffer with persistent=False whose values are "
                "the same at every site",
            )
    state = sorted(module.state_dict().keys() - parameters.keys())
    if state:
        raise HansaError(
            f"the module {name} keeps state that is not trained ({', '.join(state[:3])}): "
            "it would differ from site to site and tell about a site's data",
            fix="use torch.nn.GroupNorm instead of BatchNorm; register constants with "
            "persistent=False",
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws inside follow from the seed, draws outside are as if nothing had happened."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _seed_of(params: Vector, batch: Examples) -> int:
    """A seed that follows from samples of the parameters and the batch."""
    seed = 0
    for array in (params, batch.inputs, batch.targets):
        flat = array.reshape(-1)
        seed = zlib.crc32(flat[:: max(1, flat.size // 1024)].tobytes(), seed)
    return seed


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """A copy, so that a module that writes to its input does not write to a site's data."""
    return torch.tensor(array.astype(np.float32) if array.dtype == np.float64 else array)


def _classes(targets: NDArray[Any]) -> torch.Tensor:
    return torch.tensor(targets.astype(np.int64))
