"""Cross-entropy in a traced pass, from fewer operations.

PyTorch traces it with a class to be ignored, and in parts that are slow for ten classes:

| found in the graph                                | becomes                                  |
|---------------------------------------------------|------------------------------------------|
| a choice where a class is not the ignored one     | what is chosen: no class is negative     |
| a division by the number of examples of one       | what is divided                          |
| one of the `log_softmax` of each row              | `class_losses`, which keeps the softmax  |
| the gradient of that                              | `class_slopes` of what was kept          |
| a product with few columns                        | the same by NumPy, sooner for these      |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

_aten = torch.ops.aten

NARROW = 16
"""Most columns of a product that is left to NumPy."""


def class_losses(outputs: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logarithms of some probabilities, and all probabilities.

    Args:
      outputs: (..., c) logits.
      at: (..., 1) positions in the last axis.

    Returns:
      (..., 1) and (..., c).
    """
    shifted = outputs - outputs.amax(-1, keepdim=True)
    picked = shifted.gather(-1, at)
    grown = shifted.exp_()
    total = grown.sum(-1, keepdim=True)
    return picked.sub_(total.log()), grown.div_(total)


def class_slopes(
    probabilities: torch.Tensor, at: torch.Tensor, slope: torch.Tensor
) -> torch.Tensor:
    """The gradient in the logits; the probabilities of `class_losses` are consumed.

    Args:
      probabilities: (..., c).
      at: (..., 1) positions.
      slope: (..., 1) gradient in the first result of `class_losses`.
    """
    return probabilities.mul_(-slope).scatter_add_(-1, at, slope)


