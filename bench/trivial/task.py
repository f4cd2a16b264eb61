"""A model that does nothing, of any size: what remains is the cost of a round itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from hansa.core.metrics import Accuracy, Metric, Outputs
from hansa.core.parts import Examples, Site, Split
from hansa.core.vector import Schema, Tensor, Vector


class Trivial:
    """One array of `size` numbers; a step adds the same small number to each."""

    size = 1_663_370
    metrics: Sequence[Metric] = (Accuracy(),)

    @cached_property
    def schema(self) -> Schema:
        """One array."""
        return Schema((Tensor("weights", (self.size,)),))

    @cached_property
    def _slope(self) -> Vector:
        return np.full(self.size, -1e-3, np.float32)

    def initial(self, seed: int) -> Vector:
        """(size,) numbers that do not compress to nothing."""
        return np.random.default_rng(seed).normal(size=self.size).astype(np.float32)

    def gradient(self, params: Vector, batch: Examples) -> tuple[float, Vector]:  # noqa: ARG002
        """The same slope everywhere."""
        return 1.0, self._slope

    def predict(self, params: Vector, examples: Examples) -> Outputs:  # noqa: ARG002
        """The same answer for everything."""
        halves = np.full((len(examples), 2), 0.5)
        return Outputs(halves, examples.targets, np.full(len(examples), np.log(2)))

    def data(self, site: Site) -> Split:  # noqa: ARG002
        """Ten examples of nothing."""
        examples = Examples(np.zeros((10, 1), np.float32), np.zeros(10, np.int64))
        return Split(examples, examples)


class Trivial25M(Trivial):
    """The same with 25 million parameters, 100 MB."""

    size = 25_000_000


class TrivialTiny(Trivial):
    """The same with a thousand parameters."""

    size = 1_000
