"""A linear classifier over 64 numbers into 8 classes: wide enough for many canaries at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.parts import Examples, Site, Split
from hansa.work.numpy_task import NumpyTask, Parameters

INPUTS, CLASSES, EXAMPLES = 64, 8, 30


class Wide(NumpyTask):
    """512 weights; each client holds 30 examples of eight noisy directions, by its name."""

    def parameters(self, rng: np.random.Generator) -> Parameters:
        """Nothing known yet."""
        return {
            "upper": np.zeros((INPUTS // 2, CLASSES)),
            "lower": np.zeros((INPUTS // 2, CLASSES)),
        }

    def probabilities(self, parameters: Parameters, inputs: NDArray[Any]) -> NDArray[Any]:
        """Softmax."""
        scores = inputs @ np.concatenate([parameters["upper"], parameters["lower"]])
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: NDArray[Any] = odds / odds.sum(axis=1, keepdims=True)
        return found

    def loss_and_gradients(
        self, parameters: Parameters, inputs: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[float, Parameters]:
        """Cross-entropy and its slope."""
        p = self.probabilities(parameters, inputs)
        right = p[np.arange(len(targets)), targets]
        p[np.arange(len(targets)), targets] -= 1
        slope = inputs.T @ p / len(targets)
        half = INPUTS // 2
        return float(-np.log(right + 1e-12).mean()), {"upper": slope[:half], "lower": slope[half:]}

    def data(self, site: Site) -> Split:
        """Examples around the directions, a third of them held out."""
        rng = np.random.default_rng(list(site.name.encode()))
        centres = np.random.default_rng(0).standard_normal((CLASSES, INPUTS))
        targets = rng.integers(0, CLASSES, EXAMPLES)
        inputs = (0.3 * centres[targets] + rng.standard_normal((EXAMPLES, INPUTS))).astype(
            np.float32
        )
        cut = EXAMPLES // 3
        return Split(Examples(inputs[cut:], targets[cut:]), Examples(inputs[:cut], targets[:cut]))
