"""Deliberately odd parts: they prove that what is handed in is what is called."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hansa.core.parts import Context, Dropout, Facts, Partial, Role, Update
from hansa.core.spec import Reader, UpdateSpec
from hansa.core.vector import Layout, Vector


@dataclass(frozen=True)
class Odd:
    """A stage that changes nothing and can be told how to lie about it."""

    role: Role = Role.SHAPE

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        return spec

    def encode(self, update: Update, ctx: Context) -> Update:
        return update

    def admit(self, update: Update, facts: Facts) -> None:
        """Everything is welcome."""

    def decode(self, total: Vector, layout: Layout) -> Vector:
        return total


@dataclass(frozen=True)
class Hide(Odd):
    """Says that only the sum can be read, as masks will."""

    role: Role = Role.HIDE

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        return replace(spec, reader=Reader.SUM)


@dataclass(frozen=True)
class PlusOne(Odd):
    """Adds 1 to each decoded coordinate of the sum."""

    def decode(self, total: Vector, layout: Layout) -> Vector:
        return total + 1


@dataclass(frozen=True)
class Times(Odd):
    """Multiplies each decoded coordinate of the sum."""

    factor: float = 2.0

    def decode(self, total: Vector, layout: Layout) -> Vector:
        return total * self.factor


class Always42:
    """A server optimizer that counts its calls in its state and always answers 42."""

    def init(self, params: Vector) -> tuple[Vector, ...]:
        return (np.zeros(1),)

    def apply(
        self, state: tuple[Vector, ...], params: Vector, step: Vector
    ) -> tuple[tuple[Vector, ...], Vector]:
        return (state[0] + 1, step.copy()), np.full(len(params), 42, np.float32)


@dataclass(frozen=True)
class Silent:
    """An engine whose clients never answer; it remembers whom it asked."""

    asked: list[tuple[str, ...]]
    real: bool = False

    async def gather(self, task, cohort):
        self.asked.append(tuple(cohort))
        for client in cohort:
            yield Dropout(client, "asleep")


@dataclass(frozen=True)
class Unreachable:
    """An engine that must not be used."""

    real: bool = False

    async def gather(self, task, cohort):
        if task is not None:
            raise AssertionError("clients were contacted")
        yield Partial(None, ())
