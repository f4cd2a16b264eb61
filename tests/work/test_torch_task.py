"""TorchTask: one flat buffer under a module's parameters and gradients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from hansa.core.keys import ReplayKey
from hansa.core.parts import Context, Examples, Site, Split, Task
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.work.sgd import LocalSGD
from hansa.work.torch import PREDICTED_AT_ONCE, TorchTask


class Small(TorchTask):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.GroupNorm(1, 5), nn.Linear(5, 3))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def data(self, site: Site) -> Split:
        return Split(examples(20), examples(10, seed=2))


class Dropping(Small):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))


def examples(n: int, seed: int = 1) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 3, n))


def local(task: TorchTask, data: Examples, client: str = "kiel") -> Vector:
    """One client's delta."""
    work = LocalSGD(client_lr=0.1, local_epochs=2, batch_size=8, momentum=0.9, weight_decay=0.01)
    ctx = Context(client, 3, ReplayKey.of_seed(0).derive(client), task)
    state = work.init(task.initial(0), ctx)
    for index in work.batches(len(data), ctx):
        state = work.step(state, data.take(index), ctx)
    return work.finish(task.initial(0), state)[0]


def test_the_schema_is_named_parameters():
    task: Task = Small()
    names = [t.name for t in task.schema.tensors]
    assert names == [name for name, _ in Small().model().named_parameters()]
    assert task.schema.size == sum(p.numel() for p in Small().model().parameters())


def test_gradient_is_that_of_a_plain_module():
    task, data = Small(), examples(20)
    params = task.initial(5)
    plain = Small().model()
    torch.nn.utils.vector_to_parameters(torch.tensor(params), plain.parameters())
    loss = nn.functional.cross_entropy(plain(torch.tensor(data.inputs)), torch.tensor(data.targets))
    torch.autograd.backward(loss)
    expected = torch.cat([p.grad.reshape(-1) for p in plain.parameters() if p.grad is not None])
    for _ in range(2):  # a gradient does not add to the one before
        found_loss, gradient = task.gradient(params, data)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)
        assert found_loss == pytest.approx(loss.item(), rel=1e-6)


def test_the_same_work_steps_a_torch_module_as_torch_does():
    task, data = Small(), examples(20)
    plain = Small().model()
    torch.nn.utils.vector_to_parameters(torch.tensor(task.initial(0)), plain.parameters())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    work = LocalSGD(client_lr=0.1, local_epochs=2, batch_size=8, momentum=0.9, weight_decay=0.01)
    ctx = Context("kiel", 3, ReplayKey.of_seed(0).derive("kiel"), task)
    for index in work.batches(len(data), ctx):
        optimizer.zero_grad()
        outputs = plain(torch.tensor(data.inputs[index]))
        torch.autograd.backward(
            nn.functional.cross_entropy(outputs, torch.tensor(data.targets[index]))
        )
        optimizer.step()
    trained = torch.nn.utils.parameters_to_vector(plain.parameters()).detach().numpy()
    np.testing.assert_allclose(local(task, data), trained - task.initial(0), atol=1e-6)


def test_parameters_and_gradients_are_views_of_two_buffers():
    task, data = Small(), examples(20)
    params = task.initial(5)
    _, first = task.gradient(params, data)
    _, second = task.gradient(params, data)
    assert np.shares_memory(first, second)
    flat = task._flat
    for parameter in flat.module.parameters():
        assert np.shares_memory(parameter.detach().numpy(), flat.params)
        assert parameter.grad is not None
        assert np.shares_memory(parameter.grad.numpy(), flat.gradient)
    assert not np.shares_memory(params, flat.params)


def test_the_start_follows_from_the_seed_alone():
    torch.manual_seed(1)
    one = Small().initial(7)
    after_one = torch.rand(1)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.rand(1), after_one)  # nobody else's draws move
    np.testing.assert_array_equal(one, Small().initial(7))
    assert (one != Small().initial(8)).any()
    assert one.dtype == np.float32


@pytest.mark.parametrize("make", [Small, Dropping])
def test_same_client_same_round_same_bits(make: Callable[[], TorchTask]):
    torch.manual_seed(1)
    first = local(make(), examples(20))
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, local(make(), examples(20)))


