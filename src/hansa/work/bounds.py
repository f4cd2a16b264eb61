"""The numbers that the words of `[algorithm]` may have.

A part checks its own fields when it is made, so that the same mistake gets the same answer from
Python, from a job file and from the wire. Numbers are brought to the field's type on the way:
`client_lr = 1` and `client_lr = 1.0` are one job and must have one digest.
"""

from __future__ import annotations

import math

from hansa.errors import PlanError


def whole(part: object, *words: str) -> None:
    """Demands whole numbers from 0 on."""
    for word in words:
        value = getattr(part, word)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise _error(word, value, "a whole number from 0 on")


def positive(part: object, *words: str) -> None:
    """Demands finite numbers above 0."""
    for word in words:
        value = _number(part, word, "a number above 0")
        if value <= 0:
            raise _error(word, value, "a number above 0")


def not_negative(part: object, *words: str) -> None:
    """Demands finite numbers from 0 on."""
    for word in words:
        value = _number(part, word, "a number from 0 on")
        if value < 0:
            raise _error(word, value, "a number from 0 on")


def fraction(part: object, *words: str) -> None:
    """Demands numbers from 0 on and below 1."""
    for word in words:
        value = _number(part, word, "a number from 0 on and below 1")
        if not 0 <= value < 1:
            raise _error(word, value, "a number from 0 on and below 1")


def _number(part: object, word: str, allowed: str) -> float:
    value = getattr(part, word)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _error(word, value, allowed)
    object.__setattr__(part, word, float(value))  # the parts are frozen for everybody else
    return float(value)


def _error(word: str, value: object, allowed: str) -> PlanError:
    return PlanError(f"algorithm.{word}", f"is {value!r}, not {allowed}", f"give {allowed}")
