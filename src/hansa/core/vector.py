"""Flat vectors: a model's tensors as one buffer, an update's parts as named segments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hansa.core import canonical
from hansa.errors import HansaError

Vector: TypeAlias = NDArray[Any]
"""(d,) float32 for models and updates, unsigned integers in a ring, int64 in exact sums."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name and shape of one array of a model; its elements are float32."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Schema:
    """The arrays that a model consists of, in the order in which they are laid out."""

    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Schema:
        """The schema of named arrays, in the mapping's order."""
        return cls(tuple(Tensor(name, tuple(a.shape)) for name, a in arrays.items()))

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def digest(self) -> str:
        """SHA-256 of the names, shapes and element type."""
        return canonical.digest(["float32", self])

    def flatten(self, arrays: Mapping[str, NDArray[Any]]) -> Vector:
        """Lays the arrays out as one (d,) float32 vector.

        Raises:
          HansaError: an array is missing, is not expected, or has another shape.
        """
        self._expect({name: tuple(a.shape) for name, a in arrays.items()})
        flat = np.empty(self.size, np.float32)
        for name, view in self.views(flat).items():
            view[...] = arrays[name]
        return flat

    def views(self, flat: Vector) -> dict[str, NDArray[Any]]:
        """The model's arrays as views into a (d,) vector: writing to one writes to the vector."""
        if flat.shape != (self.size,):
            raise HansaError(
                f"a vector of shape {flat.shape} cannot hold {self.size:,} parameters",
                fix="use the vector that belongs to this model",
            )
        views, start = {}, 0
        for tensor in self.tensors:
            views[tensor.name] = flat[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size
        return views

    def _expect(self, found: Mapping[str, tuple[int, ...]]) -> None:
        expected = {t.name: t.shape for t in self.tensors}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise HansaError(
                    f"tensor '{name}' has shape {found.get(name)}, expected {expected.get(name)}",
                    fix="give exactly the tensors that the model's schema lists",
                )


@dataclass(frozen=True, slots=True)
class Segment:
    """A named run of coordinates inside an update."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The segments of an update, in order: the delta, the weight, the metric sums.

    They travel as one vector, so that what hides the delta hides the weight and the metrics too.
    """

    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Coordinates of a whole update."""
        return sum(segment.size for segment in self.segments)

    @property
    def digest(self) -> str:
        """SHA-256 of the names and sizes."""
        return canonical.digest(self)

    def bounds(self, name: str) -> tuple[int, int]:
        """Start and end of a segment; an absent segment is empty."""
        start = 0
        for segment in self.segments:
            if segment.name == name:
                return start, start + segment.size
            start += segment.size
        return start, start

    def slice(self, vector: Vector, name: str) -> Vector:
        """A view of one segment of an update."""
        start, end = self.bounds(name)
        return vector[start:end]

    def without(self, name: str) -> Layout:
        """The layout of updates that lack a segment."""
        return Layout(tuple(s for s in self.segments if s.name != name))


def sha256(vector: Vector) -> str:
    """SHA-256 of a vector's bytes, little-endian, in hexadecimal: a model's name."""
    contiguous = np.ascontiguousarray(vector, vector.dtype.newbyteorder("<"))
    return hashlib.sha256(contiguous.data).hexdigest()


def blocks(size: int, step: int = 65_536) -> Sequence[slice]:
    """Slices that cover a vector in pieces small enough to stay in the processor's cache."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def narrowed(step: Vector) -> Vector:
    """(d,) float32 memory inside a (d,) float64 vector that is consumed from front to back.

    Writing element i overwrites what was read at element i / 2 at the latest, so whoever reads a
    piece before writing it needs no memory of its own for the result.
    """
    return step.view(np.float32)[: len(step)]
