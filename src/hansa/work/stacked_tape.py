"""A traced pass that is played: its operations, bound to memory of their own.

To run a graph, Python goes through its nodes, makes views, and gets memory for every result: some
microseconds for each of fifty nodes, which is more than the arithmetic of a small model. All shapes
are known, so memory for each result can be set aside once, and views of it are made once. What is
left are the operations that compute, one call each. The numbers are the same, to the last bit.

| found in the graph                      | is played as                                       |
|-----------------------------------------|----------------------------------------------------|
| a view                                  | nothing: it was made once                          |
| zeros, ones                             | nothing: nobody writes to them                     |
| an operation                            | the same, into memory of its own                   |
| one that knows no such memory           | the same, and a copy of what it gives, if small    |
| a step in place                         | itself, on the parameters it was recorded for      |
| any other operation that writes, or draws | the graph cannot be played, and is run           |
| a large result of one that knows none   | the same                                           |
| results of more than `MOST_BYTES`       | the same: they would leave the processor's cache   |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import getitem
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from hansa.work.stacked_classes import PLAYED

_aten = torch.ops.aten

MOST_BYTES = 2**21
"""Most memory for the results of one pass."""

SMALL = 2**16
"""Most bytes that are copied after an operation that cannot be told where to write."""

Play: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """The operations of a pass over some parameters and the inputs in one place of memory.

    Attributes:
      operations: in order.
      targets: memory for those of a batch.
      weights: the same.
      results: what the pass gives; the next one overwrites them.
      params: what it moves, or reads.
      inputs: what it reads. While they are kept, nothing else can be in their memory.
    """

    operations: tuple[Play, ...] = field(repr=False)
    targets: torch.Tensor = field(repr=False)
    weights: torch.Tensor = field(repr=False)
    results: tuple[torch.Tensor, ...] = field(repr=False)
    params: tuple[torch.Tensor, ...] = field(repr=False)
    inputs: torch.Tensor = field(repr=False)

    def on(self, params: Sequence[torch.Tensor]) -> bool:
        """Whether it was recorded on the memory of these parameters."""
        return all(
            mine is theirs or mine.data_ptr() == theirs.data_ptr()
            for mine, theirs in zip(self.params, params, strict=True)
        )

    def play(self, targets: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One pass, with these targets and weights."""
        self.targets.copy_(targets)
        self.weights.copy_(weights)
        for operation in self.operations:
            operation()
        return self.results


def record(
    graph: GraphModule,
    params: Sequence[torch.Tensor],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
) -> Tape | None:
    """What plays a graph; nothing that it is given is written to before it is played.

    Args:
      graph: its arguments are the parameters, inputs, targets and weights.
      params: the memory of the parameters, as it is played with.
      inputs: the same of the inputs.
      targets: any of the right shape and range.
      weights: the same.

    Returns:
      None where the graph cannot be played.
    """
    own_targets, own_weights = targets.clone(), weights.clone()
    given = iter((*params, inputs, own_targets, own_weights))
    values: dict[Node, Any] = {}
    operations: list[Play] = []
    room, results = 0, ()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(given)
            continue
        args, kwargs = (map_arg(each, values.__getitem__) for each in (node.args, node.kwargs))
        if node.op == "output":
            results = args[0]
            continue
        bound = _bound(node, args, kwargs)
        if bound is None:
            return None
        values[node] = bound.result
        room += bound.bytes
        if bound.play is not None:
            operations.append(bound.play)
        if room > MOST_BYTES:
            return None
    return Tape(tuple(operations), own_targets, own_weights, tuple(results), tuple(params), inputs)


@dataclass(frozen=True, slots=True)
class _Bound:
    """What a node gives, in its memory; what computes it, if it must be computed; new memory."""

    result: Any
    play: Play | None = None
    bytes: int = 0


def _bound(node: Node, args: Any, kwargs: Any) -> _Bound | None:
    target: Any = node.target
    if target is getitem:
        return _Bound(args[0][args[1]])
    if target in PLAYED:
        play, results = PLAYED[target](*args)
        return _Bound(results, play, _bytes(results))
    if target in _STEPS and _given(node.args[0]):
        return _Bound(args[0], partial(_STEPS[target], *args, **kwargs))
    schema = getattr(target, "_schema", None)
    if schema is None or schema.is_mutable:
        return None
    if torch.Tag.nondeterministic_seeded in target.tags:
        return None  # it draws
    result = target(*args, **kwargs)
    if target in _CONSTANTS or (isinstance(result, torch.Tensor) and _shares(result, args)):
        return _Bound(result)
    into = _INTO.get(target)
    if into is not None:
        return _Bound(result, partial(into, *args, **kwargs, out=result), _bytes(result))
    size = _bytes(result)
    if size > SMALL:
        return None
    return _Bound(result, partial(_copied, target, args, kwargs, result), size)


def _given(node: Any) -> bool:
    """Whether it is an argument of the graph, such as a parameter that a step moves."""
    return isinstance(node, Node) and node.op == "placeholder"


def _copied(target: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
    """Computes once more, and copies what comes of it into the memory of the first time."""
    found = target(*args, **kwargs)
    for mine, other in zip(_tensors(result), _tensors(found), strict=True):
        mine.copy_(other)


def _tensors(result: Any) -> tuple[torch.Tensor, ...]:
    several = result if isinstance(result, (tuple, list)) else (result,)
    return tuple(each for each in several if isinstance(each, torch.Tensor))


def _bytes(result: Any) -> int:
    return sum(each.untyped_storage().nbytes() for each in _tensors(result))


def _shares(result: torch.Tensor, args: Any) -> bool:
    """Whether a result lies in the memory of an argument."""
    place = result.untyped_storage().data_ptr()
    return any(each.untyped_storage().data_ptr() == place for each in _tensors(list(args)))


def _relu(values: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    return torch.clamp_min(values, 0, out=out)  # which is what `relu` does


def _threshold(
    slope: torch.Tensor, values: torch.Tensor, bound: float, *, out: torch.Tensor
) -> Any:
    return _aten.threshold_backward.grad_input(slope, values, bound, grad_input=out)


_STEPS: Mapping[Any, Callable[..., torch.Tensor]] = {
    _aten.baddbmm_.default: torch.Tensor.baddbmm_,
    _aten.add_.Tensor: torch.Tensor.add_,
    _aten.mul_.Tensor: torch.Tensor.mul_,
}
_CONSTANTS = frozenset(
    {
        _aten.zeros_like.default,
        _aten.ones_like.default,
        _aten.full_like.default,
        _aten.new_zeros.default,
        _aten.new_ones.default,
        _aten.zeros.default,
        _aten.ones.default,
        _aten.full.default,
    }
)
_INTO: Mapping[Any, Callable[..., Any]] = {
    _aten.bmm.default: torch.bmm,
    _aten.add.Tensor: torch.add,
    _aten.sub.Tensor: torch.sub,
    _aten.mul.Tensor: torch.mul,
    _aten.div.Tensor: torch.div,
    _aten.neg.default: torch.neg,
    _aten.exp.default: torch.exp,
    _aten.log.default: torch.log,
    _aten.tanh.default: torch.tanh,
    _aten.sigmoid.default: torch.sigmoid,
    _aten.relu.default: _relu,
    _aten.threshold_backward.default: _threshold,
    _aten.sum.dim_IntList: torch.sum,
    _aten.gather.default: torch.gather,
}
"""Operations by what takes the memory for their result."""
