"""Disks that are full: a small one of memory, or files that may not grow."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A disk of a few megabytes under a folder."""

    folder: Path

    def fill(self) -> None:
        """Leaves not one block."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with pytest.raises(OSError, match="No space left"):
                    _write_for_ever(file, size)

    def free(self) -> None:
        (self.folder / "filler").unlink()


def _write_for_ever(file: FileIO, size: int) -> None:
    while True:
        file.write(b"x" * size)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mounts a small disk over an empty folder; skips the test where that is not allowed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def short_files(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
