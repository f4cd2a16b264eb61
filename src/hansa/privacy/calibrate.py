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

_COARSEST, _COARSE = 1e-2, 1e-3
"""Grids that a search by PLD starts with: 30 and 10 times as fast, good to three digits or more."""

_CLOSE = 1 + 1e-9
"""Where the answer is one of two neighbours, or all but."""

_BENDS = 6
"""How often the rough curve is bent; it settles at the second time."""

_FAR = 2.0
"""A bracket grows by at most this factor at once."""

_Curve: TypeAlias = Callable[[float], float]
"""Epsilon by noise multiplier: falls as the noise grows."""


def calibrate(
    event_of: Callable[[float], Event],
    epsilon: float,
    delta: float,
    accountant: Method = "pld",
    relation: Relation = Relation.ADD_OR_REMOVE_ONE,
    *,
    quick: bool = False,
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
      quick: be content with three digits and a coarser bound, which takes a few tenths of a second
        by PLD: the target is met all the same, with up to 2 % more noise.

    Raises:
      HansaError: no noise can meet the target, or the event is not supported.
    """
    if not 0 < epsilon < math.inf:
        raise HansaError(f"epsilon is {epsilon:g}", fix="use a finite epsilon above 0")

    counter, rdp = DpAccounting(accountant), DpAccounting("rdp")

    def exact(noise: float) -> float:
        return counter.epsilon(event_of(noise), delta, relation)

    if accountant == "rdp":
        return _smallest(exact, epsilon, 1.0, 1.5)

    def rough(by: DpAccounting, grid: float) -> _Curve:
        return lambda noise: by.estimate(event_of(noise), delta, relation, grid)

    near = 1.0
    if rdp.unsupported(event_of(near), relation) is None:  # cheap from afar, and not far above
        near = _smallest(rough(rdp, _COARSEST), epsilon, near, 1.5, digits=2)
    near = _smallest(rough(counter, _COARSEST), epsilon, near, 1.1, digits=3)
    if quick:
        return _smallest(rough(counter, _COARSE), epsilon, near, 1.01, digits=3)
    return _certified(exact, rough(counter, _COARSE), epsilon, near)


def gaussian_noise(epsilon: float, delta: float) -> float:
    """The exact noise multiplier of one Gaussian release that meets (epsilon, delta).

    Balle and Wang (ICML 2018, algorithm 1), by dp-accounting: valid at every epsilon, unlike the
    classical sqrt(2 ln(1.25 / delta)) / epsilon, which is too large below 1 and proves nothing
    above.

    Raises:
      HansaError: epsilon is not above 0 and finite, or delta is no probability.
    """
    if not (0 < epsilon < math.inf and 0 < delta < 1):
        raise HansaError(
            f"no noise is made for epsilon {epsilon:g} at delta {delta:g}",
            fix="use a finite epsilon above 0 and a delta between 0 and 1",
        )
    from dp_accounting import get_sigma_gaussian

    return float(get_sigma_gaussian(epsilon, delta))


def _certified(exact: _Curve, rough: _Curve, target: float, start: float) -> float:
    """The smallest number of four digits at which the exact curve is at most the target.

    The rough curve is bent so that it meets the exact one where the answer seems to be; where the
    bent curve leads to the same answer, the exact one was computed there and meets the target. That
    takes one or two exact values. If it does not settle, the exact curve is searched alone.
    """
    near = _smallest(rough, target, start, 1.01)
    for _ in range(_BENDS):
        ratio = exact(near) / rough(near)
        if not 0 < ratio < math.inf:
            break
        found = _smallest(lambda noise, r=ratio: r * rough(noise), target, near, _CLOSE)  # type: ignore[misc]
        if found == near:
            return near
        near = found
    return _smallest(exact, target, near, _CLOSE)


def _smallest(curve: _Curve, target: float, start: float, factor: float, digits: int = 4) -> float:
    """The smallest number of so many digits at which the curve is at most the target.

    Only numbers of that many digits are tried, so the end is two neighbours: one misses the target,
    the next one meets it. A straight line in logarithms finds them in three or four steps.
    """
    low, high = _bracket(curve, target, round_up(start, digits), factor, digits)
    tries = 0
    while step_up(low, digits) < high:
        tries += 1
        guess = math.sqrt(low * high)
        if tries % 4:  # every fourth step halves, so that the end is never far
            guess = _interpolate(low, high, curve(low), curve(high), target)
        guess = min(max(round_up(guess, digits), step_up(low, digits)), step_down(high, digits))
        low, high = (low, guess) if curve(guess) <= target else (guess, high)
    return high


def _bracket(
    curve: _Curve, target: float, start: float, factor: float, digits: int
) -> tuple[float, float]:
    """A noise multiplier that misses the target and one that meets it.

    They differ by `factor`, or by several times that where `start` was far from both.
    """
    low = high = start
    reach = factor
    while curve(high) > target:
        low, high = high, max(round_up(reach * high, digits), step_up(high, digits))
        reach = max(reach, min(reach**4, _FAR))
        if high > MOST_NOISE:
            raise HansaError(
                f"no noise brings epsilon down to {target:g}",
                fix="allow a larger epsilon, fewer rounds or fewer clients per round, or more "
                "noise on the metrics",
            )
    reach = factor
    while curve(low) <= target:
        low, high = min(round_up(low / reach, digits), step_down(low, digits)), low
        reach = max(reach, min(reach**4, _FAR))
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
