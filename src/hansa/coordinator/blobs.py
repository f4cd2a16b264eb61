"""Bytes by their content: models, optimizer states, task bundles.

    put: hash ──► temporary file ──► fsync ──► rename ──► fsync of the folder ──► the name

A name that was returned is found again after a loss of power, and a file under its name is whole.
What is read is hashed again, so that a damaged file is an error and never a model.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hansa.coordinator.disk import bytes_of, explained, private_folder, sync_folder, write_all
from hansa.errors import StoreError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NAME = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = "new-"


class Blobs:
    """A local folder of immutable files, each named by the SHA-256 of its bytes.

    Safe to use from many threads. Other processes may read; they may also put, as long as nobody
    sweeps meanwhile.

    Args:
      folder: where the files are; made for the owner alone if it is missing.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._aging = threading.Lock()
        private_folder(self.folder)

    def put(self, content: Buffer | NDArray[Any], sha256: str | None = None) -> str:
        """Keeps bytes durably; bytes that are there already are not written again.

        Args:
          content: contiguous memory; only read.
          sha256: its hash, if the caller knows it, so that the bytes are hashed once.

        Returns:
          The name.

        Raises:
          StoreError: the disk is full or refuses; nothing is left behind.
        """
        view = bytes_of(content)
        name = sha256 or hashlib.sha256(view).hexdigest()
        target = self._target(name)
        with explained(f"blob {name[:16]} cannot be written", self.folder):
            if not self._renewed(target, len(view)):
                self._write(view, target)
            # Also for a file that was there: whoever renamed it may have died before this line.
            sync_folder(self.folder)
        return name

    def get(self, sha256: str) -> bytes:
        """The bytes of that name.

        Raises:
          StoreError: there are none, or they are damaged.
        """
        path = self.path(sha256)
        with explained(f"blob {sha256[:16]} cannot be read", path):
            content = path.read_bytes()
        _check(sha256, hashlib.sha256(content).hexdigest(), path)
        return content

    def array(self, sha256: str, dtype: DTypeLike) -> NDArray[Any]:
        """The bytes of that name as a read-only vector.

        Raises:
          StoreError: there are none, they are damaged, or they do not divide into elements.
        """
        content, kind = self.get(sha256), np.dtype(dtype)
        if len(content) % kind.itemsize:
            raise StoreError(
                f"blob {sha256[:16]} has {len(content):,} bytes, which are no vector of {kind}",
                fix="ask for the element type that was stored",
            )
        return np.frombuffer(content, kind)

    def mapped(self, sha256: str, dtype: DTypeLike, *, known: bool = False) -> NDArray[Any]:
        """The bytes of that name as a read-only vector that stays on the disk until it is read.

        Args:
          sha256: the name.
          dtype: of the elements.
          known: the caller has just put these bytes here, so that they need not be hashed again.

        Raises:
          StoreError: there are none, they are damaged, or they do not divide into elements.
        """
        kind, size = np.dtype(dtype), self.size(sha256)
        if not size or size % kind.itemsize:
            raise StoreError(
                f"blob {sha256[:16]} has {size:,} bytes, which are no vector of {kind}",
                fix="ask for the element type that was stored",
            )
        with self.path(sha256).open("rb") if known else self.open(sha256) as file:
            return np.memmap(file, kind, "r")

    def size(self, sha256: str) -> int:
        """Bytes of the blob of that name.

        Raises:
          StoreError: there is none.
        """
        return self.path(sha256).stat().st_size

    def path(self, sha256: str) -> Path:
        """The file of that name, for readers that check the hash themselves.

        Raises:
          StoreError: there is none.
        """
        path = self._target(sha256)
        if not path.is_file():
            raise StoreError(
                f"blob {sha256[:16]} is not in '{self.folder}'",
                fix="restore the folder from the backup that belongs to the store",
            )
        return path

    def open(self, sha256: str) -> IO[bytes]:
        """The file of that name, hashed, then open at its start.

        Raises:
          StoreError: there is none, or it is damaged.
        """
        path = self.path(sha256)
        with explained(f"blob {sha256[:16]} cannot be read", path):
            file = path.open("rb")
            try:
                _check(sha256, hashlib.file_digest(file, "sha256").hexdigest(), path)
                file.seek(0)
            except BaseException:
                file.close()
                raise
        return file

    def sweep(self, keep: Iterable[str], older_than: float) -> tuple[str, ...]:
        """Deletes what is not kept, and what killed writers left.

        Args:
          keep: names that stay.
          older_than: files that were put at this time or later stay too, in seconds since the
            epoch: the rows that will name them may not be written yet.

        Returns:
          Names that were deleted.
        """
        kept, gone = frozenset(keep), []
        with explained("old blobs cannot be deleted", self.folder):
            for entry in sorted(os.scandir(self.folder), key=lambda e: e.name):
                named = _NAME.fullmatch(entry.name) is not None
                if not named and not entry.name.startswith(_TEMPORARY):
                    continue
                if entry.name in kept or not self._deleted(Path(entry.path), older_than):
                    continue
                if named:
                    gone.append(entry.name)
        return tuple(gone)

    def _target(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise StoreError(
                f"{name[:80]!r} is no SHA-256 in lower-case hexadecimal", fix="use a blob's name"
            )
        return self.folder / name

    def _renewed(self, target: Path, size: int) -> bool:
        """Whether the blob is there; its age starts again, so that no sweep takes it."""
        try:
            with self._aging:
                os.utime(target)
                return target.stat().st_size == size
        except FileNotFoundError:
            return False

    def _deleted(self, path: Path, older_than: float) -> bool:
        try:
            with self._aging:
                if path.stat().st_mtime >= older_than:
                    return False
                path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _write(self, view: memoryview, target: Path) -> None:
        temporary = self.folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                write_all(descriptor, view, 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def _check(expected: str, found: str, path: Path) -> None:
    if found != expected:
        raise StoreError(
            f"blob {expected[:16]} is damaged: its bytes hash to {found[:16]}",
            fix=f"check the disk and restore '{path}' from a backup",
        )
