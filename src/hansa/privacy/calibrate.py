"""From a target epsilon to the noise that meets it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from hansa.core.events import Event
from hansa.core.parts import Relation
from hansa.errors import HansaError
from hansa.figures import round_up, step_down, step_up
from hansa.privacy.accountants import DpAccounting, Method

MOST_NOISE = 1e6
"""A target that needs a larger noise multiplier, or meets less than its inverse, is refused."""

_Curve: TypeAlias = Callable[[float], float]
"""Epsilon by noise multiplier: falls as the noise grows."""


def calibrate(
    event_of: Callable[[float], Event],
    epsilon: float,
    delta: float,
    accountant: Method = "pld",
    relation: Relation = Relation.ADD_OR_REMOVE_ONE,
) -> float:
    """The smallest noise multiplier of four significant digits that meets (epsilon, delta).

    Four digits, rounded up: machines whose last bits differ find the same number, so that equal
    jobs compile to equal plans. It costs at most 0.1 % more noise than is needed.

    Args:
      event_of: the event of the whole job for a noise multiplier.
      epsilon: what may not be exceeded.
      delta: probability with which epsilon may not hold.
      accountant: pld or rdp.
      relation: the two datasets that are compared.

    Raises:
      HansaError: no noise can meet the target, or the event is not supported.
    """
    if not 0 < epsilon < math.inf:
        raise HansaError(f"epsilon is {epsilon:g}", fix="use a finite epsilon above 0")

    def curve(method: Method) -> _Curve:
        counter = DpAccounting(method)
        return lambda noise: counter.epsilon(event_of(noise), delta, relation)

    if accountant == "pld" and DpAccounting("rdp").unsupported(event_of(1.0), relation) is None:
        near = _smallest(curve("rdp"), epsilon, 1.0, 1.5)  # fast, and not far above
        return _smallest(curve("pld"), epsilon, near, 1.1)
    return _smallest(curve(accountant), epsilon, 1.0, 1.5)


def _smallest(curve: _Curve, target: float, start: float, factor: float) -> float:
    """The smallest number of four digits at which the curve is at most the target.

    Only numbers of four digits are tried, so the end is two neighbours: one misses the target,
    the next one meets it. A straight line in logarithms finds them in three or four steps.
    """
    low, high = _bracket(curve, target, round_up(start), factor)
    tries = 0
    while step_up(low) < high:
        tries += 1
        guess = math.sqrt(low * high)
        if tries % 4:  # every fourth step halves, so that the end is never far
            guess = _interpolate(low, high, curve(low), curve(high), target)
        guess = min(max(round_up(guess), step_up(low)), step_down(high))
        low, high = (low, guess) if curve(guess) <= target else (guess, high)
    return high


def _bracket(curve: _Curve, target: float, start: float, factor: float) -> tuple[float, float]:
    """A noise multiplier that misses the target and one, `factor` larger, that meets it."""
    low = high = start
    while curve(high) > target:
        low, high = high, round_up(factor * high)
        if high > MOST_NOISE:
            raise HansaError(
                f"no noise brings epsilon down to {target:g}",
                fix="allow a larger epsilon, fewer rounds or fewer clients per round, or more "
                "noise on the metrics",
            )
    while curve(low) <= target:
        low, high = round_up(low / factor), low
        if low < 1 / MOST_NOISE:
            raise HansaError(
                f"epsilon stays below {target:g} without noise", fix="use a smaller epsilon"
            )
    return low, high


def _interpolate(low: float, high: float, above: float, below: float, target: float) -> float:
    """Where a power law through both points meets the target."""
    if not (math.isfinite(above) and below > 0):
        return math.sqrt(low * high)
    share = math.log(above / target) / math.log(above / below)
    return low * math.exp(share * math.log(high / low))
