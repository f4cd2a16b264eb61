"""Tasks for federations in tests: a small model, and one whose updates take several chunks.

`[data]` of a site may say `delay`, seconds that it takes longer, and `fails`, where it raises:
data, training or evaluation.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.job import Job
from hansa.core.metrics import AUROC, Accuracy, Loss
from hansa.core.parts import Examples, Site, Split
from hansa.work.numpy_task import NumpyTask, Parameters

TRUE = np.array([1.0, -2.0, 0.5, 0.0])
SITES = ("bremen", "danzig", "kiel", "luebeck", "riga", "visby")


class Small(NumpyTask):
    """A logistic regression over four numbers; sites hold between 12 and 40 examples."""

    metrics = (Loss(), Accuracy(), AUROC(bins=8))
    delay = 0.0
    fails = ""

    def clients(self, job: Job) -> tuple[str, ...]:
        """The sites of the federation, for simulation."""
        return SITES[: job.cohort.population]

    def parameters(self, rng: np.random.Generator) -> Parameters:
        """Small random weights and no bias."""
        return {"w": 0.1 * rng.standard_normal(4), "b": np.zeros(1)}

    def probabilities(self, parameters: Parameters, inputs: NDArray[Any]) -> NDArray[Any]:
        """The probability of class 1."""
        time.sleep(self.delay)
        if self.fails == "evaluation":
            raise ValueError("this site cannot evaluate")
        return self._probabilities(parameters, inputs)

    def loss_and_gradients(
        self, parameters: Parameters, inputs: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[float, Parameters]:
        """Cross-entropy and its gradient."""
        if self.fails == "training":
            raise ValueError("this site cannot train")
        p = self._probabilities(parameters, inputs)
        right = np.where(targets == 1, p, 1 - p)
        error = (p - targets) / len(targets)
        return float(-np.log(right + 1e-9).mean()), {
            "w": inputs.T @ error,
            "b": np.array([error.sum()]),
        }

    def data(self, site: Site) -> Split:
        """Noisy labels of a plane through the origin, drawn from the site's name."""
        self.delay = float(site.config.get("delay", 0.0))
        self.fails = str(site.config.get("fails", ""))
        if self.fails == "data":
            raise ValueError("this site cannot read its data")
        rng = np.random.default_rng(list(site.name.encode()))
        n = int(rng.integers(12, 41))
        inputs = rng.standard_normal((n, 4)).astype(np.float32)
        targets = (inputs @ TRUE + 0.3 * rng.standard_normal(n) > 0).astype(np.int64)
        return Split(Examples(inputs[6:], targets[6:]), Examples(inputs[:6], targets[:6]))

    def _probabilities(self, parameters: Parameters, inputs: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = 1 / (1 + np.exp(-(inputs @ parameters["w"] + parameters["b"])))
        return found


class Wide(Small):
    """The same with ballast that shrinks: 2.4 MB of parameters, three chunks on the wire."""

    def parameters(self, rng: np.random.Generator) -> Parameters:
        """Ballast beside the weights."""
        return {**super().parameters(rng), "ballast": rng.standard_normal(600_000)}

    def loss_and_gradients(
        self, parameters: Parameters, inputs: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[float, Parameters]:
        """The ballast's gradient is a hundredth of itself."""
        loss, gradients = super().loss_and_gradients(parameters, inputs, targets)
        return loss, {**gradients, "ballast": 0.01 * parameters["ballast"]}
