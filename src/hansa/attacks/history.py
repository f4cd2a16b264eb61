"""Attacks that use what the last round did: relocated perturbations, and backdoors that last.

| attack       | sends                                             | source                        |
|--------------|---------------------------------------------------|-------------------------------|
| `rop`        | orthogonal to where honest updates and the last   | Özfatura et al., 2022         |
|              | result point, as far off as honest ones are       | (arXiv 2208.09894)            |
| `neurotoxin` | a backdoor's update without the coordinates that  | Zhang et al., ICML 2022       |
|              | the last round moved most                         | (arXiv 2206.10341)            |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hansa.attacks.updates import Array, Rows, centre, repeated, single

BLEND = 0.9
"""Share of the honest mean in the reference point; the rest is the last result."""

HEAVY = 0.05
"""Share of the coordinates that Neurotoxin leaves alone."""


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


def neurotoxin(own: Array, previous: Array, heavy: float = HEAVY) -> Rows:
    """The bad clients' own updates, zero where the last round moved the model most.

    Honest clients seldom write to the other coordinates, so that what is put there lasts after
    the attackers are gone. The paper projects each step of their training; this projects its
    result.

    Args:
      own: (f, d) what training on poisoned data gave.
      previous: (d,) what the model moved by before; zeros: nothing is left alone.
      heavy: share of the coordinates that are left alone.
    """
    kept = np.array(own, np.float64)
    count = int(heavy * kept.shape[1])
    if count and np.any(previous):
        moved = np.abs(np.asarray(previous, np.float64))
        kept[:, np.argsort(-moved, kind="stable")[:count]] = 0.0
    return single(kept)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction of a vector; zeros have none."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-300))
