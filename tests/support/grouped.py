"""Jobs of masked groups with a standing, and an attack that masks hide: past the client's clip."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.attacks.catalogue import Attack
from hansa.core.job import Aggregation, Cohort, Defend, Quantization, Rounds, SecureAggregation
from hansa.core.vector import Layout, Vector

TOWNS = (
    "bergen", "bremen", "danzig", "kiel", "luebeck", "narva",
    "reval", "riga", "rostock", "stettin", "visby", "wismar",
)  # fmt: skip
LIAR = "kiel"


def against(vector: Vector, layout: Layout) -> Vector:
    """The delta turned round and 20 times as long, in the ring; a measurement has none."""
    found = np.array(vector)
    delta = layout.slice(found, "delta")
    signed = delta.view(f"i{delta.itemsize}")
    signed *= -20
    return found


AGAINST = Attack("against", knows="own", lie=against)

WORDS: dict[str, Any] = {
    "cohort": Cohort(population=len(TOWNS)),
    "rounds": Rounds(count=18, quorum=10),
    "aggregation": Aggregation(rule="median", clip=0.3, weighting="uniform", max_weight=64.0),
    "quantization": Quantization(step=1e-5),
    "secure_aggregation": SecureAggregation(enabled=True, groups=5),
    "defend": Defend(standing=True),
}
"""Five groups of two or three; two clients at most may be quarantined."""
