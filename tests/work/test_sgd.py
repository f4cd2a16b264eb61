"""LocalSGD against PyTorch's SGD, and FullGradient against the gradient itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core.keys import ReplayKey
from hansa.core.metrics import Metric, Outputs
from hansa.core.parts import ClientWork, Context, Examples, Model
from hansa.core.vector import Schema, Tensor, Vector
from hansa.errors import PlanError
from hansa.work.sgd import PIECE, FullGradient, GradientState, LocalSGD, SGDState


class Line:
    """Least squares: mean of (inputs @ params - targets)^2 / 2, with its gradient by hand."""

    metrics: tuple[Metric, ...] = ()

    def __init__(self, size: int = 3) -> None:
        self.schema = Schema((Tensor("slope", (size,)),))

    def initial(self, seed: int) -> Vector:
        return np.zeros(self.schema.size, np.float32)

    def gradient(self, params: Vector, batch: Examples) -> tuple[float, Vector]:
        error = batch.inputs @ params - batch.targets
        gradient = (error @ batch.inputs / len(batch)).astype(np.float32)
        gradient.flags.writeable = False  # nobody may scribble on a model's own memory
        return float((error**2).mean() / 2), gradient

    def predict(self, params: Vector, examples: Examples) -> Outputs:
        none = np.zeros(0)
        return Outputs(none, none, none)


def context(seed: int = 0, client: str = "kiel", model: Model | None = None) -> Context:
    key = ReplayKey.of_seed(seed).derive("client", client)
    return Context(client, 0, key, model or Line())


def examples(n: int = 20, size: int = 3, seed: int = 1) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(n, size)).astype(np.float32), rng.integers(0, 2, n))


def run(
    work: ClientWork[Any], shared: Vector, data: Examples, ctx: Context
) -> tuple[Vector, float]:
    state = work.init(shared, ctx)
    for index in work.batches(len(data), ctx):
        state = work.step(state, data.take(index), ctx)
    return work.finish(shared, state)


def torch_delta(
    work: LocalSGD, shared: Vector, data: Examples, ctx: Context
) -> tuple[Vector, float]:
    """The same steps by torch.optim.SGD; FedProx's term is added to the loss, as in its paper."""
    start = torch.tensor(shared)
    params = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.SGD(
        [params], lr=work.client_lr, momentum=work.momentum, weight_decay=work.weight_decay
    )
    losses = 0.0
    seen = 0
    for index in work.batches(len(data), ctx):
        inputs = torch.tensor(data.inputs[index])
        targets = torch.tensor(data.targets[index])
        optimizer.zero_grad()
        loss = ((inputs @ params - targets) ** 2).mean() / 2
        torch.autograd.backward(loss + work.proximal / 2 * ((params - start) ** 2).sum())
        optimizer.step()
        losses += loss.item() * len(index)
        seen += len(index)
    return (params.detach() - start).numpy(), losses / seen


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"local_epochs": 4, "momentum": 0.9},
        {"local_epochs": 4, "weight_decay": 0.1},
        {"local_epochs": 4, "momentum": 0.5, "weight_decay": 0.3},
        {"local_epochs": 4, "proximal": 0.7},
        {"local_epochs": 4, "momentum": 0.9, "weight_decay": 0.1, "proximal": 0.7},
        {"local_epochs": 3, "batch_size": 6, "momentum": 0.9},
        {"local_steps": 11, "batch_size": 6, "momentum": 0.9, "proximal": 0.2},
    ],
    ids=str,
)
def test_a_client_steps_as_torch_does(options):
    work = LocalSGD(client_lr=0.1, **options)
    shared = np.array([0.5, -1.0, 2.0], np.float32)
    delta, loss = run(work, shared, examples(), context())
    expected, expected_loss = torch_delta(work, shared, examples(), context())
    np.testing.assert_allclose(delta, expected, atol=2e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert delta.dtype == np.float32


def test_a_long_vector_is_stepped_in_every_piece():
    size = 150_000  # more than two pieces of blocks()
    data = examples(n=4, size=size)
    work = LocalSGD(client_lr=0.1, local_epochs=2, momentum=0.9, weight_decay=0.1, proximal=0.3)
    shared = np.linspace(-1, 1, size).astype(np.float32) / size
    model = Line(size)
    delta, _ = run(work, shared, data, context(model=model))
    expected, _ = torch_delta(work, shared, data, context(model=model))
    np.testing.assert_allclose(delta, expected, atol=1e-3 * np.abs(expected).max())
    assert np.abs(delta[[0, 65_536, -1]]).min() > 0


def test_proximal_pulls_back_to_what_was_received():
    free, held = (
        run(LocalSGD(client_lr=0.1, local_epochs=50, proximal=mu), np.zeros(3, np.float32),
            examples(), context())[0]
        for mu in (0.0, 5.0)
    )  # fmt: skip
    assert np.linalg.norm(held) < np.linalg.norm(free)


def test_shared_parameters_are_not_written_to():
    shared = np.ones(3, np.float32)
    shared.flags.writeable = False
    for work in (LocalSGD(client_lr=0.1, momentum=0.9, proximal=1.0), FullGradient()):
        run(work, shared, examples(), context())
    np.testing.assert_array_equal(shared, np.ones(3))


# ------------------------------------------------------------------ which batches


@settings(derandomize=True, deadline=None, max_examples=60)
@given(n=st.integers(1, 40), size=st.integers(0, 50), epochs=st.integers(1, 4))
def test_each_pass_uses_every_example_once(n, size, epochs):
    work = LocalSGD(client_lr=1.0, local_epochs=epochs, batch_size=size)
    batches = list(work.batches(n, context()))
    per_pass = -(-n // min(size or n, n))
    assert len(batches) == epochs * per_pass
    for epoch in range(epochs):
        part = batches[epoch * per_pass : (epoch + 1) * per_pass]
        assert sorted(np.concatenate(part)) == list(range(n))
        assert all(len(batch) == min(size or n, n) for batch in part[:-1])


@settings(derandomize=True, deadline=None, max_examples=60)
@given(n=st.integers(1, 40), size=st.integers(0, 50), steps=st.integers(1, 30))
def test_steps_are_counted_over_passes(n, size, steps):
    batches = list(
        LocalSGD(client_lr=1.0, local_steps=steps, batch_size=size).batches(n, context())
    )
    assert len(batches) == steps
    seen = np.bincount(np.concatenate(batches), minlength=n)
    assert seen.max() - seen.min() <= 1  # a pass ends before the next begins


def test_shuffles_are_keyed_by_client_and_pass():
    work = LocalSGD(client_lr=1.0, local_epochs=2)
    orders = [np.concatenate(list(work.batches(30, context(*who)))) for who in
              ((0, "kiel"), (0, "kiel"), (0, "bern"), (1, "kiel"))]  # fmt: skip
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()
    assert (orders[0] != orders[3]).any()
    assert (orders[0][:30] != orders[0][30:]).any()


# ------------------------------------------------------------------ impossible numbers


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"client_lr": 0}, "algorithm.client_lr"),
        ({"client_lr": float("nan")}, "algorithm.client_lr"),
        ({"client_lr": float("inf")}, "algorithm.client_lr"),
        ({"client_lr": "0.1"}, "algorithm.client_lr"),
        ({"client_lr": True}, "algorithm.client_lr"),
        ({"local_epochs": -1}, "algorithm.local_epochs"),
        ({"local_epochs": 1.5}, "algorithm.local_epochs"),
        ({"local_steps": True}, "algorithm.local_steps"),
        ({"batch_size": -8}, "algorithm.batch_size"),
        ({"momentum": 1.0}, "algorithm.momentum"),
        ({"momentum": -0.1}, "algorithm.momentum"),
        ({"weight_decay": -0.1}, "algorithm.weight_decay"),
        ({"proximal": -0.1}, "algorithm.proximal"),
        ({"local_epochs": 1, "local_steps": 5}, "algorithm.local_steps"),
    ],
)
def test_impossible_numbers_are_refused(options, part):
    with pytest.raises(PlanError) as refusal:
        LocalSGD(**{"client_lr": 0.1, **options})
    assert refusal.value.part == part
    assert refusal.value.fix


