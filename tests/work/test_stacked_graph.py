"""Passes that were made shorter: the numbers of the plain way, for models of all kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hansa.work.sgd import LocalSGD
from hansa.work.stacked_classes import class_losses, class_slopes, narrow_product
from hansa.work.stacked_gradient import Batch, StackedGradient
from tests.support.stackjob.task import Net

STACK, SIZE = 3, 4


class Inplace(Net):
    """Writes over what it computed."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))


class _Tied(nn.Module):
    """Two factors of one matrix, whose gradients are products with each other."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(3, 5))
        self.right = nn.Parameter(torch.randn(5, 6))
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = (inputs * self.scale) @ (self.left @ self.right).T
        return found


class Tied(Net):
    def model(self) -> nn.Module:
        return _Tied()


class Images(Net):
    """Convolutions and a pool in which values are equal, so that it matters which one is taken."""

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(1, 9, 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(54, 3),
        )


def pass_of(model: Net) -> tuple[list[torch.Tensor], Batch]:
    """Parameters and a batch whose last clients have fewer examples."""
    rng = np.random.default_rng(0)
    start = model.schema.views(model.initial(1))
    params = [
        torch.from_numpy(start[t.name] + 0.1 * rng.standard_normal((STACK, *t.shape), np.float32))
        for t in model.schema.tensors
    ]
    inputs = torch.from_numpy(rng.standard_normal((STACK, SIZE, 6), np.float32))
    targets = torch.from_numpy(rng.integers(0, 3, (STACK, SIZE)))
    weights = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]])
    return params, Batch(inputs, targets, weights, negative=False)


@pytest.mark.parametrize("model", [Net, Inplace, Tied, Images], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "work",
    [
        LocalSGD(client_lr=0.3),
        LocalSGD(client_lr=0.3, weight_decay=0.1),
        LocalSGD(client_lr=0.3, proximal=0.2, weight_decay=0.1),
        LocalSGD(client_lr=0.3, momentum=0.5),
    ],
    ids=["plain", "decay", "proximal", "momentum"],
)
def test_three_steps_are_those_of_the_plain_pass(model, work):
    of = model()
    params, batch = pass_of(of)
    received = [array[:1].clone() for array in params]
    found = []
    for at in (1, 10**9):  # traced at once, never traced
        gradient = StackedGradient(of, traced_at=at)
        mine = [array.clone() for array in params]
        velocity = [torch.zeros_like(array) for array in params] if work.momentum else None
        losses = [gradient.descend(work, mine, received, velocity, batch).clone() for _ in range(3)]
        assert bool(gradient._traced) == (at == 1)
        found.append((losses, mine))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    moved = [float((new - old).abs().max()) for new, old in zip(found[0][1], params, strict=True)]
    assert min(moved) > 1e-3


def test_steps_are_in_the_traced_pass_and_large_gradients_are_not_written():
    params, batch = pass_of(Net())
    gradient = StackedGradient(Net(), traced_at=1)
    gradient.descend(LocalSGD(client_lr=0.3), params, params, None, batch)
    (moving,) = gradient._moving.values()
    assert moving is not None
    assert moving.code.count("aten.baddbmm_.default(") == 2
    traced = next(iter(gradient._traced.values()))
    assert moving.code.count("aten.bmm.default(") == traced.code.count("aten.bmm.default(") - 2


def test_cross_entropy_is_shorter_and_ignores_no_class():
    params, batch = pass_of(Net())
    gradient = StackedGradient(Net(), traced_at=1)
    gradient(params, batch)
    code = next(iter(gradient._traced.values())).code
    assert code.count("class_losses(") == code.count("class_slopes(") == 1
    assert not any(word in code for word in ("softmax", "aten.ne.", "aten.where", "aten.div"))


def test_a_class_that_is_ignored_does_not_count():
    """PyTorch leaves out -100; the batch says that a target may be negative."""
    params, batch = pass_of(Net())
    batch = replace(batch, targets=batch.targets.clone(), negative=True)
    batch.targets[0, 1] = -100
    found, plain = (StackedGradient(Net(), traced_at=at)(params, batch) for at in (1, 10**9))
    torch.testing.assert_close(found, plain, equal_nan=True)
    assert not torch.isfinite(found[0][0])
    assert torch.isfinite(found[0][1:]).all()


def test_probabilities_of_classes_and_their_slopes_are_those_of_autograd():
    rng = np.random.default_rng(0)
    outputs = torch.from_numpy(30 * rng.standard_normal((4, 1, 5))).requires_grad_()
    at = torch.from_numpy(rng.integers(0, 5, (4, 1, 1)))
    slope = torch.from_numpy(rng.standard_normal((4, 1, 1)))
    expected = outputs.log_softmax(-1).gather(-1, at)
    (gradient,) = torch.autograd.grad(expected, outputs, slope)
    with torch.no_grad():
        losses, probabilities = class_losses(outputs, at)
        torch.testing.assert_close(losses, expected)
        torch.testing.assert_close(class_slopes(probabilities, at, slope), gradient)


def test_products_with_few_columns_are_the_same_by_numpy():
    left = torch.randn(3, 4, 7)
    for right in (torch.randn(3, 7, 2), torch.randn(3, 2, 7).transpose(1, 2)):
        torch.testing.assert_close(narrow_product(left, right), torch.bmm(left, right))


def test_what_writes_to_its_input_is_left_as_it_is():
    params, batch = pass_of(Inplace())
    gradient = StackedGradient(Inplace(), traced_at=1)
    gradient.descend(LocalSGD(client_lr=0.3), params, params, None, batch)
    assert list(gradient._moving.values()) == [None]


def test_factors_that_move_are_not_read_after_they_moved():
    params, batch = pass_of(Tied())
    gradient = StackedGradient(Tied(), traced_at=1)
    gradient.descend(LocalSGD(client_lr=0.3), params, params, None, batch)
    (moving,) = gradient._moving.values()
    assert moving is not None
    assert "baddbmm_" not in moving.code
