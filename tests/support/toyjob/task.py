"""A logistic regression over four numbers, small enough to be trained in every test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.metrics import AUROC, Accuracy, Loss
from hansa.core.parts import Examples, Site, Split
from hansa.work.numpy_task import NumpyTask, Parameters

TRUE = np.array([1.0, -2.0, 0.5, 0.0])


class Toy(NumpyTask):
    """Clients hold between 12 and 40 examples, drawn from their names."""

    metrics = (Loss(), Accuracy(), AUROC(bins=8))

    def parameters(self, rng: np.random.Generator) -> Parameters:
        """Small random weights and no bias."""
        return {"w": 0.1 * rng.standard_normal(4), "b": np.zeros(1)}

    def probabilities(self, parameters: Parameters, inputs: NDArray[Any]) -> NDArray[Any]:
        """The probability of class 1."""
        found: NDArray[Any] = 1 / (1 + np.exp(-(inputs @ parameters["w"] + parameters["b"])))
        return found

    def loss_and_gradients(
        self, parameters: Parameters, inputs: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[float, Parameters]:
        """Cross-entropy and its gradient."""
        p = self.probabilities(parameters, inputs)
        right = np.where(targets == 1, p, 1 - p)
        error = (p - targets) / len(targets)
        return float(-np.log(right + 1e-9).mean()), {
            "w": inputs.T @ error,
            "b": np.array([error.sum()]),
        }

    def data(self, site: Site) -> Split:
        """Noisy labels of a plane through the origin."""
        rng = np.random.default_rng(list(site.name.encode()))
        n = int(rng.integers(12, 41))
        inputs = rng.standard_normal((n, 4)).astype(np.float32)
        targets = (inputs @ TRUE + 0.3 * rng.standard_normal(n) > 0).astype(np.int64)
        return Split(Examples(inputs[6:], targets[6:]), Examples(inputs[:6], targets[:6]))