def test_the_same_number_is_the_same_work():
    assert repr(LocalSGD(client_lr=1)) == repr(LocalSGD(client_lr=1.0, local_epochs=1))


# ------------------------------------------------------------------ FedSGD's one gradient


def test_full_gradient_is_minus_the_gradient():
    shared, data = np.array([0.5, -1.0, 2.0], np.float32), examples()
    delta, loss = run(FullGradient(), shared, data, context())
    expected_loss, expected = Line().gradient(shared, data)
    np.testing.assert_array_equal(delta, -expected)
    assert loss == expected_loss


def test_full_gradient_in_pieces_is_the_mean_over_all():
    shared, data = np.array([0.5, -1.0, 2.0], np.float32), examples(2 * PIECE + 100)
    assert [len(b) for b in FullGradient().batches(len(data), context())] == [PIECE, PIECE, 100]
    delta, loss = run(FullGradient(), shared, data, context())
    expected_loss, expected = Line().gradient(shared, data)
    np.testing.assert_allclose(delta, -expected, atol=1e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-6)


def test_one_full_step_of_descent_is_one_full_gradient():
    """FedAvg with one step on all examples and FedSGD are one method (McMahan et al., 2017)."""
    shared, data = np.array([0.5, -1.0, 2.0], np.float32), examples()
    step, _ = run(LocalSGD(client_lr=0.25), shared, data, context())
    gradient, _ = run(FullGradient(), shared, data, context())
    np.testing.assert_allclose(step, 0.25 * gradient, atol=1e-7)


def test_both_are_client_work():
    works: tuple[ClientWork[SGDState], ClientWork[GradientState]] = (
        LocalSGD(client_lr=0.1),
        FullGradient(),
    )
    assert len({repr(work) for work in works}) == 2