def narrow_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The (k, n, m) products of (k, n, i) and (k, i, m) matrices."""
    return torch.from_numpy(np.matmul(left.numpy(), right.numpy()))


def losses_played(
    outputs: torch.Tensor, at: torch.Tensor
) -> tuple[Callable[[], object], tuple[torch.Tensor, torch.Tensor]]:
    """What does `class_losses` again and again, and its results."""
    largest, grown = outputs.amax(-1, keepdim=True), torch.empty_like(outputs)
    total, log = torch.empty_like(largest), torch.empty_like(largest)
    picked = torch.empty(at.shape, dtype=outputs.dtype)

    def play() -> None:
        torch.amax(outputs, -1, keepdim=True, out=largest)
        torch.sub(outputs, largest, out=grown)
        torch.gather(grown, -1, at, out=picked)
        grown.exp_()
        torch.sum(grown, -1, keepdim=True, out=total)
        torch.log(total, out=log)
        picked.sub_(log)
        grown.div_(total)

    return play, (picked, grown)


def slopes_played(
    probabilities: torch.Tensor, at: torch.Tensor, slope: torch.Tensor
) -> tuple[Callable[[], object], torch.Tensor]:
    """What does `class_slopes` again and again, and its result."""
    opposite = torch.empty_like(slope)

    def play() -> None:
        torch.neg(slope, out=opposite)
        probabilities.mul_(opposite).scatter_add_(-1, at, slope)

    return play, probabilities


def product_played(
    left: torch.Tensor, right: torch.Tensor
) -> tuple[Callable[[], object], torch.Tensor]:
    """What does `narrow_product` again and again, and its result."""
    result = torch.empty((*left.shape[:-1], right.shape[-1]))
    return partial(np.matmul, left.numpy(), right.numpy(), out=result.numpy()), result


PLAYED: Mapping[Any, Callable[..., tuple[Callable[[], object], Any]]] = {
    class_losses: losses_played,
    class_slopes: slopes_played,
    narrow_product: product_played,
}
"""The operations of this module by what plays them on memory of their own."""


def without_ignored_class(graph: GraphModule, targets: Node) -> None:
    """Takes out what would ignore a class; right where no target is negative.

    Args:
      graph: of a pass.
      targets: where the classes come in.
    """
    always: set[Node] = set()  # true, everywhere
    one: set[Node] = set()  # 1, everywhere
    for node in list(graph.graph.nodes):
        first = node.args[0] if node.args and isinstance(node.args[0], Node) else None
        if first is None:
            continue
        if node.target is _aten.ne.Scalar:
            if _origin(first) is targets and node.args[1] < 0:
                always.add(node)
        elif node.target is _aten.sum.dim_IntList:
            if first in always and _size(first) == _size(node):
                one.add(node)
        elif node.target is _aten._to_copy.default and first in one:  # noqa: SLF001  its name
            one.add(node)
        elif node.target is _aten.where.self and _origin(first) in always:
            _become(graph, node, node.args[1])
        elif node.target is _aten.div.Tensor and node.args[1] in one:
            _become(graph, node, first)


def with_short_losses(graph: GraphModule) -> None:
    """Puts `class_losses` and `class_slopes` where the probability of one class is asked for."""
    nodes = graph.graph
    for softmax in nodes.find_nodes(
        op="call_function",
        target=_aten._log_softmax.default,  # noqa: SLF001  its name
    ):
        found = _uses(softmax)
        if found is None:
            continue
        picked, back, slope = found
        at = picked.args[2]
        with nodes.inserting_before(picked):
            both = nodes.call_function(class_losses, (softmax.args[0], at))
            losses = nodes.call_function(getitem, (both, 0))
            probabilities = nodes.call_function(getitem, (both, 1))
        with nodes.inserting_before(back):
            slopes = nodes.call_function(class_slopes, (probabilities, at, slope))
        for old, new in ((picked, losses), (back, slopes)):
            new.meta = dict(old.meta)
            old.replace_all_uses_with(new)


def with_narrow_products(graph: GraphModule) -> None:
    """Leaves products with few columns to NumPy, but for those that the pass gives."""
    nodes = graph.graph
    (output,) = nodes.find_nodes(op="output")
    for node in nodes.find_nodes(op="call_function", target=_aten.bmm.default):
        shape = shape_of(node)
        if shape is not None and shape[-1] <= NARROW and output not in node.users:
            node.target = narrow_product


def _uses(softmax: Node) -> tuple[Node, Node, Node] | None:
    """The choice from a `log_softmax` over the last axis, its gradient, and the choice's own."""
    shape = shape_of(softmax)
    users = list(softmax.users)
    picks = [node for node in users if node.target is _aten.gather.default]
    backs = [
        node
        for node in users
        if node.target is _aten._log_softmax_backward_data.default  # noqa: SLF001  its name
    ]
    if shape is None or len(users) != 2 or not picks or not backs:
        return None
    (picked,), (back,) = picks, backs
    spread = back.args[0]
    last = (-1, len(shape) - 1)
    if (
        not isinstance(spread, Node)
        or spread.target is not _aten.scatter_add.default
        or any(axis not in last for axis in (softmax.args[1], picked.args[1], spread.args[1]))
        or shape_of(picked) != (*shape[:-1], 1)
        or not _is_zero(spread.args[0])
        or spread.args[2] is not picked.args[2]
        or not isinstance(spread.args[3], Node)
        or shape_of(spread.args[3]) != (*shape[:-1], 1)
    ):
        return None
    return picked, back, spread.args[3]


def _is_zero(node: Any) -> bool:
    return isinstance(node, Node) and node.target in {
        _aten.new_zeros.default,
        _aten.zeros.default,
        _aten.zeros_like.default,
    }


def _origin(node: Node) -> Node:
    """What a node is a reshaped view of."""
    while node.target in {
        _aten.view.default,
        _aten._unsafe_view.default,  # noqa: SLF001  the name of an operation
        _aten.unsqueeze.default,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
    }:
        before = node.args[0]
        assert isinstance(before, Node)  # noqa: S101  the first argument of each of these
        node = before
    return node


def _become(graph: GraphModule, node: Node, other: Any) -> None:
    """Replaces a node by another of the same shape and type."""
    if isinstance(other, Node) and kind_of(node) == kind_of(other) is not None:
        node.replace_all_uses_with(other)
        graph.graph.erase_node(node)


def kind_of(node: Node) -> tuple[tuple[int, ...], torch.dtype] | None:
    """Shape and type of what a node gives; None if it is no tensor."""
    value = node.meta.get("val")
    return (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else None


def shape_of(node: Node) -> tuple[int, ...] | None:
    """Shape of what a node gives; None if it is no tensor."""
    kind = kind_of(node)
    return None if kind is None else kind[0]


def _size(node: Node) -> int:
    value = node.meta.get("val")
    return int(value.numel()) if isinstance(value, torch.Tensor) else -1
