"""Softmax regression on handwritten digits: a model that client-level privacy can afford."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import hansa
from hansa.core.vector import Vector
from hansa.examples.images.sites import names_of, share_of
from hansa.work.numpy_task import Parameters
from hansa.work.per_example import Piece

PIXELS, CLASSES = 28 * 28, 10
AT_ONCE = 1024
"""Examples whose gradients are held at once: 32 MB."""


class Digits(hansa.NumpyTask):
    """7,850 parameters; MNIST's images, divided among the clients by a Dirichlet draw of 0.3."""

    metrics = (hansa.Loss(), hansa.Accuracy())

    def parameters(self, rng: np.random.Generator) -> Parameters:  # noqa: ARG002  the seam
        """Zeros: the loss is convex."""
        return {
            "weights": np.zeros((PIXELS, CLASSES), np.float32),
            "bias": np.zeros(CLASSES, np.float32),
        }

    def probabilities(
        self, parameters: Parameters, inputs: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(n, 10) probabilities."""
        scores = inputs @ parameters["weights"] + parameters["bias"]
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return shares

    def loss_and_gradients(
        self, parameters: Parameters, inputs: NDArray[np.float32], targets: NDArray[np.int64]
    ) -> tuple[float, Parameters]:
        """Mean cross-entropy and its gradients."""
        shares = self.probabilities(parameters, inputs)
        loss = float(self.losses(shares, targets).mean())
        error = (shares - np.eye(CLASSES, dtype=np.float32)[targets]) / len(targets)
        return loss, {"weights": inputs.T @ error, "bias": error.sum(axis=0)}

    def per_example(self, params: Vector, batch: hansa.Examples) -> Iterator[Piece]:
        """The gradient of an example is the outer product of its pixels and its error."""
        views = self.schema.views(params)
        for at in range(0, len(batch), AT_ONCE):
            part = slice(at, at + AT_ONCE)
            inputs, targets = batch.inputs[part], batch.targets[part]
            shares = self.probabilities(views, inputs)
            error = shares - np.eye(CLASSES, dtype=np.float32)[targets]
            weights = (inputs[:, :, np.newaxis] * error[:, np.newaxis]).reshape(len(targets), -1)
            gradients = {"weights": weights, "bias": error}
            rows = [gradients[tensor.name] for tensor in self.schema.tensors]
            yield self.losses(shares, targets), np.concatenate(rows, axis=1)

    def clients(self, job: hansa.Job) -> tuple[str, ...]:
        """The names of the clients."""
        return names_of(job.cohort.population)

    def data(self, site: hansa.Site) -> hansa.Split:
        """One client's images, pixels from 0 to 1."""
        share = share_of(site.name, "mnist", "dirichlet")
        return hansa.Split(
            examples(share.train_inputs, share.train_targets),
            examples(share.test_inputs, share.test_targets),
        )


def examples(images: NDArray[np.uint8], targets: NDArray[np.uint8]) -> hansa.Examples:
    """Images as rows of 784 numbers from 0 to 1."""
    rows = images.reshape(len(images), PIXELS).astype(np.float32) / 255
    return hansa.Examples(rows, targets.astype(np.int64))
