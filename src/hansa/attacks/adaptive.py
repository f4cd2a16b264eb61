"""Attacks that look for the strength that harms most against a rule that they know.

Damage is the distance between what the rule makes of all updates and the honest mean, as in byzfl's
Optimal_ALIE and Optimal_IPM. The strength is looked for as Shejwalkar and Houmansadr do (NDSS 2021,
algorithm 1): the step is doubled as long as damage grows, then halved around the best. A coarse
scan comes first, since damage may have several hills: a rule that leaves out what is far off
gives in to a little and bears a lot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.attacks.updates import Array, Direction, Rows, away, centre, repeated, spread
from hansa.errors import HansaError

Rule = Callable[[Array], NDArray[Any]]
"""(n, d) updates to one (d,) vector."""

SCAN = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
"""Strengths that are tried first."""

HALVINGS = 8
"""Trials around the best of them, on each side."""


def adaptive_alie(h: Array, f: int, rule: Rule) -> Rows:
    """ALIE, mu + z * s, with the z of either sign that harms most."""
    return strongest(h, f, rule, spread(h), both=True)


def adaptive_ipm(h: Array, f: int, rule: Rule) -> Rows:
    """IPM, -eps * mu, with the eps >= 0 that harms most."""
    mu = centre(h)
    # mu + x * (-mu) with x = 1 + eps.
    return strongest(h, f, rule, -mu, least=1.0)


def adaptive_min_max(h: Array, f: int, rule: Rule, direction: Direction = "unit") -> Rows:
    """Min-max without its own limit: mu + gamma * u with the gamma that harms this rule most.

    Shejwalkar and Houmansadr, NDSS 2021, section IV-B: the attack of who knows the rule. Lengths
    are in units of the largest distance between an honest update and their mean.
    """
    off = np.asarray(h, np.float64) - centre(h)
    length = float(np.sqrt(np.einsum("ij,ij->i", off, off).max()))
    u = away(h, direction)
    unit = u * (length / max(float(np.linalg.norm(u)), 1e-300))
    return strongest(h, f, rule, unit)


def strongest(
    h: Array, f: int, rule: Rule, direction: Array, *, least: float = 0.0, both: bool = False
) -> Rows:
    """Bad updates mu + x * direction with the x >= `least` that moves the rule's result most.

    Args:
      h: (n - f, d) honest updates.
      f: number of bad clients.
      rule: what will be applied; called about thirty times, or twice that with `both`.
      direction: (d,) where to.
      least: the smallest x.
      both: look at -direction as well.
    """
    mu = centre(h)

    def damage(x: float) -> float:
        bad = repeated(mu + x * direction, f)
        try:
            found = rule(np.concatenate([np.asarray(h, np.float32), bad]))
        except HansaError:
            return -1.0  # refused: no harm done
        return float(np.linalg.norm(np.asarray(found, np.float64) - mu))

    def place(x: float, sign: float) -> float:
        return sign * (least + x)

    tried = {
        place(x, sign): damage(place(x, sign))
        for sign in ((1.0, -1.0) if both else (1.0,))
        for x in (0.0, *SCAN)
    }
    best = max(tried, key=lambda x: tried[x])
    step = max(abs(best) - least, SCAN[0]) / 2
    for _ in range(HALVINGS):
        for x in (best - step, best + step):
            if x not in tried and (both or x >= least):
                tried[x] = damage(x)
        best = max(tried, key=lambda x: tried[x])
        step /= 2
    return repeated(mu + best * direction, f)
