"""Robust rules by name, each called with updates, how many are bad, and threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hansa.aggregators import robust
from hansa.core.keys import ReplayKey

KEY = ReplayKey.of_seed(7)
RADIUS = 2.0
N, F = 11, 2
"""The fewest updates with which every rule bears two bad ones: Bulyan needs 4 f + 3."""

Rule = Callable[..., Any]


def clipping(x: Any, f: int, **options: Any) -> Any:
    """Centred clipping around zero, or another `center`, with RADIUS or another `radius`."""
    center = options.pop("center", None)
    if center is None:
        center = np.zeros(len(x[0]), np.float32)
    return robust.centered_clipping(x, options.pop("radius", RADIUS), center, **options)


CENTRES: dict[str, Rule] = {
    "median": lambda x, f, **options: robust.median(x, **options),
    "trimmed_mean": robust.trimmed_mean,
    "krum": robust.krum,
    "multi_krum": robust.multi_krum,
    "bulyan": robust.bulyan,
    "geometric_median": lambda x, f, **options: robust.geometric_median(x, **options),
    "centered_clipping": clipping,
    "dnc": lambda x, f, **options: robust.dnc(x, f, KEY, **options),
}
"""Rules that give one vector."""

MIXERS: dict[str, Rule] = {
    "nearest_neighbor_mixing": robust.nearest_neighbor_mixing,
    "bucketing": lambda x, f, **options: robust.bucketing(x, 2, KEY, **options),
}
"""Rules that give several."""

ALL = CENTRES | MIXERS


def cohort(n: int = N, d: int = 6, seed: int = 0) -> np.ndarray:
    """(n, d) float32 updates of honest clients."""
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
