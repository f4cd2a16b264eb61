"""TorchTask: the gradient of each example, against Opacus and against plain autograd."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import opacus
import pytest
import torch
from numpy.typing import NDArray
from opacus.validators import ModuleValidator
from torch import nn

from hansa.core.parts import Examples, Site, Split
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.work import torch as torch_task
from hansa.work.per_example import PerExample, clipped_sum
from hansa.work.torch import TorchTask

CLASSES, WORDS = 3, 11


class Trains(TorchTask):
    """A task around any module."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self.make = make

    def model(self) -> nn.Module:
        return self.make()

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def data(self, site: Site) -> Split:
        raise AssertionError("nobody asks")


def mlp(drop: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 32), nn.Tanh(), nn.Dropout(drop), nn.LayerNorm(32), nn.Linear(32, CLASSES)
    )


def cnn(norm: Callable[[], nn.Module] = lambda: nn.GroupNorm(2, 8), drop: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        norm(),
        nn.ReLU(),
        nn.Dropout2d(drop),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 4, 3, groups=2),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


class Reader(nn.Module):
    """Words, something that reads them, classes."""

    def __init__(self, inside: Callable[[torch.Tensor], torch.Tensor], **embedding: float) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8, **embedding)  # type: ignore[arg-type]
        self.inside = inside
        self.classes = nn.Linear(8, CLASSES)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.classes(self.inside(self.words(words)).mean(dim=1))
        return found


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module], **keywords: float) -> None:
        super().__init__()
        self.layers = kind(8, 8, batch_first=True, **keywords)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x)[0]
        return found


class SelfAttention(nn.Module):
    def __init__(self, drop: float = 0.0, *, weights: bool = True) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, dropout=drop, batch_first=True)
        self.weights = weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.heads(x, x, x, need_weights=self.weights)[0]
        return found


class LinearAttention(nn.Module):
    """Attention of linear layers alone, which Opacus has rules for."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        found: torch.Tensor = scores.softmax(dim=-1) @ self.value(x)
        return found


class Branches(nn.Module):
    """What it does depends on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, CLASSES), nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.left(x) if x.sum() > 0 else self.right(x)
        return found


def transformer(drop: float) -> nn.Module:
    return Reader(
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=drop, batch_first=True), num_layers=2
        )
    )


def vectors(n: int = 7) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(n, 5)).astype(np.float32)


def images(n: int = 7) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(n, 2, 8, 8)).astype(np.float32)


def words(n: int = 7) -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, WORDS, (n, 6))


def batch_of(inputs: NDArray[np.generic]) -> Examples:
    return Examples(inputs, np.arange(len(inputs)) % CLASSES)


def rows(task: TorchTask, params: Vector, batch: Examples) -> tuple[Vector, Vector]:
    """All losses and all gradients."""
    found = [
        (losses.copy(), gradients.copy()) for losses, gradients in task.per_example(params, batch)
    ]
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def plain(task: TorchTask, params: Vector) -> nn.Module:
    """A new module of the task's kind with these parameters."""
    module = task.model()
    nn.utils.vector_to_parameters(torch.tensor(params), module.parameters())
    return module


def by_autograd(task: TorchTask, params: Vector, batch: Examples) -> tuple[Vector, Vector]:
    """A new module and one call of autograd for each example."""
    losses, gradients = [], []
    for at in range(len(batch)):
        module = plain(task, params)
        outputs = module(torch.tensor(batch.inputs[at : at + 1]))
        loss = nn.functional.cross_entropy(outputs, torch.tensor(batch.targets[at : at + 1]))
        slopes = torch.autograd.grad(loss, list(module.parameters()), materialize_grads=True)
        losses.append(loss.item())
        gradients.append(torch.cat([slope.reshape(-1) for slope in slopes]).numpy())
    return np.array(losses), np.array(gradients)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (mlp, vectors()),
        (cnn, images()),
        (lambda: cnn(lambda: nn.InstanceNorm2d(8, affine=True)), images()),
        (lambda: Reader(LinearAttention()), words()),
        (lambda: Reader(nn.Tanh()), words()),
    ],
    ids=["mlp", "cnn-groupnorm", "cnn-instancenorm", "attention", "embedding"],
)
def test_gradients_are_those_of_opacus(make: Callable[[], nn.Module], inputs):
    task, batch = Trains(make), batch_of(inputs)
    params = task.initial(3)
    losses, gradients = rows(task, params, batch)
    assert task._flat.vectorises
    module = opacus.GradSampleModule(plain(task, params))
    outputs = module(torch.tensor(batch.inputs))
    targets = torch.tensor(batch.targets)
    torch.autograd.backward(nn.functional.cross_entropy(outputs, targets))
    expected = torch.cat([p.grad_sample.flatten(1) for p in module.parameters()], dim=1)
    assert np.abs(gradients).max() > 0.1
    np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        losses, nn.functional.cross_entropy(outputs, targets, reduction="none").detach(), rtol=1e-5
    )


