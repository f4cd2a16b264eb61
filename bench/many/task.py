"""A million clients: each has a few examples, which are made when it is asked for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Site, Split
from hansa.work.numpy_task import NumpyTask, Parameters

FEATURES, CLASSES, EXAMPLES, HELD_OUT = 20, 5, 40, 8


class Many(NumpyTask):
    """Softmax regression; clients see the same plane through noise of their own."""

    def parameters(self, rng: np.random.Generator) -> Parameters:
        """One matrix."""
        return {"w": 0.01 * rng.standard_normal((FEATURES, CLASSES))}

    def probabilities(self, parameters: Parameters, inputs: NDArray[Any]) -> NDArray[Any]:
        """Softmax."""
        scores = inputs @ parameters["w"]
        found: NDArray[Any] = np.exp(scores - scores.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
        return found

    def loss_and_gradients(
        self, parameters: Parameters, inputs: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[float, Parameters]:
        """Cross-entropy and its gradient."""
        found = self.probabilities(parameters, inputs)
        right = found[np.arange(len(targets)), targets]
        found[np.arange(len(targets)), targets] -= 1
        return float(-np.log(right + 1e-9).mean()), {"w": inputs.T @ found / len(targets)}

    def data(self, site: Site) -> Split:
        """Drawn from the client's name."""
        rng = ReplayKey.of_seed(0).generator("client", site.name)
        inputs = rng.standard_normal((EXAMPLES, FEATURES)).astype(np.float32)
        scores = inputs[:, :CLASSES] + 0.5 * rng.standard_normal((EXAMPLES, CLASSES))
        targets = scores.argmax(axis=1).astype(np.int64)
        return Split(
            Examples(inputs[HELD_OUT:], targets[HELD_OUT:]),
            Examples(inputs[:HELD_OUT], targets[:HELD_OUT]),
        )
