"""Private files: written whole or not at all, and never readable by others.

A file is written beside its place, flushed to the disk and renamed over it, so that after a crash
there is the old content or the new one.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from hansa.errors import IdentityError


def make_folder(folder: Path) -> Path:
    """Makes a folder that only its owner can enter, or checks that it is one.

    Raises:
      IdentityError: others can enter it, or it is not a folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_mode(folder, folder.stat())
    return folder


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces a file as one step that a crash cannot split."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner can read.

    Raises:
      IdentityError: others can read it.
      FileNotFoundError: there is none.
    """
    with path.open("rb") as file:
        check_mode(path, os.fstat(file.fileno()))
        return file.read()


def check_mode(path: Path, found: os.stat_result) -> None:
    """Refuses what group or others have any right to.

    Raises:
      IdentityError: the mode is too wide.
    """
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        wanted = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
        raise IdentityError(
            f"{path} has mode {mode:04o}: others than its owner can get at the keys",
            fix=f"run: chmod {wanted:o} {path}; if others could read it, replace the keys",
        )


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
