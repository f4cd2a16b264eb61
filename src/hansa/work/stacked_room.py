"""Memory for stacks, used again by one stack after the other.

Fresh memory comes from the operating system page by page. And a tape (`hansa.work.stacked_tape`)
holds for the memory that it was recorded on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from hansa.core.vector import Schema, Vector

MOST_KINDS = 8
"""Most kinds of inputs that have memory at the same time."""


@dataclass(slots=True)
class Room:
    """What the stacks of one task need, as large as the largest so far.

    Attributes:
      schema: of the task's parameters.
    """

    schema: Schema
    _params: Vector | None = None
    _received: list[torch.Tensor] = field(default_factory=list)
    _models: list[torch.Tensor] = field(default_factory=list)
    _inputs: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict)

    def received(self, params: Vector) -> list[torch.Tensor]:
        """(1, *shape) copies of the (d,) parameters; those of last time if they are the same."""
        if self._params is not params:
            views = self.schema.views(np.asarray(params, np.float32))
            self._received = [torch.tensor(views[t.name])[None] for t in self.schema.tensors]
            self._params = params
        return self._received

    def models(self, rows: int, params: Vector) -> list[torch.Tensor]:
        """(k, *shape) arrays of k models, each with these parameters."""
        received = self.received(params)
        if not self._models or len(self._models[0]) < rows:
            self._models = [torch.empty((rows, *array.shape[1:])) for array in received]
        models = [array[:rows] for array in self._models]
        for model, array in zip(models, received, strict=True):
            model.copy_(array)
        return models

    def inputs(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> torch.Tensor:
        """Memory for the (k, b, ...) inputs of a step; what is in it is of no meaning."""
        kind = (shape[1:], dtype)
        kept = self._inputs.get(kind)
        if kept is None or len(kept) < shape[0]:
            if len(self._inputs) >= MOST_KINDS:
                self._inputs.clear()
            kept = self._inputs[kind] = torch.from_numpy(np.zeros(shape, dtype))
        return kept[: shape[0]]
