"""Gradients of several clients at once: one pass over a stack of models.

    (k, d) parameters ─► views (k, *shape) ─► vmap over clients ─► (k, b) losses
    (k, b) weights: 1 / size of the batch, 0 where it is filled up ─► k losses ─► backwards, once

No client's loss follows from another's parameters, so the gradient of the sum of the k losses is
the k gradients. The pass is traced once for each shape into the plain operations that it consists
of (`make_fx`): what `torch.func` costs in each step, more than the arithmetic of a small model, is
paid once.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from hansa.work.torch import TorchTask

Gradients: TypeAlias = tuple[torch.Tensor, list[torch.Tensor]]
"""(k,) losses, and the (k, *shape) gradient in each array, in the schema's order."""

TRACED_AT = 10
"""How often a shape must be met before it is traced, which takes as long as many passes."""

MOST_TRACED = 64
"""Most shapes that are traced."""


@dataclass(slots=True)
class StackedGradient:
    """The gradient of a task's loss for a stack of clients.

    Attributes:
      model: the task.
    """

    model: TorchTask
    _met: Counter[tuple[int, ...]] = field(default_factory=Counter)
    _traced: dict[tuple[int, ...], GraphModule] = field(default_factory=dict)

    def __call__(
        self,
        params: Sequence[torch.Tensor],
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> Gradients:
        """Losses and gradients; the arguments are those of `TorchTask.stacked_losses`.

        Raises:
          Exception: whatever the module or the loss raises, as for one batch.
        """
        shape = (*inputs.shape, *targets.shape)
        self._met[shape] += 1
        if self._met[shape] == TRACED_AT and len(self._traced) < MOST_TRACED:
            self.trace(params, inputs, targets, weights)
        traced = self._traced.get(shape)
        if traced is not None:
            with torch.no_grad():
                losses, *slopes = traced(*params, inputs, targets, weights)
            return losses, slopes
        with warnings.catch_warnings():
            # An operation without a rule of its own is run for each client: slower, not wrong.
            warnings.filterwarnings("ignore", "There is a performance drop")
            losses, *slopes = self._plain(*params, inputs, targets, weights)
        return losses, slopes

    def trace(
        self,
        params: Sequence[torch.Tensor],
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> None:
        """Traces the pass for arguments of these shapes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about its own parts
            graph = make_fx(self._plain)(*params, inputs, targets, weights)
        self._traced[(*inputs.shape, *targets.shape)] = _tidied(graph)

    def _plain(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *params, inputs, targets, weights = arguments
        leaves = [array.detach().requires_grad_() for array in params]
        names = [tensor.name for tensor in self.model.schema.tensors]
        losses = self.model.stacked_losses(
            dict(zip(names, leaves, strict=True)), inputs, targets, weights
        )
        slopes = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
        return losses.detach(), *slopes


def _tidied(graph: GraphModule) -> GraphModule:
    """The same operations without those that do nothing, and with gradients as they are stored.

    Autograd gives a matrix product's gradient as (a^T b)^T. Its memory is in another order than
    the parameters', so that adding it would jump through memory; b^T a is the same numbers.
    """
    aten = torch.ops.aten
    nodes = graph.graph
    for node in list(nodes.nodes):
        if node.target is aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            nodes.erase_node(node)
    output = next(node for node in nodes.nodes if node.op == "output")
    for node in list(output.all_input_nodes):
        product = _transposed_product(node)
        if product is not None:
            with nodes.inserting_before(node):
                left, right = (
                    nodes.call_function(aten.transpose.int, (factor, 1, 2))
                    for factor in reversed(product.args)
                )
                other = nodes.call_function(aten.bmm.default, (left, right))
            node.replace_all_uses_with(other)
    nodes.eliminate_dead_code()
    graph.recompile()
    return graph


def _transposed_product(node: Node) -> Node | None:
    """The product of (k, n, m) matrices of which a node is the transpose, if it is that."""
    aten = torch.ops.aten
    if node.target is not aten.transpose.int or node.args[1:] not in {(1, 2), (2, 1)}:
        return None
    inner = node.args[0]
    while isinstance(inner, Node) and inner.target in {
        aten.view.default,
        aten._unsafe_view.default,  # noqa: SLF001  the name of an operation
    }:
        before = inner.args[0]
        if not isinstance(before, Node) or before.meta["val"].shape != inner.meta["val"].shape:
            return None
        inner = before
    return inner if isinstance(inner, Node) and inner.target is aten.bmm.default else None
