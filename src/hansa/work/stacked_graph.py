"""A traced pass made shorter: the same numbers from fewer operations, and steps in place.

| found in the graph                             | becomes                                    |
|------------------------------------------------|--------------------------------------------|
| a view, a copy of nothing, a product with 1    | what it is made of                         |
| a sum along an axis of length one              | a view                                     |
| the same operation on the same things          | one of them                                |
| a gradient (a^T b)^T of a matrix product       | b^T a, whose memory is that of parameters  |
| a step along such a product                    | one `baddbmm_`: no gradient is written     |
| a pool over images of many channels            | the same, where channels come last         |
| cross-entropy                                  | a shorter one (`hansa.work.stacked_classes`) |
| an operation that writes to what it is given   | the graph is left as it is                 |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node

from hansa.work.stacked_classes import (
    kind_of,
    shape_of,
    with_narrow_products,
    with_short_losses,
    without_ignored_class,
)

_aten = torch.ops.aten
_VIEWS = {
    _aten.view.default,
    _aten._unsafe_view.default,  # noqa: SLF001  the name of an operation
    _aten.expand.default,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.unsqueeze.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
    _aten.slice.Tensor,
    _aten.select.int,
    _aten.alias.default,
    _aten.detach.default,
}
_CHANNELS = 8
"""Fewest channels that are worth the copies."""

_SAME_IF_SHAPED_ALIKE = {
    _aten.view.default,
    _aten._unsafe_view.default,  # noqa: SLF001  the name of an operation
    _aten.expand.default,
}


def tidied(graph: GraphModule, *, negative: bool = True) -> GraphModule:
    """The same pass without operations that do nothing.

    Args:
      graph: its last arguments are inputs, targets and weights; its outputs are losses and
        gradients.
      negative: whether targets may be below zero.
    """
    if _writes(graph):
        return graph
    if not negative:
        without_ignored_class(graph, list(graph.graph.find_nodes(op="placeholder"))[-2])
    _products_as_stored(graph)
    _sums_of_one(graph)
    _without(graph, _same)
    _merged(graph)
    with_short_losses(graph)
    _pools_by_channel(graph)
    with_narrow_products(graph)
    return _finished(graph)


def descending(graph: GraphModule, parameters: int, lr: float, decay: float) -> GraphModule | None:
    """A pass that moves the parameters along their gradients, and gives the losses only.

    Args:
      graph: of `tidied`; its first arguments are the parameters. It is left as it is.
      parameters: how many there are.
      lr: the learning rate.
      decay: pull towards zero, as part of the gradient.

    Returns:
      None if the graph writes to what it is given, so that no order is safe but its own.
    """
    if _writes(graph):
        return None
    graph = GraphModule(graph, _copy_of(graph))
    nodes = graph.graph
    output = _output(graph)
    places = [node for node in nodes.nodes if node.op == "placeholder"][:parameters]
    losses, *slopes = cast("tuple[Node, ...]", output.args[0])
    with nodes.inserting_before(output):
        # What is read while others are moved already must not be their memory.
        steps = [_step(graph, slope, set(places)) for slope in slopes]
        for place, (target, factors) in zip(places, steps, strict=True):
            if target is _aten.baddbmm_.default:
                nodes.call_function(
                    target, (place, *factors), {"beta": 1 - lr * decay, "alpha": -lr}
                )
                continue
            if decay:
                nodes.call_function(_aten.mul_.Tensor, (place, 1 - lr * decay))
            nodes.call_function(target, (place, *factors), {"alpha": -lr})
    output.args = ((losses,),)
    for slope in dict.fromkeys(slopes):  # large ones that nobody reads any more
        if not slope.users and slope.op != "placeholder":
            nodes.erase_node(slope)
    graph.recompile()
    return graph


def _step(
    graph: GraphModule, slope: Node, places: set[Node]
) -> tuple[Callable[..., Any], tuple[Node, ...]]:
    """The operation of a step, and what it needs beside the parameters."""
    if slope.target is _aten.bmm.default:
        factors: tuple[Any, ...] = slope.args
        if not any(_root(factor) in places for factor in factors):
            return _aten.baddbmm_.default, factors
    if _root(slope) in places:
        slope = graph.graph.call_function(_aten.clone.default, (slope,))
    return _aten.add_.Tensor, (slope,)


def _root(node: Node) -> Node:
    """What a node is a view of."""
    while node.target in _VIEWS and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def _writes(graph: GraphModule) -> bool:
    """Whether an operation writes to memory that it is given."""
    schemas = (getattr(node.target, "_schema", None) for node in graph.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _same(node: Node) -> Node | None:
    """What a node is the same as, if it is that."""
    first = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    if first is None:
        return None
    if node.target is _aten.detach.default:
        return first
    if node.target in _SAME_IF_SHAPED_ALIKE and shape_of(node) == shape_of(first) is not None:
        return first
    if node.target is _aten.permute.default:
        axes = cast("list[int]", node.args[1])
        if axes == sorted(axes) and min(axes) == 0:
            return first
    if node.target is _aten.mul.Scalar and node.args[1] == 1 and kind_of(node) == kind_of(first):
        return first
    if node.target is _aten.transpose.int and first.target is _aten.transpose.int:
        inner, *swapped = first.args
        if isinstance(inner, Node) and set(swapped) == set(node.args[1:]):
            return inner
    if node.target is _aten.mul.Tensor:
        for one, other in (node.args, node.args[::-1]):
            if (
                isinstance(one, Node)
                and isinstance(other, Node)
                and _root(one).target is _aten.ones_like.default
                and kind_of(node) == kind_of(other) is not None
            ):
                return other
    return None


def _without(graph: GraphModule, same: Callable[[Node], Node | None]) -> None:
    for node in list(graph.graph.nodes):
        other = same(node) if node.op == "call_function" else None
        if other is not None:
            node.replace_all_uses_with(other)
            graph.graph.erase_node(node)


def _merged(graph: GraphModule) -> None:
    """Makes one of operations that are the same."""
    known: dict[str, Node] = {}
    for node in list(graph.graph.nodes):
        tags = getattr(node.target, "tags", ())
        if node.op != "call_function" or torch.Tag.nondeterministic_seeded in tags:
            continue
        text = f"{node.target} {node.args!r} {node.kwargs!r}"  # nodes have names of their own
        first = known.setdefault(text, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.graph.erase_node(node)


def _sums_of_one(graph: GraphModule) -> None:
    """A sum along axes of length one is a view."""
    nodes = graph.graph
    for node in nodes.find_nodes(op="call_function", target=_aten.sum.dim_IntList):
        values, axes, *keep = node.args
        summed, kind = kind_of(node), kind_of(values)
        if summed is None or kind is None or not axes or node.kwargs:
            continue
        if summed[1] != kind[1] or any(kind[0][axis] != 1 for axis in axes):
            continue
        if keep and keep[0]:
            node.replace_all_uses_with(values)
            nodes.erase_node(node)
        else:
            node.target, node.args = _aten.squeeze.dims, (values, axes)


def _products_as_stored(graph: GraphModule) -> None:
    """Gradients in the memory order of the parameters.

    Autograd gives a matrix product's gradient as (a^T b)^T. Its memory is in another order than
    the parameters', so that adding it would jump through memory; b^T a is the same numbers.
    """
    nodes = graph.graph
    for node in list(_output(graph).all_input_nodes):
        product = _transposed_product(node)
        if product is not None:
            with nodes.inserting_before(node):
                left, right = (
                    nodes.call_function(_aten.transpose.int, (factor, 1, 2))
                    for factor in reversed(product.args)
                )
                other = nodes.call_function(_aten.bmm.default, (left, right))
            node.replace_all_uses_with(other)


def _pools_by_channel(graph: GraphModule) -> None:
    """Largest values are found for many channels at once where these are next to each other."""
    nodes = graph.graph
    for node in nodes.find_nodes(op="call_function", target=_aten.max_pool2d_with_indices.default):
        images = node.args[0]
        shape = shape_of(images) or ()
        if len(shape) != 4 or shape[1] < _CHANNELS:
            continue
        with nodes.inserting_before(node):
            last: dict[str, Any] = {"memory_format": torch.channels_last}
            node.update_arg(0, nodes.call_function(_aten.clone.default, (images,), last))
        for found in list(node.users):  # the values and their places, as others expect them
            with nodes.inserting_after(found):
                usual: dict[str, Any] = {"memory_format": torch.contiguous_format}
                copy = nodes.call_function(_aten.clone.default, (found,), usual)
            found.replace_all_uses_with(
                copy, delete_user_cb=lambda user, copy=copy: user is not copy
            )


def _transposed_product(node: Node) -> Node | None:
    """The product of (k, n, m) matrices of which a node is the transpose, if it is that."""
    if node.target is not _aten.transpose.int or node.args[1:] not in {(1, 2), (2, 1)}:
        return None
    inner = node.args[0]
    while isinstance(inner, Node) and inner.target in _SAME_IF_SHAPED_ALIKE:
        before = inner.args[0]
        if not isinstance(before, Node) or shape_of(before) != shape_of(inner):
            return None
        inner = before
    return inner if isinstance(inner, Node) and inner.target is _aten.bmm.default else None


def _output(graph: GraphModule) -> Node:
    output: Node = next(iter(graph.graph.find_nodes(op="output")))
    return output


def _copy_of(graph: GraphModule) -> torch.fx.Graph:
    copy = torch.fx.Graph()
    copy.output(copy.graph_copy(graph.graph, {}))
    return copy


def _finished(graph: GraphModule) -> GraphModule:
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
