"""NumpyTask: a user's named arrays as one flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from hansa.core.metrics import AUROC, Accuracy, Loss
from hansa.core.parts import Examples, Site, Split, Task
from hansa.errors import HansaError
from hansa.work.numpy_task import Array, NumpyTask, Parameters


class Softmax(NumpyTask):
    """Softmax regression over three classes; gradients by hand."""

    def parameters(self, rng: np.random.Generator) -> Parameters:
        return {"weights": rng.normal(size=(4, 3)), "bias": np.zeros(3)}

    def loss_and_gradients(self, parameters, inputs, targets):
        p = self.probabilities(parameters, inputs)
        loss = self.losses(p, targets).mean()
        error = (p - np.eye(3)[targets]) / len(targets)
        return loss, {"weights": inputs.T @ error, "bias": error.sum(axis=0)}

    def probabilities(self, parameters: Parameters, inputs: Array) -> Array:
        scores = inputs @ parameters["weights"] + parameters["bias"]
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        p: Array = e / e.sum(axis=1, keepdims=True)
        return p

    def data(self, site: Site) -> Split:
        rng = np.random.default_rng(len(site.name))
        inputs = rng.normal(size=(30, 4)).astype(np.float32)
        targets = rng.integers(0, 3, 30)
        return Split(Examples(inputs[:20], targets[:20]), Examples(inputs[20:], targets[20:]))


class Coin(Softmax):
    """Two classes, of which only the second's probability is given."""

    metrics = (Loss(), AUROC())

    def probabilities(self, parameters, inputs):
        return np.full(len(inputs), 0.25)


BATCH = Softmax().data(Site("kiel", {})).train


def test_the_vector_is_the_arrays_in_order():
    task: Task = Softmax()
    assert [(t.name, t.shape) for t in task.schema.tensors] == [("weights", (4, 3)), ("bias", (3,))]
    start = task.initial(7)
    assert start.dtype == np.float32
    assert start.shape == (15,)
    np.testing.assert_array_equal(start[12:], 0)


def test_the_start_follows_from_the_seed():
    np.testing.assert_array_equal(Softmax().initial(7), Softmax().initial(7))
    assert (Softmax().initial(7) != Softmax().initial(8)).any()


def test_gradient_is_the_slope_of_the_loss():
    """Central differences in float64 as the oracle."""
    task, params = Softmax(), Softmax().initial(3)
    loss, gradient = task.gradient(params, BATCH)
    assert gradient.dtype == np.float32
    step = 1e-3
    for at in range(len(params)):
        up, down = params.copy(), params.copy()
        up[at] += step
        down[at] -= step
        slope = (
            task.predict(up, BATCH).losses.mean() - task.predict(down, BATCH).losses.mean()
        ) / (float(up[at]) - float(down[at]))
        assert gradient[at] == pytest.approx(slope, abs=2e-3)
    assert loss == pytest.approx(task.predict(params, BATCH).losses.mean())


def test_predict_gives_probabilities_and_cross_entropy():
    task = Softmax()
    outputs = task.predict(np.zeros(15, np.float32), BATCH)
    np.testing.assert_allclose(outputs.probabilities, np.full((20, 3), 1 / 3))
    np.testing.assert_allclose(outputs.losses, np.full(20, np.log(3)))
    np.testing.assert_array_equal(outputs.targets, BATCH.targets)


def test_the_probability_of_class_one_is_enough():
    examples = Examples(np.zeros((2, 4)), np.array([0, 1]))
    outputs = Coin().predict(np.zeros(15, np.float32), examples)
    np.testing.assert_allclose(outputs.probabilities, [[0.75, 0.25]] * 2)
    np.testing.assert_allclose(outputs.losses, -np.log([0.75, 0.25]))


def test_impossible_certainty_costs_much_but_not_infinity():
    losses = Softmax().losses(np.array([[1.0, 0.0]]), np.array([1]))
    assert 80 < losses[0] < 100


def test_metrics_have_defaults_and_can_be_set():
    assert tuple(Softmax().metrics) == (Loss(), Accuracy())
    assert tuple(Coin().metrics) == (Loss(), AUROC())


class Misnamed(Softmax):
    def loss_and_gradients(self, parameters, inputs, targets):
        return 0.0, {"weights": np.zeros((4, 3)), "biases": np.zeros(3)}


class Flat(Softmax):
    def probabilities(self, parameters, inputs):
        return np.zeros((3, len(inputs)))


class Empty(Softmax):
    def parameters(self, rng: np.random.Generator) -> Mapping[str, Any]:
        return {}


def test_mistakes_are_named():
    params = Softmax().initial(0)
    with pytest.raises(HansaError, match="'bias' has shape None, expected \\(3,\\)"):
        Misnamed().gradient(params, BATCH)
    with pytest.raises(HansaError, match=r"Flat.probabilities\(\) gives shape \(3, 20\)"):
        Flat().predict(params, BATCH)
    with pytest.raises(HansaError, match=r"Empty.parameters\(\) gives no numbers"):
        _ = Empty().schema
    with pytest.raises(HansaError, match="cannot hold 15 parameters"):
        Softmax().gradient(params[:-1], BATCH)
