"""Numbers of a few significant digits: what people read, and what all machines agree on."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context


def round_up(value: float, digits: int = 4) -> float:
    """The smallest number of `digits` significant decimal digits that is at least `value`.

    | value            | result                  |
    |------------------|-------------------------|
    | 1.00001          | 1.001                   |
    | 2.5              | 2.5, it is short enough |
    | 9.9999           | 10.0                    |
    | 0.0, inf, nan    | the same                |
    """
    value = float(value)
    if value == 0 or not math.isfinite(value):
        return value
    context = Context(prec=digits, rounding=ROUND_CEILING)
    return float(context.create_decimal(repr(value)))


def step_up(value: float, digits: int = 4) -> float:
    """The next number of `digits` significant digits above `value`."""
    context = Context(prec=digits)
    return float(context.next_plus(context.create_decimal(repr(value))))


def step_down(value: float, digits: int = 4) -> float:
    """The next number of `digits` significant digits below `value`."""
    context = Context(prec=digits)
    return float(context.next_minus(context.create_decimal(repr(value))))
