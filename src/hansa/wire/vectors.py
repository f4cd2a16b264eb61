"""Updates as bytes: little-endian float32, or ring integers packed at their width.

| facts                | one coordinate                     |
|----------------------|------------------------------------|
| REAL                 | float32, 4 bytes                   |
| RING, 16 bits        | unsigned integer, 2 bytes          |
| RING, 24 bits        | unsigned integer, 3 bytes          |
| RING, 32 bits        | unsigned integer, 4 bytes          |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hansa.core.parts import Facts
from hansa.core.spec import Domain
from hansa.core.vector import Layout, Vector
from hansa.errors import HansaError


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the coordinates of a plan's updates are written."""

    ring: bool
    width: int

    @classmethod
    def of(cls, facts: Facts) -> Encoding:
        """The encoding of updates with these facts."""
        some = next(iter(facts.values()))
        if some.domain is Domain.REAL:
            return cls(ring=False, width=4)
        if some.bits not in (16, 24, 32):
            raise HansaError(
                f"a ring of {some.bits} bits has no encoding", fix="use 16, 24 or 32 bits"
            )
        return cls(ring=True, width=some.bits // 8)

    def size(self, layout: Layout) -> int:
        """Bytes of one update."""
        return self.width * layout.size

    def write(self, vector: Vector) -> memoryview:
        """The bytes of an update; shares memory with the vector where no packing is needed."""
        if not self.ring:
            return np.ascontiguousarray(vector, "<f4").data.cast("B")
        whole = np.ascontiguousarray(vector, "<u4")
        if self.width == 4:
            return whole.data.cast("B")
        if self.width == 2:
            return whole.astype("<u2").data.cast("B")
        packed = np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 4)[:, :3])
        return packed.data.cast("B")

    def read(self, data: memoryview) -> Vector:
        """The vector in bytes; shares memory with them where nothing was packed."""
        if not self.ring:
            return np.frombuffer(data, "<f4")
        if self.width == 4:
            return np.frombuffer(data, "<u4")
        if self.width == 2:
            return np.frombuffer(data, "<u2").astype(np.uint32)
        whole = np.zeros((len(data) // 3, 4), np.uint8)
        whole[:, :3] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return whole.view("<u4").reshape(-1)
