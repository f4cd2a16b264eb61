"""Canary clients: many at once, each with an update that only it can have sent.

The canaries of one run share the model's coordinates: each owns a block of them and sends random
signs there, zeros elsewhere, so that no two disturb each other and all of them together cost no
more memory than one model. A run begins at a random coordinate, so that over several runs every
coordinate carries canaries.

The other clients of the population are there and hold no data. Differential privacy promises to
hold for that federation, too; it is the hardest one: whoever knows everybody else's data could
subtract it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.core.parts import ClientWork, Context, Examples, ServerOptimizer, Split
from hansa.core.vector import Vector
from hansa.privacy.audits.one_run import Coins, Floats

OVERSHOOT = 4.0
"""How far beyond the norm bound a canary's delta is: the job's own clip must cut it."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Unit vectors with disjoint supports.

    Attributes:
      count: number of canaries m, at most the number of parameters.
      signs: (d,) random signs.
      shift: coordinate at which the first block begins; blocks go round the end.
    """

    count: int
    signs: Vector = field(repr=False)
    shift: int = 0

    @classmethod
    def draw(cls, count: int, size: int, key: ReplayKey) -> Blocks:
        """Random signs and a random start.

        Args:
          count: canaries; as many as there are parameters at most.
          size: number of parameters d.
          key: what they follow from.
        """
        rng = key.generator("canaries")
        signs = (2 * rng.integers(0, 2, size, dtype=np.int8) - 1).astype(np.float32)
        return cls(min(count, size), signs, int(rng.integers(size)))

    @property
    def width(self) -> int:
        """Coordinates of one block."""
        return len(self.signs) // self.count

    def vector(self, number: int) -> Vector:
        """(d,) float32 the canary's direction, of norm 1."""
        places = (self.shift + number * self.width + np.arange(self.width)) % len(self.signs)
        found = np.zeros(len(self.signs), np.float32)
        found[places] = self.signs[places] / math.sqrt(self.width)
        return found

    def look(self, step: Vector) -> Floats:
        """(2, m) each canary's inner product with a vector, and the energy of the rest there."""
        inside = np.roll(step * self.signs, -self.shift)[: self.count * self.width]
        rows = inside.astype(np.float64).reshape(self.count, self.width)
        found = rows.sum(axis=1) / math.sqrt(self.width)
        rest = np.maximum((rows**2).sum(axis=1) - found**2, 0.0)
        return np.stack([found, rest])


@dataclass(frozen=True, slots=True)
class CanaryWork:
    """Client work where canaries send what they were given, and all others work as they did.

    Attributes:
      inner: the job's own work.
      deltas: what each canary sends, by its name; called when it is due.
    """

    inner: ClientWork[Any]
    deltas: Mapping[str, Vector] = field(repr=False)

    def batches(self, examples: int, ctx: Context) -> Iterator[NDArray[Any]]:
        """None for a canary."""
        if ctx.client not in self.deltas:
            yield from self.inner.batches(examples, ctx)

    def init(self, shared: Vector, ctx: Context) -> tuple[str, Any]:
        """Remembers whose state it is."""
        if ctx.client in self.deltas:
            return ctx.client, None
        return ctx.client, self.inner.init(shared, ctx)

    def step(self, state: tuple[str, Any], batch: Examples, ctx: Context) -> tuple[str, Any]:
        """The job's own step."""
        return state[0], self.inner.step(state[1], batch, ctx)

    def finish(self, shared: Vector, state: tuple[str, Any]) -> tuple[Vector, float]:
        """The canary's delta, or the client's own."""
        if state[0] in self.deltas:
            return self.deltas[state[0]], 0.0
        return self.inner.finish(shared, state[1])


@dataclass(frozen=True, slots=True)
class Deltas(Mapping[str, Vector]):
    """What canaries send, made when it is asked for: a whole cohort would not fit in memory.

    Attributes:
      blocks: the canaries' directions.
      lengths: the length of each canary's delta, by its name, in the order of the blocks; may be
        negative.
    """

    blocks: Blocks
    lengths: Mapping[str, float]

    def __getitem__(self, name: str) -> Vector:
        number = list(self.lengths).index(name)
        delta: Vector = np.float32(self.lengths[name]) * self.blocks.vector(number)
        return delta

    def __contains__(self, name: object) -> bool:
        return name in self.lengths

    def __iter__(self) -> Iterator[str]:
        return iter(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, slots=True)
class Watched:
    """A server optimizer that also shows what it was given: the public mean of the round.

    Nothing before the mechanism is seen here, so whatever is made of it is post-processing.

    Attributes:
      inner: the job's own optimizer.
      look: what is kept of a round, from the parameters before it and its public mean.
    """

    inner: ServerOptimizer[Any]
    look: Any

    def init(self, params: Vector) -> tuple[Any, Any]:
        """Nothing seen yet."""
        return None, self.inner.init(params)

    def apply(
        self, state: tuple[Any, Any], params: Vector, step: Vector
    ) -> tuple[tuple[Any, Any], Vector]:
        """What was seen in this round, with the job's own step; `step` is consumed."""
        seen = self.look(params, step)
        inner, after = self.inner.apply(state[1], params, step)
        return (seen, inner), after


def split_of(examples: int) -> Split:
    """A client that counts for so many examples, which nobody ever looks at."""
    nothing = np.broadcast_to(np.int64(0), (examples,))
    none = Examples(nothing[:0], nothing[:0])
    return Split(Examples(nothing, nothing), none)


def fair_coins(count: int, key: ReplayKey) -> Coins:
    """(count,) one fair coin for each canary: whether it is in."""
    return key.generator("coins").integers(0, 2, count).astype(np.bool_)
