"""Gradients of several clients at once: one pass over a stack of models.

    k models, each array (k, *shape) ─► vmap over clients ─► (k, b) losses
    (k, b) weights: 1 / size of the batch, 0 where it is filled up ─► k losses ─► backwards, once

No client's loss follows from another's parameters, so the gradient of the sum of the k losses is
the k gradients. The pass is traced once for each shape into the plain operations that it consists
of (`make_fx`): what `torch.func` costs in each step, more than the arithmetic of a small model, is
paid once. Where a step is nothing but parameters minus a multiple of the gradient, it is part of
what was traced, and large gradients are never written to memory (`hansa.work.stacked_graph`). Small
passes are played on memory of their own (`hansa.work.stacked_tape`).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from hansa.work.sgd import LocalSGD
from hansa.work.stacked_graph import descending, tidied
from hansa.work.stacked_room import Room
from hansa.work.stacked_tape import Tape, record
from hansa.work.torch import TorchTask

Gradients: TypeAlias = tuple[torch.Tensor, list[torch.Tensor]]
"""(k,) losses, and the (k, *shape) gradient in each array, in the schema's order."""

Arrays: TypeAlias = Sequence[torch.Tensor]
"""(k, *shape) arrays of k models, in the schema's order."""

MOST_TRACED = 64
"""Most shapes that are traced."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What each client of a stack sees in one step.

    Attributes:
      inputs: (k, b, ...).
      targets: (k, b, ...) integers.
      weights: (k, b) of each example in the client's loss; 0 where a batch is filled up.
      negative: whether targets may be below zero, as a class that does not count is.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    negative: bool = True

    @property
    def shape(self) -> tuple[object, ...]:
        """What a trace holds for: shapes of inputs and targets, and their range."""
        return self.inputs.shape, self.targets.shape, self.negative


@dataclass(slots=True)
class StackedGradient:
    """The gradient of a task's loss for a stack of clients, and their steps along it.

    Attributes:
      model: the task.
      traced_at: how often a shape is met before it is traced, which takes as long as many passes.
    """

    model: TorchTask
    traced_at: int = 10
    _met: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _traced: dict[tuple[object, ...], GraphModule] = field(default_factory=dict)
    _moving: dict[tuple[object, ...], GraphModule | None] = field(default_factory=dict)
    _tapes: dict[tuple[object, ...], Tape | None] = field(default_factory=dict)
    _room: Room | None = None

    def __call__(self, params: Arrays, batch: Batch) -> Gradients:
        """Losses and gradients.

        Raises:
          Exception: whatever the module or the loss raises, as for one batch.
        """
        traced = self._trace_of(params, batch)
        if traced is not None:
            with torch.no_grad():
                losses, *slopes = traced(*params, batch.inputs, batch.targets, batch.weights)
            return losses, slopes
        with warnings.catch_warnings():
            # An operation without a rule of its own is run for each client: slower, not wrong.
            warnings.filterwarnings("ignore", "There is a performance drop")
            losses, *slopes = self._plain(*params, batch.inputs, batch.targets, batch.weights)
        return losses, slopes

    def descend(
        self,
        work: LocalSGD,
        params: Arrays,
        received: Arrays,
        velocity: Arrays | None,
        batch: Batch,
    ) -> torch.Tensor:
        """One step of each client, in place; see `LocalSGD.descend`.

        Args:
          work: what the clients do.
          params: theirs; a list that is given again is in the same memory.
          received: (1, *shape) arrays that all received.
          velocity: theirs, with momentum.
          batch: what they see.

        Returns:
          (k,) losses before the step; the next step may overwrite them.
        """
        if self._trace_of(params, batch) is None:
            losses, slopes = self(params, batch)
        else:
            if velocity is None and not work.proximal:
                moving = self._moving_of(work, params, batch)
                if moving is not None:
                    return self._run(moving, params, batch)[0]
            losses, *slopes = self._run(self._traced[batch.shape], params, batch)
        for at, slope in enumerate(slopes):
            _move(work, params[at], slope, received[at], None if velocity is None else velocity[at])
        return losses

    @property
    def room(self) -> Room:
        """Memory for stacks of this task."""
        if self._room is None:
            self._room = Room(self.model.schema)
        return self._room

    def trace(self, params: Arrays, batch: Batch) -> None:
        """Traces the pass for arguments of these shapes."""
        self._names()  # or the making of the module would be traced, too
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about its own parts
            graph = make_fx(self._plain)(*params, batch.inputs, batch.targets, batch.weights)
        self._traced[batch.shape] = tidied(graph, negative=batch.negative)

    def _trace_of(self, params: Arrays, batch: Batch) -> GraphModule | None:
        shape = batch.shape
        if shape not in self._traced:
            self._met[shape] += 1
            if self._met[shape] >= self.traced_at and len(self._traced) < MOST_TRACED:
                self.trace(params, batch)
        return self._traced.get(shape)

    def _moving_of(self, work: LocalSGD, params: Arrays, batch: Batch) -> GraphModule | None:
        """The traced pass with a step along its gradients in it."""
        key = (*batch.shape, work.client_lr, work.weight_decay)
        if key not in self._moving:
            self._moving[key] = descending(
                self._traced[batch.shape], len(params), work.client_lr, work.weight_decay
            )
        return self._moving[key]

    def _run(self, graph: GraphModule, params: Arrays, batch: Batch) -> tuple[torch.Tensor, ...]:
        """What a graph gives; the next pass may overwrite it."""
        key = (graph, params[0].data_ptr(), batch.inputs.data_ptr(), batch.shape)
        with torch.no_grad():
            if key not in self._tapes and len(self._tapes) < MOST_TRACED:
                self._tapes[key] = record(graph, params, batch.inputs, batch.targets, batch.weights)
            tape = self._tapes.get(key)
            if tape is not None and tape.on(params):
                return tape.play(batch.targets, batch.weights)
            found: tuple[torch.Tensor, ...] = graph(
                *params, batch.inputs, batch.targets, batch.weights
            )
        return found

    def _names(self) -> list[str]:
        return [tensor.name for tensor in self.model.schema.tensors]

    def _plain(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *params, inputs, targets, weights = arguments
        leaves = [array.detach().requires_grad_() for array in params]
        losses = self.model.stacked_losses(
            dict(zip(self._names(), leaves, strict=True)), inputs, targets, weights
        )
        slopes = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
        return losses.detach(), *slopes


def _move(
    work: LocalSGD,
    params: torch.Tensor,
    slope: torch.Tensor,
    received: torch.Tensor,
    velocity: torch.Tensor | None,
) -> None:
    """One step of each row in one array, along (k, *shape) slopes; see `LocalSGD.descend`."""
    if work.weight_decay:
        slope = slope.add(params, alpha=work.weight_decay)
    if work.proximal:
        slope = slope.add(params - received, alpha=work.proximal)
    if velocity is not None:
        velocity.mul_(work.momentum).add_(slope)
        slope = velocity
    params.add_(slope, alpha=-work.client_lr)
