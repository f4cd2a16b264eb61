"""An attack that uses where the last round went: relocated orthogonal perturbation.

Özfatura et al., 2022 (arXiv 2208.09894): orthogonal to where honest updates and the last result
point, as far off as honest ones are. What else uses the last round is in `projected`: Neurotoxin.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hansa.attacks.updates import Array, Rows, centre, repeated

BLEND = 0.9
"""Share of the honest mean in the reference point; the rest is the last result."""


def rop(h: Array, f: int, previous: Array, angle: float = 90.0, length: float = 1.0) -> Rows:
    """Relocated orthogonal perturbation: turns a rule that looks back at its last result.

    The reference is 0.9 mu + 0.1 previous. A perturbation -sign(mu) loses its part along the
    reference, and is turned by the angle between the reference, at 0 degrees, its orthogonal
    complement, at 90, and the opposite of the reference, at 180. The bad update is the reference
    and that direction times a length. In the paper, where centred clipping has a radius of 1,
    that is a number; here it is relative to the median distance of honest updates from the
    reference, which is the radius that clipping has here. Written from the paper's description;
    not compared with its authors' program.

    Args:
      h: (n - f, d) honest updates.
      f: number of bad clients.
      previous: (d,) result of the last round; zeros in the first.
      angle: in degrees.
      length: of the perturbation, in median distances.
    """
    mu = centre(h)
    reference = BLEND * mu + (1 - BLEND) * np.asarray(previous, np.float64)
    along = _unit(reference)
    pushed = -np.sign(mu)
    across = _unit(pushed - (pushed @ along) * along)
    turn = math.radians(angle)
    direction = math.cos(turn) * along + math.sin(turn) * across
    gaps = np.linalg.norm(np.asarray(h, np.float64) - reference, axis=1)
    return repeated(reference + length * float(np.median(gaps)) * direction, f)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction of a vector; zeros have none."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-300))
