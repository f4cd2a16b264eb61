"""What an event costs a group: k units that are hidden together, such as a family's records.

The general rule (k epsilon, k e**((k - 1) epsilon) delta) is valid and useless for k above a few.
Here a group is stated as an event of its own, which the accountants count tightly:

| event                          | the event for k units                                          |
|--------------------------------|----------------------------------------------------------------|
| Gaussian(z)                    | Gaussian(z / k): k times the sensitivity                       |
| PoissonSampled(q, Gaussian(z)) | MixtureOfGaussians: i of k are drawn, with binomial chances    |
| ZCDp(rho)                      | ZCDp(k**2 rho): Bun and Steinke, TCC 2016, proposition 27      |
| SelfComposed, Composed         | that of their parts                                            |
| NoOp, NonPrivate               | itself                                                         |

A mixture holds for independent draws of the group's members, whose updates may all point the same
way (Choquette-Choo et al., ICLR 2024, arXiv 2310.15526; Charles et al., 2024, arXiv 2407.07737).
"""

from __future__ import annotations

import math

from hansa.core.events import (
    Composed,
    Event,
    Gaussian,
    MixtureOfGaussians,
    NonPrivate,
    NoOp,
    PoissonSampled,
    SelfComposed,
    ZCDp,
)
from hansa.errors import HansaError
from hansa.privacy.joint import joint


def of_group(event: Event, size: int) -> Event:
    """The event for `size` units that come or go together; counted under ADD_OR_REMOVE_ONE.

    Args:
      event: what it is for one unit.
      size: units in a group, k.

    Raises:
      HansaError: the group is empty, or no tight statement is known for the event.
    """
    if size < 1:
        raise HansaError(f"a group of {size} units is none", fix="use at least 1")
    if size == 1:
        return event
    match event:
        case NoOp() | NonPrivate():
            return event
        case Gaussian(noise_multiplier):
            return Gaussian(noise_multiplier / size)
        case ZCDp(rho, 0.0):
            return ZCDp(size**2 * rho)
        case SelfComposed(inner, count):
            return SelfComposed(of_group(inner, size), count)
        case Composed(parts):
            return Composed(tuple(of_group(part, size) for part in parts))
        case PoissonSampled(rate, inner):
            gaussian = joint(inner)
            if gaussian is not None:
                return _mixture(rate, gaussian.noise_multiplier, size)
    raise HansaError(
        f"what {type(event).__name__} costs a group is not known",
        fix="use Gaussian noise, with Poisson sampling or without",
    )


def _mixture(rate: float, noise_multiplier: float, size: int) -> MixtureOfGaussians:
    drawn = range(size + 1)
    return MixtureOfGaussians(
        standard_deviation=noise_multiplier,
        sensitivities=tuple(float(i) for i in drawn),
        sampling_probs=tuple(
            math.comb(size, i) * rate**i * (1 - rate) ** (size - i) for i in drawn
        ),
    )
