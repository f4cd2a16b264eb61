"""Several Gaussian releases about the same clients are one Gaussian release."""

from __future__ import annotations

import math

from hansa.core.events import Composed, Event, Gaussian, SelfComposed


def joint(event: Event) -> Gaussian | None:
    """The one Gaussian event that reveals exactly as much as all Gaussians in `event`.

    Divide each sum by its own noise: together they are one vector with unit noise, whose
    sensitivity squared is the sum of 1 / z**2 (McMahan et al., 2018, arXiv 1812.06210, section 3).
    Accountants know sampling of one Gaussian, so this is what makes a delta and its metrics,
    released from the same sample, one event.

    Returns:
      None if `event` holds anything but Gaussians.
    """
    inverse = _inverse_variance(event)
    return Gaussian(inverse**-0.5) if inverse is not None and inverse > 0 else None


def _inverse_variance(event: Event) -> float | None:
    match event:
        case Gaussian(noise_multiplier):
            return noise_multiplier**-2 if noise_multiplier > 0 else math.inf
        case SelfComposed(inner, count):
            inverse = _inverse_variance(inner)
            return None if inverse is None else count * inverse
        case Composed(parts):
            found = [_inverse_variance(part) for part in parts]
            return math.fsum(v for v in found if v is not None) if None not in found else None
        case _:
            return None
