"""Chunks as protobuf messages, written and read without the copies that the library would make.

A message with one bytes field is a tag, a length and the content. `Chunk.data` is field 1,
`DeliverPart.data` field 2 (protobuf encoding: wire type 2, length as a base-128 varint). What is
written here is what the library writes, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator

from hansa.errors import HansaError
from hansa.wire.limits import CHUNK

FETCHED = 0x0A
"""Tag of `Chunk.data`."""

DELIVERED = 0x12
"""Tag of `DeliverPart.data`."""


def frames(content: memoryview, tag: int) -> Iterator[bytes]:
    """The content as messages of at most `CHUNK` bytes each."""
    for start in range(0, len(content), CHUNK):
        yield frame_of(content[start : start + CHUNK], tag)


def frame_of(part: bytes | memoryview, tag: int) -> bytes:
    """One message."""
    return b"".join((bytes((tag,)), _varint(len(part)), part))


def content_of(frame: bytes, tag: int) -> memoryview:
    """The content of a message, in the message's own memory.

    Raises:
      HansaError: the bytes are not such a message.
    """
    if frame[:1] == bytes((tag,)):
        length = shift = 0
        for position, byte in enumerate(frame[1:6], 2):
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if length == len(frame) - position:
                    return memoryview(frame)[position:]
                break
    if not frame:
        return memoryview(b"")  # a field with its default value is not written
    raise HansaError(
        f"{len(frame)} bytes are not a chunk", fix="use a client of this version of Hansa"
    )


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
