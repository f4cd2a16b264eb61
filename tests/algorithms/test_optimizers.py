"""Server optimizers against traces worked out by hand and against torch.optim."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from hansa.algorithms.optimizers.adagrad import ServerAdagrad
from hansa.algorithms.optimizers.adam import ServerAdam
from hansa.algorithms.optimizers.sgd import ServerSGD
from hansa.algorithms.optimizers.yogi import ServerYogi
from hansa.core.parts import ServerOptimizer
from hansa.core.vector import Vector
from hansa.errors import PlanError

ALL = (
    ServerSGD(server_lr=0.5),
    ServerSGD(server_lr=0.5, server_momentum=0.9),
    ServerAdagrad(server_lr=0.1, beta1=0.5),
    ServerAdam(server_lr=0.1),
    ServerYogi(server_lr=0.1),
)


def run(
    server: ServerOptimizer[Any], params: ArrayLike, steps: Iterable[ArrayLike]
) -> list[Vector]:
    """The parameters after each step."""
    state = server.init(np.asarray(params, np.float32))
    trace, after = [], np.asarray(params, np.float32)
    for step in steps:
        state, after = server.apply(state, after, np.array(step, np.float64))
        trace.append(after)
    return trace


# With w = 1, and D = 1, then D = -2, by hand from algorithm 2 of Reddi et al. (ICLR 2021), with
# server_lr = 1, beta1 = beta2 = 1/2, tau = 1 (so v starts at 1).
#
#   m: 1/2, then 1/2 * 1/2 - 1/2 * 2 = -3/4; with beta1 = 0: 1, then -2
#   Adagrad v: 1 + 1 = 2, then 2 + 4 = 6
#   Adam    v: (1 + 1) / 2 = 1, then (1 + 4) / 2 = 5/2
#   Yogi    v: 1 - 1/2 * sign(1 - 1) = 1, then 1 - 1/2 * 4 * sign(1 - 4) = 3
BY_HAND = [
    (
        ServerAdagrad(server_lr=1, beta1=0.5, tau=1),
        [1 + 0.5 / (2**0.5 + 1), 1 + 0.5 / (2**0.5 + 1) - 0.75 / (6**0.5 + 1)],
    ),
    (
        ServerAdagrad(server_lr=1, tau=1),
        [1 + 1 / (2**0.5 + 1), 1 + 1 / (2**0.5 + 1) - 2 / (6**0.5 + 1)],
    ),
    (
        ServerAdam(server_lr=1, beta1=0.5, beta2=0.5, tau=1),
        [1 + 0.25, 1 + 0.25 - 0.75 / (2.5**0.5 + 1)],
    ),
    (
        ServerYogi(server_lr=1, beta1=0.5, beta2=0.5, tau=1),
        [1 + 0.25, 1 + 0.25 - 0.75 / (3**0.5 + 1)],
    ),
    # v: 1, then 1/2 * 1 - 2 = -3/2; w: 1 + 1 = 2, then 2 - 3/2 = 1/2
    (ServerSGD(server_lr=1, server_momentum=0.5), [2.0, 0.5]),
    (ServerSGD(server_lr=0.25), [1.25, 0.75]),
    (ServerSGD(), [2.0, 0.0]),
]


@pytest.mark.parametrize(("server", "expected"), BY_HAND, ids=lambda value: repr(value)[:40])
def test_two_steps_by_hand(server, expected):
    trace = run(server, [1.0], [[1.0], [-2.0]])
    np.testing.assert_allclose(np.concatenate(trace), expected, rtol=1e-6)


def test_yogi_shrinks_its_second_moment_when_steps_shrink():
    """From v = 1 and D = 1/2: 1 - 1/2 * 1/4 * sign(1 - 1/4) = 7/8."""
    trace = run(ServerYogi(server_lr=1, beta1=0.0, beta2=0.5, tau=1), [0.0], [[0.5]])
    np.testing.assert_allclose(trace[0], 0.5 / ((7 / 8) ** 0.5 + 1), rtol=1e-6)


STEPS = np.random.default_rng(5).normal(size=(6, 4))


def torch_trace(make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]) -> list[Vector]:
    """torch.optim on the gradients -D, which descends where the server ascends."""
    params = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64))
    optimizer = make([params])
    trace = []
    for step in STEPS:
        params.grad = torch.tensor(-step)
        optimizer.step()
        trace.append(params.detach().numpy().copy())
    return trace


@pytest.mark.parametrize(
    ("server", "make"),
    [
        (ServerSGD(server_lr=0.3), lambda p: torch.optim.SGD(p, lr=0.3)),
        (
            ServerSGD(server_lr=0.3, server_momentum=0.9),
            lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9),
        ),
        (
            ServerAdagrad(server_lr=0.3, tau=0.1),
            lambda p: torch.optim.Adagrad(p, lr=0.3, initial_accumulator_value=0.01, eps=0.1),
        ),
    ],
    ids=("sgd", "momentum", "adagrad"),
)
def test_agrees_with_torch_where_they_coincide(server, make):
    ours = run(server, [0.5, -1.0, 2.0, 0.0], STEPS)
    np.testing.assert_allclose(ours, torch_trace(make), rtol=1e-5, atol=1e-6)


def test_adam_agrees_with_torch_once_the_bias_correction_is_undone():
    """PyTorch divides m by 1 - beta1^t and v by 1 - beta2^t, and starts v at 0.

    A v that starts at tau^2 adds beta2^t tau^2 to it; with a tau this small that is far below v.
    """
    lr, beta1, beta2, tau = 0.3, 0.9, 0.99, 1e-12
    params = np.array([0.5, -1.0, 2.0, 0.0])
    torch_params = torch.nn.Parameter(torch.tensor(params))
    optimizer = torch.optim.Adam([torch_params], lr=1.0, betas=(beta1, beta2), eps=0.0)
    expected = []
    for t, step in enumerate(STEPS, start=1):
        optimizer.param_groups[0]["lr"] = lr * (1 - beta1**t) / (1 - beta2**t) ** 0.5
        torch_params.grad = torch.tensor(-step)
        optimizer.step()
        expected.append(torch_params.detach().numpy().copy())
    ours = run(ServerAdam(server_lr=lr, beta1=beta1, beta2=beta2, tau=tau), params, STEPS)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("server", ALL, ids=repr)
def test_state_and_parameters_go_in_unharmed_and_come_out_new(server):
    size = 140_000  # more than two pieces of blocks()
    params = np.linspace(-1, 1, size).astype(np.float32)
    state = server.init(params)
    for vector in (params, *state):
        vector.flags.writeable = False
    after_state, after = server.apply(state, params, np.full(size, 0.5))
    assert isinstance(after_state, tuple)
    assert len(after_state) == len(state)
    for vector in (after, *after_state):
        assert vector.dtype == np.float32
        assert vector.shape == (size,)
        assert np.isfinite(vector).all()
    assert (after > params).all()  # each coordinate follows its delta
    np.testing.assert_array_equal(params, np.linspace(-1, 1, size).astype(np.float32))


@pytest.mark.parametrize("server", ALL, ids=repr)
def test_a_step_needs_no_further_model_in_memory(server):
    """Beside what it returns, a step holds less than one float32 copy of the model."""
    size = 2_000_000
    params, step = np.zeros(size, np.float32), np.ones(size)
    state = server.init(params)
    tracemalloc.start()
    try:
        kept = server.apply(state, params, step)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept[1]) == size
    assert peak - left < 4 * size
    assert left < (len(state) + 1) * 4 * size + 100_000


@pytest.mark.parametrize("server", ALL, ids=repr)
def test_pieces_do_not_change_the_numbers(server):
    """What happens to one coordinate does not depend on its place in the vector."""
    size, rng = 140_000, np.random.default_rng(3)
    params, steps = rng.normal(size=size).astype(np.float32), rng.normal(size=(3, size))
    whole = run(server, params, steps)[-1]
    for at in (0, 65_535, 65_536, size - 1):
        alone = run(server, params[at : at + 1], steps[:, at : at + 1])[-1]
        np.testing.assert_array_equal(whole[at : at + 1], alone)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: ServerSGD(server_lr=0), "algorithm.server_lr"),
        (lambda: ServerSGD(server_momentum=1), "algorithm.server_momentum"),
        (lambda: ServerAdagrad(server_lr=1, tau=0), "algorithm.tau"),
        (lambda: ServerAdagrad(server_lr=1, beta1=1), "algorithm.beta1"),
        (lambda: ServerAdam(server_lr=-1), "algorithm.server_lr"),
        (lambda: ServerAdam(server_lr=1, beta2=1), "algorithm.beta2"),
        (lambda: ServerYogi(server_lr=1, beta2=-0.1), "algorithm.beta2"),
    ],
)
def test_impossible_numbers_are_refused(make, part):
    with pytest.raises(PlanError) as refusal:
        make()
    assert refusal.value.part == part
