"""The L2 norm of a vector, as exactly as it is promised."""

from __future__ import annotations

import math

import numpy as np

from hansa.core.vector import Vector, blocks

TOLERANCE = 1e-9
"""Relative difference that two machines may find between norms of the same vector.

Products of float32 numbers are exact in float64 and cannot overflow there; what is left is the
rounding of the additions: at most 65,536 * 2**-53 = 7e-12 within a block, however it is ordered,
and 2**-53 for each block.
"""


def l2_norm(vector: Vector) -> float:
    """The norm, added up in float64: right for denormal and for huge float32 coordinates.

    Returns:
      inf or NaN if a coordinate is not finite; a finite float32 vector has a finite norm.
    """
    total = 0.0
    with np.errstate(invalid="ignore"):  # NaN in, NaN out: the caller asks for it
        for block in blocks(len(vector)):
            wide = vector[block].astype(np.float64)
            total += float(wide @ wide)
    return math.sqrt(total)
