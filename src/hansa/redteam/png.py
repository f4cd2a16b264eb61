"""Grey pictures as PNG files (ISO/IEC 15948), without a library for images."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from hansa.core.vector import Vector


def write_png(path: Path, picture: Vector) -> None:
    """Writes a (height, width) picture of values from 0 to 1, 8 bits each."""
    grey = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(rows, 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
