"""Whether a task's clients can be stacked, and whether that is sooner: tried on random numbers.

No client's data is looked at, only the shape and the type of an example, so the answer is the same
for all clients of a job.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from hansa.core.keys import ReplayKey
from hansa.core.parts import Context, Examples
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.work.sgd import LocalSGD
from hansa.work.stacked import Client, Kind, train_stack
from hansa.work.stacked_gradient import StackedGradient
from hansa.work.torch import TorchTask

TOLERANCE = 1e-4
"""How far the gradients of both ways may be apart, by their norm: rounding is far below it."""

_REPEATS = 5
_STEPS = 3
_RANDOM = 0.05


def why_not(gradient: StackedGradient, params: Vector, kind: Kind) -> str | None:
    """Why the clients of a task cannot be stacked, in words; None if they can.

    Two clients are trained both ways for one step, with batches of 5 and of 3 random examples, on
    parameters near `params`. What would make the ways differ is found by that: a module that draws,
    that mixes examples, or that `torch.func.vmap` cannot run, and a loss that is no mean.

    Args:
      gradient: of the task's loss.
      params: (d,) float32 parameters; they may be all zero.
      kind: of the examples.
    """
    model = gradient.model
    name = type(model).__name__
    if type(model).gradient is not TorchTask.gradient:
        return f"{name} computes gradients in its own way"
    rng = np.random.default_rng(0)
    near = params + np.float32(_RANDOM) * rng.standard_normal(len(params), np.float32)
    try:
        both = [_random(model, near, kind, rng, size) for size in (5, 3)]
        next(iter(model.per_example(near, both[0])), None)
        work = LocalSGD(client_lr=1.0)
        clients = [(_context(model, examples), examples) for examples in both]
        deltas = np.empty((len(clients), len(params)), np.float32)
        stacked = deltas, train_stack(gradient, work, near, clients, deltas)
        plain = [_alone(work, near, client) for client in clients]
    except HansaError as error:
        return error.message
    except Exception as error:  # noqa: BLE001  modules fail in their own ways; one by one works
        words = " ".join(str(error).split()) or type(error).__name__
        if "randomness" in words:
            return f"{name} draws random numbers while it trains, as dropout does"
        return f"torch.func.vmap cannot run {name}: {words[:200]}"
    for ours, our_loss, (theirs, their_loss) in zip(*stacked, plain, strict=True):
        apart = float(np.linalg.norm(ours - theirs))
        if not (
            apart <= TOLERANCE * float(np.linalg.norm(theirs)) + 1e-7
            and abs(our_loss - their_loss) <= TOLERANCE * abs(their_loss) + 1e-7
        ):
            return (
                f"{name} gives another gradient for a batch than the mean of its examples': its "
                "loss is no mean of theirs, or its module mixes them"
            )
    return None


def seconds_alone(model: TorchTask, work: LocalSGD, params: Vector, kind: Kind) -> float:
    """What a step of one client takes in the plain way."""
    step = _step_of(work)
    client = _clients(model, params, kind, step.batch_size, 1)[0]
    _alone(step, params, client)
    return _quickest(lambda: _alone(step, params, client))


def seconds_stacked(
    gradient: StackedGradient, work: LocalSGD, params: Vector, kind: Kind, clients: int
) -> float:
    """What a step of one client takes in a stack of so many."""
    step = _step_of(work)
    some = _clients(gradient.model, params, kind, step.batch_size, clients)
    deltas = np.empty((clients, len(params)), np.float32)
    train_stack(gradient, step, params, some, deltas)  # the pass is traced
    return _quickest(lambda: train_stack(gradient, step, params, some, deltas)) / clients


def _step_of(work: LocalSGD) -> LocalSGD:
    """Some steps of the work, each with a whole batch; all examples of a client stand for 32."""
    return replace(
        work, local_epochs=0, local_steps=_STEPS, batch_size=min(work.batch_size or 32, 256)
    )


def _quickest(run: Callable[[], object]) -> float:
    """Seconds of one step, the least of several tries.

    Of the processor, for this thread: what others do with the machine would decide otherwise.
    """
    took = []
    for _ in range(_REPEATS):
        start = time.thread_time()
        run()
        took.append(time.thread_time() - start)
    return min(took) / _STEPS


def _clients(model: TorchTask, params: Vector, kind: Kind, size: int, number: int) -> list[Client]:
    rng = np.random.default_rng(0)
    some = [_random(model, params, kind, rng, size) for _ in range(number)]
    return [(_context(model, examples), examples) for examples in some]


def _alone(work: LocalSGD, params: Vector, client: Client) -> tuple[Vector, float]:
    """The plain way: one batch after the other."""
    ctx, examples = client
    state = work.init(params, ctx)
    for positions in work.batches(len(examples), ctx):
        state = work.step(state, examples.take(positions), ctx)
    return work.finish(params, state)


def _context(model: TorchTask, examples: Examples) -> Context:
    return Context("", 0, ReplayKey.of_seed(0), model, examples=len(examples))


def _random(
    model: TorchTask, params: Vector, kind: Kind, rng: np.random.Generator, size: int
) -> Examples:
    """Random examples: normal inputs, or zeros and ones; any class that the outputs have.

    Where it cannot be seen which classes there are, they are 0 and 1.
    """
    shape, dtype, target = kind
    if np.issubdtype(np.dtype(dtype), np.floating):
        inputs = rng.standard_normal((size, *shape)).astype(dtype)
    else:
        inputs = rng.integers(0, 2, (size, *shape)).astype(dtype)
    with torch.no_grad():
        blank = Examples(inputs, np.zeros((size, *target), np.int64))
        outputs = model.predict(params, blank).probabilities
    classes = outputs.shape[-1] if outputs.ndim == 2 else 2
    return Examples(inputs, rng.integers(0, max(2, classes), (size, *target)))
