"""Updates that no honest client can send: what validation, not a rule, has to stop or bear.

Each lie takes a whole encoded update (size,) and its layout, and gives what is sent instead.

| lie           | what is sent                                                      |
|---------------|-------------------------------------------------------------------|
| `nan`         | one coordinate of the delta is not a number                       |
| `infinite`    | one is infinite                                                   |
| `huge`        | the delta is the largest finite float32 everywhere                |
| `denormal`    | the delta is the smallest positive float32 everywhere: not a lie |
| `scaled`      | the encoded delta a thousand times as long, past the client's own clip |
| `heavy`       | the weight is 2^30                                                |
| `negative`    | the weight is negative                                            |
| `short`       | one coordinate is missing                                         |
| `long`        | there is one too many                                             |
| `matrix`      | the right number of coordinates in another shape                  |
| `wrong_dtype` | float64 numbers                                                   |
| `words`       | the bytes of integers                                             |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from hansa.core.vector import Layout, Vector

Lie = Callable[[Vector, Layout], Vector]
"""An encoded update and its layout, to what is sent instead."""


def _delta(change: Callable[[Vector], None]) -> Lie:
    return _segment("delta", change)


def _segment(name: str, change: Callable[[Vector], None]) -> Lie:
    def lie(vector: Vector, layout: Layout) -> Vector:
        found = np.array(vector)
        if found.dtype.kind == "f" and len(layout.slice(found, name)):
            with np.errstate(all="ignore"):
                change(layout.slice(found, name))
        return found

    return lie


def _first(value: float) -> Callable[[Vector], None]:
    def change(delta: Vector) -> None:
        delta[0] = value

    return change


def _all(value: float) -> Callable[[Vector], None]:
    def change(delta: Vector) -> None:
        delta[:] = value

    return change


def _times(factor: float) -> Callable[[Vector], None]:
    def change(delta: Vector) -> None:
        delta *= np.float32(factor)

    return change


LIES: Mapping[str, Lie] = MappingProxyType(
    {
        "nan": _delta(_first(float("nan"))),
        "infinite": _delta(_first(float("inf"))),
        "huge": _delta(_all(float(np.finfo(np.float32).max))),
        "denormal": _delta(_all(float(np.finfo(np.float32).smallest_subnormal))),
        "scaled": _delta(_times(1000.0)),
        "heavy": _segment("weight", _all(2.0**30)),
        "negative": _segment("weight", _all(-1.0)),
        "short": lambda vector, _: vector[:-1].copy(),
        "long": lambda vector, _: np.append(vector, vector[-1:]),
        "matrix": lambda vector, _: vector.reshape(1, -1).copy(),
        "wrong_dtype": lambda vector, _: vector.astype(np.float64),
        "words": lambda vector, _: vector.view(np.int32).copy(),
    }
)
"""Lies by name. Those about numbers leave an update of ring words as it is."""
