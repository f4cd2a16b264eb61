"""What bad clients remember from round to round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hansa.attacks.updates import Array
from hansa.core.contribute import RoundTask
from hansa.core.vector import Vector


@dataclass(slots=True)
class Memory:
    """Their first updates, and the last two models that they received."""

    _first: dict[str, Vector] = field(default_factory=dict, repr=False)
    _round: int = -1
    _params: Vector | None = field(default=None, repr=False)
    _step: Vector | None = field(default=None, repr=False)

    def first(self, clients: Sequence[str], own: Array) -> Array:
        """(f, d) what each gave when it trained for the first time; `own` for whoever is new."""
        for client, row in zip(clients, own, strict=True):
            self._first.setdefault(client, np.array(row))
        return np.stack([self._first[client] for client in clients])

    def step(self, task: RoundTask) -> Vector:
        """(d,) what the model moved by between the last round seen and this one."""
        if task.round != self._round:
            if self._params is not None:
                self._step = task.params - self._params
            self._round, self._params = task.round, np.array(task.params)
        return np.zeros_like(task.params) if self._step is None else self._step
