"""Environments of others, each with its own packages, made once and kept in a cache folder.

They are in `hansa/peers` of the user's cache folder, about a gigabyte each. A folder's name holds a
digest of what is installed, so that another version gets another folder; one that was not finished
is made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

TORCH = "torch==2.13.0"
INSTALLS: dict[str, tuple[str, ...]] = {
    "flower": ("flwr[simulation]==1.42.0", TORCH),
    "pfl": ("pfl==0.6.0", TORCH),
}
"""What pip installs into each environment."""

_DONE = ".done"


def cache() -> Path:
    """Where environments are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hansa" / "peers"


def folder_of(name: str) -> Path:
    """Where one is, whether it was made or not."""
    words = repr((INSTALLS[name], sys.version_info[:2])).encode()
    return cache() / f"{name}-{hashlib.sha256(words).hexdigest()[:12]}"


def python_of(name: str) -> str:
    """The Python of an environment; it is made first if it is not there."""
    folder = folder_of(name)
    python = folder / "bin" / "python"
    if not (folder / _DONE).exists():
        print(f"installing {name} into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, *INSTALLS[name]], check=True)
        (folder / _DONE).touch()
    return str(python)
