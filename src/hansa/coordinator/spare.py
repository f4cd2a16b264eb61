"""The memory of a round's sum, used again in the next round of the same job.

Fresh memory comes from the operating system page by page, which takes longer than adding an update.
So a job that runs keeps the memory of one sum between its rounds too.
"""

from __future__ import annotations

import numpy as np

from hansa.core.vector import Vector


class Spare:
    """One vector that is kept. Whoever asks again must be done with what they got before."""

    def __init__(self) -> None:
        self._kept: Vector = np.zeros(0)

    def zeros_like(self, like: Vector) -> Vector:
        """Zeros of this shape and type, in the kept memory if it fits."""
        if (self._kept.shape, self._kept.dtype) != (like.shape, like.dtype):
            self._kept = np.empty_like(like)
        self._kept[...] = 0
        return self._kept