def test_dropout_differs_by_step_and_by_batch():
    task, data = Dropping(), examples(20)
    params = task.initial(0)
    zeros = []
    for batch in (data, data.take(np.arange(19, -1, -1))):
        for shift in (0.0, 1e-3):
            moved = params + np.float32(shift)
            _, gradient = task.gradient(moved, batch)
            zeros.append(task.schema.views(gradient)["2.weight"].copy())
    assert len({z.tobytes() for z in zeros}) == 4
    # A plain model's gradient would move by a thousandth; new masks move it by far more.
    assert np.abs(zeros[0] - zeros[1]).max() > 0.02


def test_dropout_is_off_when_measured_and_on_when_training():
    task, data = Dropping(), examples(20)
    params = task.initial(0)
    plain = task.model().eval()
    torch.nn.utils.vector_to_parameters(torch.tensor(params), plain.parameters())
    with torch.no_grad():
        expected = plain(torch.tensor(data.inputs)).softmax(-1)
    np.testing.assert_allclose(task.predict(params, data).probabilities, expected, atol=1e-6)
    loss, _ = task.gradient(params, data)
    assert loss != pytest.approx(task.predict(params, data).losses.mean(), rel=1e-4)


@pytest.mark.parametrize("n", [1, PREDICTED_AT_ONCE, PREDICTED_AT_ONCE + 1])
def test_predict_in_parts_is_predict_as_a_whole(n: int):
    task, data = Small(), examples(n)
    params = task.initial(5)
    params.flags.writeable = False
    outputs = task.predict(params, data)
    plain = Small().model()
    torch.nn.utils.vector_to_parameters(torch.tensor(params.copy()), plain.parameters())
    with torch.no_grad():
        scores = plain(torch.tensor(data.inputs))
    targets = torch.tensor(data.targets)
    np.testing.assert_allclose(outputs.probabilities, scores.softmax(-1), atol=1e-6)
    expected = nn.functional.cross_entropy(scores, targets, reduction="none")
    np.testing.assert_allclose(outputs.losses, expected, atol=1e-5)
    assert len(outputs.probabilities) == len(outputs.losses) == n


def test_data_is_read_as_it_comes_and_never_written_to():
    class Scribbler(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  torch's own name
            return super().forward(input.mul_(2.0))

    class Scribbles(Small):
        def model(self) -> nn.Module:
            return Scribbler(4, 3)

    task = Scribbles()
    for kind in (np.float64, np.float32):  # float64 and int32 targets are what files have
        for writeable in (True, False):
            inputs = np.ones((6, 4), kind)
            inputs.flags.writeable = writeable
            data = Examples(inputs, np.zeros(6, np.int32))
            task.gradient(task.initial(0), data)
            task.predict(task.initial(0), data)
            np.testing.assert_array_equal(inputs, 1.0)


class Frozen(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)
        self.bias.requires_grad = False


class Constant(nn.Linear):
    def __init__(self, *, persistent: bool) -> None:
        super().__init__(4, 3)
        self.register_buffer("scale", torch.ones(1), persistent=persistent)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), ("GroupNorm", "running")),
        (lambda: Constant(persistent=True), ("not trained (scale)", "persistent=False")),
        (lambda: nn.Linear(4, 3).double(), ("'weight' of Linear is torch.float64", "float32")),
        (Frozen, ("'bias' of Frozen is frozen",)),
        (lambda: nn.LazyLinear(3), ("no shape yet",)),
        (nn.ReLU, ("no parameters",)),
    ],
)
def test_what_cannot_be_averaged_is_refused(module: Callable[[], nn.Module], words):
    class Wrong(Small):
        def model(self) -> nn.Module:
            return module()

    with pytest.raises(HansaError) as refusal:
        _ = Wrong().schema
    for word in words:
        assert word in str(refusal.value)


def test_constants_that_are_not_saved_and_shared_weights_are_fine():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Constant(persistent=False)
            self.two = self.one

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.one(x) + self.two(x))

    class Ties(Small):
        def model(self) -> nn.Module:
            return Tied()

    task, data = Ties(), examples(20)
    assert task.schema.size == 15
    params = task.initial(0)
    loss, gradient = task.gradient(params, data)
    after, _ = task.gradient(params - np.float32(0.1) * gradient, data)
    assert after < loss


def test_without_torch_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from hansa.errors import MissingExtra\n"
        "try:\n    import hansa.work.torch\n"
        "except MissingExtra as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "TorchTask needs torch, which is not installed" in done.stdout
    assert "pip install 'hansa[torch]'" in done.stdout
