"""Whether the clients of a job are trained in stacks, and how many in one: found out once.

| clients                                 | are stacked                                          |
|-----------------------------------------|------------------------------------------------------|
| of another task than a `TorchTask`      | no                                                   |
| whose work is not that of `LocalSGD`    | no                                                   |
| of a model that cannot be stacked       | no; trying it on random numbers shows the reason     |
| of any other                            | as many as take least time each, if less than alone  |
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hansa.core.contribute import RoundTask
from hansa.core.parts import Examples, Model, Split
from hansa.work.sgd import LocalSGD

SIZES = (1, 5, 25, 50)
"""Clients in one stack that are tried; a stack of one is a traced pass too."""

STACK_BYTES = 2**26
"""Most memory for the parameters of one stack."""

LONG_STEP = 0.005
"""Seconds of a client's step beyond which others in its stack have nothing to share with it."""


@dataclass(frozen=True, slots=True)
class Stacking:
    """How the clients of a job are trained.

    Attributes:
      size: clients in one stack; 0 = one client after the other.
      how: the same in words, with the reason.
      gain: how many times less a client takes in a stack than alone; 1 if that was not measured.
    """

    size: int
    how: str
    gain: float = 1.0


def decide(
    model: Model, task: RoundTask, examples: Examples, most: int, *, timed: bool = True
) -> Stacking:
    """Tries stacks on random numbers; takes about a second.

    Args:
      model: the mathematics of the task.
      task: a round of the job.
      examples: of any client; only their shapes and types are looked at.
      most: largest useful stack, such as the clients of a round for each process.
      timed: whether stacks must take less time; else they are used wherever they are possible.
    """
    work = task.plan.parts.algorithm.work
    if not isinstance(work, LocalSGD):
        return _alone(f"stacks are for LocalSGD, and their work is {type(work).__name__}")
    torch = sys.modules.get("hansa.work.torch")
    if torch is None or not isinstance(model, torch.TorchTask):
        return _alone(f"{type(model).__name__} is no TorchTask")
    from hansa.work.stacked import kind_of
    from hansa.work.stacked_gradient import StackedGradient
    from hansa.work.stacked_probe import seconds_alone, seconds_stacked, why_not

    gradient, kind = StackedGradient(model, traced_at=1), kind_of(examples)
    reason = why_not(gradient, task.params, kind)
    if reason is not None:
        return _alone(reason)
    sizes = sizes_for(len(task.params), most)
    if not timed:
        return Stacking(sizes[-1], _told(sizes[-1]))
    alone = seconds_alone(model, work, task.params, kind)
    size, best = _quickest(
        sizes, lambda size: seconds_stacked(gradient, work, task.params, kind, size)
    )
    if best >= alone:
        return _alone("a stack of this model takes longer")
    return Stacking(size, _told(size) + f", in 1/{alone / best:.2g} of the time", alone / best)


def sizes_for(parameters: int, most: int) -> tuple[int, ...]:
    """Stacks of a model with so many float32 parameters that are worth a try."""
    room = max(1, min(most, STACK_BYTES // (4 * max(1, parameters))))
    return tuple(size for size in SIZES if size <= room)


def pieces_of(clients: int, size: int, processes: int) -> int:
    """Size of the pieces that a cohort is cut into, each a stack, as many for each process."""
    turns = -(-clients // (processes * max(1, size)))
    return max(1, -(-clients // (processes * max(1, turns))))


def first_examples(
    cohort: Sequence[str], data: Callable[[str], Split], tried: int = 3
) -> Examples | None:
    """The examples of the first client that has some; None if the first ones have none."""
    for client in cohort[:tried]:
        try:
            train = data(client).train
        except Exception:  # noqa: BLE001, S112  the round itself drops the client and says why
            continue
        if len(train):
            return train
    return None


def _quickest(sizes: tuple[int, ...], seconds: Callable[[int], float]) -> tuple[int, float]:
    """The size whose clients take least time for a step, each; larger ones until one is slower."""
    size, best = sizes[0], seconds(sizes[0])
    for other in sizes[1:]:
        if best > LONG_STEP:
            break
        took = seconds(other)
        if took >= best:
            break
        size, best = other, took
    return size, best


def _alone(reason: str) -> Stacking:
    return Stacking(0, f"clients are trained one after the other, because {reason}")


def _told(size: int) -> str:
    if size == 1:
        return "each client is trained in a traced pass"
    return f"up to {size} clients are trained in one stack"