Make: TypeAlias = Callable[[], nn.Module]

ANYTHING: dict[str, tuple[Make, NDArray[Any], bool]] = {
    "linear": (mlp, vectors(), True),
    "lstm": (lambda: Reader(Recurrent(nn.LSTM)), words(), True),
    "lstm of two": (lambda: Reader(Recurrent(nn.LSTM, num_layers=2)), words(), True),
    "gru": (lambda: Reader(Recurrent(nn.GRU)), words(), False),
    "attention": (lambda: Reader(SelfAttention()), words(), True),
    "fused attention": (lambda: Reader(SelfAttention(weights=False)), words(), True),
    "transformer": (lambda: transformer(0.0), words(), True),
    "bounded words": (lambda: Reader(nn.Tanh(), max_norm=1.0), words(), False),
    "frequent words": (lambda: Reader(nn.Tanh(), scale_grad_by_freq=True), words(), True),
    "branches": (Branches, vectors(), False),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, CLASSES)),
        vectors(),
        True,
    ),
}


@pytest.mark.parametrize("name", ANYTHING)
def test_any_module_works_unchanged(name: str):
    """Also with warnings as errors: nothing is said about operations that vmap does one by one."""
    make, inputs, vectorises = ANYTHING[name]
    task, batch = Trains(make), batch_of(inputs)
    params = task.initial(3)
    assert isinstance(task, PerExample)
    losses, gradients = rows(task, params, batch)
    assert task._flat.vectorises == vectorises
    expected_losses, expected = by_autograd(task, params, batch)
    np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert gradients.dtype == np.float32


def test_the_mean_is_the_gradient_of_the_batch():
    task, batch = Trains(cnn), batch_of(images())
    params = task.initial(3)
    losses, gradients = rows(task, params, batch)
    loss, gradient = task.gradient(params, batch)
    np.testing.assert_allclose(gradients.mean(axis=0), gradient, rtol=1e-4, atol=1e-6)
    assert losses.mean() == pytest.approx(loss, rel=1e-5)


