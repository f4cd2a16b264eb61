"""Tasks written in NumPy: named arrays, their gradients, and where the data is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.core.metrics import Accuracy, Loss, Metric, Outputs
from hansa.core.parts import Examples, Site, Split
from hansa.core.vector import Schema, Vector
from hansa.errors import HansaError

Array = NDArray[Any]
Parameters = Mapping[str, Array]
"""The model's arrays by name."""


class NumpyTask(ABC):
    """Everything that runs on a site's data, without a deep-learning library.

    Write four methods; two more things have defaults that suit a classifier:

    | write                | gives                                                       |
    |----------------------|-------------------------------------------------------------|
    | `parameters`         | the arrays to start from                                    |
    | `loss_and_gradients` | the mean loss over a batch, and its gradient in each array  |
    | `probabilities`      | what the model says about inputs                            |
    | `data`               | a site's own examples                                       |
    | `losses`             | the loss of each example; cross-entropy if left out         |
    | `metrics`            | what is measured; loss and accuracy if left out             |

    Hansa lays the arrays out as one float32 vector; the arrays that the methods are given are
    views into it, to be read and not written to.
    """

    metrics: Sequence[Metric] = (Loss(), Accuracy())

    @abstractmethod
    def parameters(self, rng: np.random.Generator) -> Parameters:
        """The arrays to start from; random ones are drawn from `rng`."""

    @abstractmethod
    def loss_and_gradients(
        self, parameters: Parameters, inputs: Array, targets: Array
    ) -> tuple[float, Parameters]:
        """Mean loss over the batch, and its gradient in each array, by the array's name."""

    @abstractmethod
    def probabilities(self, parameters: Parameters, inputs: Array) -> Array:
        """(n, classes) probabilities; with two classes (n,) of class 1 are enough."""

    @abstractmethod
    def data(self, site: Site) -> Split:
        """The site's examples, read from its own configuration."""

    def losses(self, probabilities: Array, targets: Array) -> Array:
        """(n,) loss of each example: cross-entropy, in nats."""
        right = probabilities[np.arange(len(targets)), targets]
        loss: Array = -np.log(np.maximum(right, np.finfo(np.float32).tiny))
        return loss

    @cached_property
    def schema(self) -> Schema:
        """The arrays of the model.

        Raises:
          HansaError: `parameters` gives no arrays.
        """
        schema = Schema.of(self._start(seed=0))
        if schema.size == 0:
            raise HansaError(
                f"{type(self).__name__}.parameters() gives no numbers to train",
                fix="return at least one named array",
            )
        return schema

    def initial(self, seed: int) -> Vector:
        """(d,) float32 parameters to start from, the same for the same seed."""
        return self.schema.flatten(self._start(seed))

    def gradient(self, params: Vector, batch: Examples) -> tuple[float, Vector]:
        """Mean loss over the batch and its (d,) float32 gradient.

        Raises:
          HansaError: `loss_and_gradients` gives other arrays than `parameters`.
        """
        views = self.schema.views(params)
        loss, gradients = self.loss_and_gradients(views, batch.inputs, batch.targets)
        return float(loss), self.schema.flatten(gradients)

    def predict(self, params: Vector, examples: Examples) -> Outputs:
        """What the model says about the examples.

        Raises:
          HansaError: `probabilities` has the wrong shape.
        """
        found = np.asarray(self.probabilities(self.schema.views(params), examples.inputs))
        if found.ndim == 1:
            found = np.stack([1 - found, found], axis=1)
        if found.ndim != 2 or len(found) != len(examples):
            raise HansaError(
                f"{type(self).__name__}.probabilities() gives shape {found.shape} for "
                f"{len(examples)} examples",
                fix="return one row per example and one column per class",
            )
        return Outputs(found, examples.targets, self.losses(found, examples.targets))

    def _start(self, seed: int) -> dict[str, Array]:
        rng = ReplayKey.of_seed(seed).generator("initial")
        return {name: np.asarray(array) for name, array in self.parameters(rng).items()}
