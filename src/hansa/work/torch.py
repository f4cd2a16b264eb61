"""Tasks written in PyTorch, over the same flat vectors as all others."""

from __future__ import annotations

import logging
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.core.metrics import Accuracy, Loss, Metric, Outputs
from hansa.core.parts import Examples, Site, Split
from hansa.core.vector import Schema, Tensor, Vector
from hansa.errors import HansaError, MissingExtra
from hansa.work.per_example import Piece

try:
    import torch
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
except ImportError as error:
    raise MissingExtra("torch", "torch", "TorchTask") from error

PREDICTED_AT_ONCE = 1024
"""Most examples in one forward pass outside training: bounds memory."""

PIECE_BYTES = 2**25
"""Memory for gradients of single examples; one of them may take more."""

PIECE_EXAMPLES = 32
"""Most examples whose gradients are computed at once: bounds what their forward passes hold."""

_log = logging.getLogger(__name__)


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
        return self._backward(params, batch, _seed_of(params, batch.inputs, batch.targets))

    def per_example(self, params: Vector, batch: Examples) -> Iterator[Piece]:
        """Loss and gradient of each example as a batch of one; see `hansa.work.per_example`.

        By `torch.func.vmap` if it can run the module, otherwise one backward pass for each; the
        first call finds out which. What the module draws, as dropout does, is seeded by the
        parameters alone, so all examples of a call draw the same: were it by position or by
        content, whether one example is in the batch would move the gradients of others.

        Not found is a module that remembers examples in attributes that are no buffers.

        Raises:
          HansaError: the module mixes the examples of a batch, or remembers them.
        """
        flat = self._flat
        _refuse_what_mixes_examples(flat.module)
        if not len(batch):
            return iter(())
        if flat.vectorises is None:
            blank = Examples(_filled_up(batch.inputs[:0], 2), _filled_up(batch.targets[:0], 2))
            self._refuse_what_remembers(params, blank)
            flat.vectorises = self._vectorises(params, blank)
        return (self._vectorised if flat.vectorises else self._one_by_one)(params, batch)

    def stacked_losses(
        self,
        named: Mapping[str, torch.Tensor],
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(k,) losses of k clients, each with parameters and a batch of its own.

        Each is the weighted sum of its examples' losses; see `hansa.work.stacked_gradient`.

        Args:
          named: (k, *shape) parameters by their names.
          inputs: (k, b, ...) examples.
          targets: (k, b, ...) integers.
          weights: (k, b) of each example; zero where a batch is filled up.
        """
        module = self._flat.turned(training=True)

        def outputs(named: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = torch.func.functional_call(module, dict(named), (inputs,))
            return found

        found = torch.func.vmap(outputs)(named, inputs)
        losses = self._losses(found.flatten(0, 1), targets.flatten(0, 1))
        return (losses.view(weights.shape) * weights).sum(1)

    def predict(self, params: Vector, examples: Examples) -> Outputs:
        """What the module says about the examples, in evaluation mode, a part at a time."""
        module = self._flat.load(params).turned(training=False)
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

    def _backward(self, params: Vector, batch: Examples, seed: int) -> tuple[float, Vector]:
        """Mean loss over the batch and its gradient, with the module's draws seeded."""
        flat = self._flat.load(params)
        flat.gradient.fill(0)
        module = flat.turned(training=True)
        inputs, targets = _tensor(batch.inputs), _classes(batch.targets)
        with _seeded(seed):
            loss = self.loss(module(inputs), targets)
            torch.autograd.backward(loss)
        return loss.item(), flat.gradient

    def _one_by_one(self, params: Vector, batch: Examples) -> Iterator[Piece]:
        """One backward pass for each example."""
        seed = _seed_of(params)
        for at in range(len(batch)):
            one = Examples(batch.inputs[at : at + 1], batch.targets[at : at + 1])
            loss, gradient = self._backward(params, one, seed)
            yield np.array([loss]), gradient[np.newaxis]

    def _vectorised(self, params: Vector, batch: Examples) -> Iterator[Piece]:
        """Many examples in one pass, each as a batch of one.

        A pass is filled up with blanks: it always has the same shape, so that not even the last
        bit of an example's gradient follows from how many others there are.
        """
        flat, seed = self._flat, _seed_of(params)
        module = flat.module
        named = {name: parameter.detach() for name, parameter in module.named_parameters()}

        def alone(
            named: dict[str, torch.Tensor], inputs: torch.Tensor, target: torch.Tensor
        ) -> torch.Tensor:
            outputs = torch.func.functional_call(module, named, (inputs.unsqueeze(0),))
            return self.loss(outputs, target.unsqueeze(0))

        each = torch.func.vmap(
            torch.func.grad_and_value(alone), in_dims=(None, 0, 0), randomness="same"
        )
        at_once = min(max(1, PIECE_BYTES // (4 * flat.schema.size)), PIECE_EXAMPLES)
        room = torch.empty(at_once, flat.schema.size)
        for start in range(0, len(batch), at_once):
            number = min(at_once, len(batch) - start)
            inputs, targets = (
                _filled_up(array[start : start + number], at_once)
                for array in (batch.inputs, batch.targets)
            )
            flat.load(params).turned(training=True)
            with _seeded(seed), warnings.catch_warnings():
                # An operation without a rule of its own is run for each example: slower, not wrong.
                warnings.filterwarnings("ignore", "There is a performance drop")
                slopes, losses = each(named, _tensor(inputs), _classes(targets))
            rows = [s.reshape(at_once, s.numel() // at_once) for s in slopes.values()]
            torch.cat(rows, dim=1, out=room)
            yield losses[:number].numpy(), room[:number].numpy()

    def _vectorises(self, params: Vector, blank: Examples) -> bool:
        """Whether `vmap` can run the module; tried with blanks, so whatever the data is."""
        try:
            list(self._vectorised(params, blank))
        except Exception as error:  # noqa: BLE001  modules fail in their own ways; one by one works
            _log.warning(
                "%s: one backward pass for each example, because torch.func.vmap cannot run %s: %s",
                type(self).__name__,
                type(self._flat.module).__name__,
                " ".join(str(error).split()) or type(error).__name__,
            )
            return False
        return True

    def _refuse_what_remembers(self, params: Vector, blank: Examples) -> None:
        """Refuses a module that writes to its buffers whenever it sees an example.

        The first pass may: some modules compute constants when they are first needed.
        """
        module, written = self._flat.module, []
        with suppress(Exception):  # blanks are no real data: what fails with them may work
            list(self._one_by_one(params, blank))
            before = {name: (buffer, _writes(buffer)) for name, buffer in module.named_buffers()}
            list(self._one_by_one(params, blank))
            for name, buffer in module.named_buffers():
                old, writes = before.get(name, (None, 0))
                if buffer is not old or _writes(buffer) != writes:
                    written.append(name)
        if written:
            raise HansaError(
                f"{type(module).__name__} writes to '{written[0]}' whenever it sees an example, "
                "so that gradients of single examples would depend on the examples before",
                fix="leave what follows from examples out of the module, or use torch.nn.GroupNorm",
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
      vectorises: whether `torch.func.vmap` can run the module; None until somebody asks.
    """

    def __init__(self, module: nn.Module) -> None:
        _refuse_what_cannot_be_averaged(module)
        named = dict(module.named_parameters())
        self.module = module
        self.vectorises: bool | None = None
        self._training: bool | None = None
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

    def turned(self, *, training: bool) -> nn.Module:
        """The module in this mode; going through its layers takes time, so only for a change."""
        if self._training is not training:
            self.module.train(training)
            self._training = training
        return self.module


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


def _refuse_what_mixes_examples(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm):
            raise HansaError(
                f"layer '{name}' ({type(part).__name__}) of {type(module).__name__} mixes the "
                "examples of a batch, so that no example has a gradient of its own to be clipped",
                fix="use torch.nn.GroupNorm instead",
            )


def _writes(buffer: torch.Tensor) -> int:
    """How often a tensor was written to."""
    return buffer._version  # noqa: SLF001  PyTorch documents it under this name


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws inside follow from the seed, draws outside are as if nothing had happened."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _seed_of(*arrays: NDArray[Any]) -> int:
    """A seed that follows from samples of the arrays."""
    seed = 0
    for array in arrays:
        flat = array.reshape(-1)
        seed = zlib.crc32(flat[:: max(1, flat.size // 1024)].tobytes(), seed)
    return seed


def _filled_up(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The examples, and zeros in the shape of as many as are missing."""
    blanks = np.zeros((size - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate([array, blanks])


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """A copy, so that a module that writes to its input does not write to a site's data."""
    return torch.tensor(array.astype(np.float32) if array.dtype == np.float64 else array)


def _classes(targets: NDArray[Any]) -> torch.Tensor:
    return torch.tensor(targets.astype(np.int64))