def assert_nobody_moves_others(task: TorchTask, params: Vector, batch: Examples) -> None:
    """Bit for bit: by being there, by where they stand, or by what they are."""
    _, gradients = rows(task, params, batch)
    for some in ([0], [3], [6, 2], [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [5] * 40):
        _, found = rows(task, params, batch.take(np.array(some)))
        np.testing.assert_array_equal(found, gradients[some])


@pytest.mark.parametrize("name", ANYTHING)
def test_nobody_moves_others(name: str):
    make, inputs, _ = ANYTHING[name]
    task = Trains(make)
    assert_nobody_moves_others(task, task.initial(3), batch_of(inputs))


DRAWS: dict[str, tuple[Make, NDArray[Any]]] = {
    "dropout": (lambda: mlp(0.5), vectors()),
    "dropout of channels": (lambda: cnn(drop=0.5), images()),
    "lstm": (lambda: Reader(Recurrent(nn.LSTM, num_layers=2, dropout=0.5)), words()),
    "gru": (lambda: Reader(Recurrent(nn.GRU, num_layers=2, dropout=0.5)), words()),
    "attention": (lambda: Reader(SelfAttention(0.5)), words()),
    "transformer": (lambda: transformer(0.5), words()),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_follow_from_the_parameters_alone(name: str, monkeypatch):
    """Neither the batch nor a position in it: whether an example is there moves no other."""
    make, inputs = DRAWS[name]
    task, batch = Trains(make), batch_of(inputs)
    params = task.initial(3)
    _, gradients = rows(task, params, batch)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    _, again = rows(task, params, batch)
    torch.testing.assert_close(torch.rand(1), expected)  # nobody else's draws move
    np.testing.assert_array_equal(gradients, again)
    assert_nobody_moves_others(task, params, batch)
    monkeypatch.setattr(torch_task, "PIECE_EXAMPLES", 2)
    _, other = rows(task, params, batch)
    np.testing.assert_allclose(other, gradients, rtol=1e-4, atol=1e-6)
    task._flat.vectorises = False
    _, one_by_one = rows(task, params, batch)
    np.testing.assert_allclose(one_by_one, gradients, rtol=1e-4, atol=1e-6)
    _, evaluated = by_autograd(Trains(lambda: make().eval()), params, batch)
    assert np.abs(gradients - evaluated).max() > 0.02  # it does draw
    # A plain model's gradient would move by about a millionth; other draws move it by far more.
    _, moved = rows(task, params + np.float32(1e-6), batch)
    assert np.abs(moved - gradients).max() > 0.01


ZEROED: dict[str, tuple[Make, NDArray[Any]]] = {
    "mlp": (lambda: mlp(0.5), vectors()),
    "cnn": (lambda: cnn(drop=0.5), images()),
    "branches": (Branches, vectors()),
    "lstm": (
        lambda: nn.Sequential(Recurrent(nn.LSTM), nn.Flatten(), nn.Linear(48, CLASSES)),
        np.random.default_rng(1).normal(size=(7, 6, 8)).astype(np.float32),
    ),
}


@pytest.mark.parametrize("name", ZEROED)
def test_without_an_example_the_sum_lacks_its_contribution_bit_for_bit(name: str):
    """Also where it is one that could make anything of the others: it is all infinities."""
    make, inputs = ZEROED[name]
    task, grid = Trains(make), 2.0**-40
    params = task.initial(3)

    def without(*gone: int) -> Vector:
        changed = inputs.copy()
        changed[list(gone)] = np.inf
        return clipped_sum(task, params, batch_of(changed), 0.1, grid)[1]

    for at in range(len(inputs)):
        alone = without(*(set(range(len(inputs))) - {at}))
        assert 0.099 < np.linalg.norm(alone) <= 0.1 + grid * len(alone) ** 0.5 / 2
        np.testing.assert_array_equal(without() - without(at), alone)


@pytest.mark.parametrize("make", [mlp, lambda: Reader(Recurrent(nn.GRU))])
def test_parameters_and_gradients_stay_views_of_two_buffers(make: Callable[[], nn.Module]):
    batch = batch_of(vectors() if make is mlp else words())
    task, fresh = Trains(make), Trains(make)
    params = task.initial(3)
    params.flags.writeable = False
    rows(task, params, batch)
    flat = task._flat
    for parameter in flat.module.parameters():
        assert np.shares_memory(parameter.detach().numpy(), flat.params)
        assert parameter.grad is not None
        assert np.shares_memory(parameter.grad.numpy(), flat.gradient)
    for _ in range(2):
        loss, gradient = task.gradient(params, batch)
        expected_loss, expected = fresh.gradient(params, batch)
        assert loss == expected_loss
        np.testing.assert_array_equal(gradient, expected)
        assert gradient is flat.gradient


def test_pieces_are_in_order_and_in_bounded_memory(monkeypatch):
    task, batch = Trains(mlp), batch_of(vectors(n=200))
    params = task.initial(3)
    _, expected = by_autograd(task, params, batch)
    row = 4 * task.schema.size
    for room, most in ((10 * row, 10), (row - 1, 1), (10**9, torch_task.PIECE_EXAMPLES)):
        monkeypatch.setattr(torch_task, "PIECE_BYTES", room)
        sizes = [len(gradients) for _, gradients in task.per_example(params, batch)]
        assert max(sizes) == most
        assert sum(sizes) == 200
        np.testing.assert_allclose(rows(task, params, batch)[1], expected, rtol=1e-4, atol=1e-6)


def test_between_two_pieces_anybody_may_use_the_task(monkeypatch):
    monkeypatch.setattr(torch_task, "PIECE_EXAMPLES", 2)
    for make in (mlp, Branches):
        task, batch = Trains(make), batch_of(vectors())
        params = task.initial(3)
        _, expected = rows(task, params, batch)
        found = []
        for _, gradients in task.per_example(params, batch):
            found.append(gradients.copy())
            task.predict(task.initial(4), batch)
        np.testing.assert_array_equal(np.concatenate(found), expected)


def test_it_is_said_once_why_examples_are_computed_one_by_one(caplog):
    caplog.set_level(logging.INFO, "hansa")
    task, batch = Trains(Branches), batch_of(vectors())
    for _ in range(3):
        rows(task, task.initial(3), batch)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert message.startswith("Trains: one backward pass for each example")
    assert "cannot run Branches" in message
    assert "data-dependent control flow" in message
    assert "\n" not in message
    caplog.clear()
    task = Trains(mlp)
    rows(task, task.initial(3), batch)
    assert not caplog.records


@pytest.mark.parametrize("make", [mlp, Branches])
def test_which_way_is_taken_does_not_follow_from_the_data(make: Callable[[], nn.Module]):
    ways = set()
    for value in (0.0, 1.0, np.nan, np.inf, -1e30):
        task = Trains(make)
        inputs = np.full((4, 5), value, np.float32)
        list(task.per_example(task.initial(3), batch_of(inputs)))
        ways.add(task._flat.vectorises)
    assert ways == {make is mlp}


def test_an_empty_batch_has_no_pieces():
    task = Trains(mlp)
    assert list(task.per_example(task.initial(3), batch_of(vectors(n=0)))) == []
    rows(task, task.initial(3), batch_of(vectors()))
    assert list(task.per_example(task.initial(3), batch_of(vectors(n=0)))) == []


def test_what_a_task_raises_on_real_data_is_raised():
    task = Trains(mlp)
    for n in (7, 7):
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            rows(task, task.initial(3), Examples(vectors(n), np.full(n, CLASSES)))


MIXES: dict[str, tuple[Make, NDArray[Any], str]] = {
    "1d": (
        lambda: nn.Sequential(
            nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, CLASSES)
        ),
        vectors(),
        "layer '1' (BatchNorm1d) of Sequential mixes the examples of a batch",
    ),
    "2d": (
        lambda: cnn(lambda: nn.BatchNorm2d(8, track_running_stats=False)),
        images(),
        "layer '1' (BatchNorm2d) of Sequential mixes the examples of a batch",
    ),
    "inside": (
        lambda: nn.Sequential(cnn(lambda: nn.SyncBatchNorm(8, track_running_stats=False))),
        images(),
        "layer '0.1' (SyncBatchNorm) of Sequential mixes the examples of a batch",
    ),
    "without weights": (
        lambda: cnn(lambda: nn.BatchNorm2d(8, affine=False, track_running_stats=False)),
        images(),
        "layer '1' (BatchNorm2d) of Sequential mixes the examples of a batch",
    ),
    "running": (lambda: cnn(lambda: nn.BatchNorm2d(8)), images(), "keeps state"),
    "running instances": (
        lambda: cnn(lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
        images(),
        "keeps state",
    ),
}


@pytest.mark.parametrize("name", MIXES)
def test_layers_that_mix_examples_are_refused(name: str):
    make, inputs, why = MIXES[name]
    task = Trains(make)
    for batch in (batch_of(inputs), batch_of(inputs[:0])):
        with pytest.raises(HansaError) as refusal:
            task.per_example(np.zeros(1, np.float32), batch)
        assert why in str(refusal.value)
        assert "use torch.nn.GroupNorm" in refusal.value.fix


def test_they_are_refused_for_gradients_of_single_examples_only():
    task = Trains(MIXES["1d"][0])
    _, gradient = task.gradient(task.initial(3), batch_of(vectors()))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "name", [*ANYTHING, *(name for name in MIXES if name != "without weights")]
)
def test_what_opacus_refuses_is_refused_or_right(name: str):
    """What it wants rewritten for its own hooks is right here, as the tests above show."""
    make = MIXES[name][0] if name in MIXES else ANYTHING[name][0]
    complaints = [str(error) for error in ModuleValidator.validate(make())]
    if name in MIXES:
        assert complaints
    else:
        assert all("drop-in replacement" in complaint for complaint in complaints)


class Remembers(nn.Linear):
    """A running mean by hand."""

    def __init__(self, *, replaces: bool, constant: bool = False) -> None:
        super().__init__(5, CLASSES)
        self.replaces, self.constant = replaces, constant
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros(5), persistent=False)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.replaces:
            self.seen = 0.9 * self.seen + 0.1 * x.detach().mean(0)
        elif not self.constant or self.calls == 1:
            with torch.no_grad():
                self.seen.mul_(0.9).add_(x.mean(0) * 0)
        return super().forward(x - self.seen)


@pytest.mark.parametrize("replaces", [True, False])
def test_a_module_that_remembers_examples_is_refused(replaces: bool):
    task = Trains(lambda: Remembers(replaces=replaces))
    for _ in range(2):
        with pytest.raises(HansaError, match="Remembers writes to 'seen' whenever it sees"):
            rows(task, task.initial(3), batch_of(vectors()))


def test_constants_may_be_computed_when_they_are_first_needed():
    task = Trains(lambda: Remembers(replaces=False, constant=True))
    rows(task, task.initial(3), batch_of(vectors()))
