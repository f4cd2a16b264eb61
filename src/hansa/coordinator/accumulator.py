"""A sum that survives a crash, without one update ever being written.

    fold lock held:   write: copy the sum into the slot that the store does not refer to
    lock free:        sync: fdatasync                       folding goes on meanwhile
    then:             store.commit_fold: from here on these members are durable

There are two slots, so that the one that the store refers to is whole at every moment. The slot
that is written to is chosen by what is kept, not by counting: after a commit that failed, counting
would overwrite the only durable sum.

The checksum is a CRC-32 of what was written. It guards against torn or mixed-up slots, not against
an adversary: whoever can write to the folder of a coordinator can do worse.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hansa.coordinator.disk import (
    bytes_of,
    explained,
    private_folder,
    set_aside,
    sync_data,
    sync_folder,
    write_all,
)
from hansa.coordinator.rows import Slot
from hansa.errors import StoreError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HEADER = struct.Struct("<8sQQ")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_MAGIC = b"hansa/s1"
_START = 4096
"""Where the bytes begin: a page of their own keeps copies aligned."""

_PIECE = 1 << 20
"""Bytes that are summed up and written at once, while they are in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A sum that was written and is not durable yet."""

    generation: int
    slot: int
    checksum: str


class DurableAccumulator:
    """Two files that take turns in holding one sum.

    Not for two writers at once: the caller's lock covers `write`, and one `sync` follows each.

    Args:
      folder: where the files are; made for the owner alone if it is missing.
      name: name of the sum; the files are `name.0` and `name.1`.
    """

    def __init__(self, folder: Path | str, name: str) -> None:
        if _NAME.fullmatch(name) is None:
            raise StoreError(
                f"{name[:80]!r} cannot be the name of a file",
                fix="use letters, digits, dot, dash and underscore",
            )
        self.folder = Path(folder)
        self.name = name
        private_folder(self.folder)

    def prepare(self, size: int) -> None:
        """Sets the disk space of both slots aside, so that no round begins that cannot be kept.

        Args:
          size: bytes of the largest sum.

        Raises:
          StoreError: the disk is full or refuses.
        """
        for slot in (0, 1):
            path = self._path(slot)
            with explained(f"sum '{self.name}' cannot be set aside", path):
                os.close(self._opened(path, _START + size))

    def write(self, content: Buffer | NDArray[Any], generation: int, kept: Slot | None) -> Draft:
        """Copies a sum into a slot; fast, since nothing waits for the disk.

        Args:
          content: the sum's bytes, contiguous; only read, and free to change afterwards.
          generation: grows with each write of a round.
          kept: where the store says that the round's sum is: the place of the last fold that was
            committed, None before the first. That slot is not touched.

        Raises:
          StoreError: the disk is full or refuses, or the generation does not grow.
        """
        if kept is not None and generation <= kept.generation:
            raise StoreError(
                f"generation {generation} of sum '{self.name}' does not follow {kept.generation}",
                fix="count generations up from the fold that the store holds",
            )
        view = bytes_of(content)
        slot = 0 if kept is None else 1 - kept.slot
        path = self._path(slot)
        with explained(f"sum '{self.name}' cannot be written", path):
            descriptor = self._opened(path, _START + len(view))
            try:
                write_all(descriptor, memoryview(_HEADER.pack(_MAGIC, generation, len(view))), 0)
                checksum = 0
                for start in range(0, len(view), _PIECE):
                    piece = view[start : start + _PIECE]
                    checksum = zlib.crc32(piece, checksum)
                    write_all(descriptor, piece, _START + start)
            finally:
                os.close(descriptor)
        return Draft(generation, slot, f"{checksum:08x}")

    def sync(self, draft: Draft) -> Slot:
        """Waits until a written sum is on the disk; folding may go on meanwhile.

        Raises:
          StoreError: the disk refuses. The draft is lost: write the sum again.
        """
        path = self._path(draft.slot)
        with explained(f"sum '{self.name}' cannot be made durable", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                sync_data(descriptor)
            finally:
                os.close(descriptor)
        return Slot(draft.generation, draft.slot, draft.checksum)

    def read(self, kept: Slot) -> bytes:
        """The bytes of a durable sum.

        Raises:
          StoreError: the slot is missing, torn, or holds another generation.
        """
        path = self._path(kept.slot)
        with explained(f"sum '{self.name}' cannot be read", path), path.open("rb") as file:
            header = file.read(_HEADER.size).ljust(_HEADER.size, b"\0")
            magic, generation, size = _HEADER.unpack(header)
            right = magic == _MAGIC and generation == kept.generation
            whole = right and _START + size <= os.fstat(file.fileno()).st_size
            file.seek(_START)
            body = file.read(size) if whole else b""
        if not whole or f"{zlib.crc32(body):08x}" != kept.checksum:
            raise StoreError(
                f"'{path}' does not hold generation {kept.generation} of sum '{self.name}' in one "
                "piece, though the store says so",
                fix="restore the folder from the store's own backup, or cancel the job",
            )
        return body

    def remove(self) -> None:
        """Deletes both slots: a sum before its noise is private and not kept longer than needed."""
        with explained(f"sum '{self.name}' cannot be deleted", self.folder):
            for slot in (0, 1):
                self._path(slot).unlink(missing_ok=True)
            sync_folder(self.folder)

    def _path(self, slot: int) -> Path:
        return self.folder / f"{self.name}.{slot}"

    def _opened(self, path: Path, size: int) -> int:
        """The file, long enough and with its blocks set aside before anything is overwritten."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < size:
                sync_folder(path.parent)
                set_aside(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
