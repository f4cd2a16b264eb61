"""Files for the owner alone, written so that a loss of power leaves them whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hansa.errors import StoreError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def private_folder(folder: Path) -> None:
    """Creates a folder for the owner alone, durably; one that exists keeps its mode."""
    with explained(f"the folder '{folder}' cannot be made", folder):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: after this a created or renamed file is found again."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_data(descriptor: int) -> None:
    """Makes a file's bytes durable, and as much of its metadata as reading them needs."""
    if hasattr(os, "fdatasync"):  # macOS lacks it
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def set_aside(descriptor: int, size: int) -> None:
    """Makes a file at least `size` bytes long, its blocks allocated where the system can do so."""
    if hasattr(os, "posix_fallocate"):  # macOS lacks it
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, max(size, os.fstat(descriptor).st_size))


def bytes_of(content: Buffer | NDArray[Any]) -> memoryview:
    """Contiguous memory of any element type as a flat view of its bytes."""
    view = content.data if isinstance(content, np.ndarray) else memoryview(content)
    return view.cast("B") if view.nbytes else memoryview(b"")


def write_all(descriptor: int, content: memoryview, offset: int) -> None:
    """Writes a buffer of bytes at an offset, however many calls that takes."""
    while content:
        count = os.pwrite(descriptor, content, offset)
        content, offset = content[count:], offset + count


@contextmanager
def explained(what: str, where: Path) -> Iterator[None]:
    """Turns an error of the operating system into one that says what to do.

    Raises:
      StoreError: instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            fix = f"free or add disk space for '{where}'; nothing was half written"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            fix = f"let the coordinator's user write to '{where}'"
        else:
            fix = f"check the disk that holds '{where}'"
        raise StoreError(f"{what}: {error.strerror or error}", fix=fix) from error
