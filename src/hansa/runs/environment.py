"""What a run ran on: versions, machine, and the commit of the job's folder."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hansa import __version__

PACKAGES = ("numpy", "scipy", "torch", "dp-accounting")
"""Packages that bits may follow from."""

GIT_SECONDS = 2.0


def environment_of(folder: Path | None) -> dict[str, object]:
    """Everything that a person who repeats the run wants to know.

    Args:
      folder: the job's folder; its commit is recorded if it is under version control.
    """
    return {
        "hansa": __version__,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "command": sys.argv,
        "git": None if folder is None else git_of(folder),
    }


def bits_of(environment: dict[str, object]) -> dict[str, object]:
    """The part of an environment that the bits of a model may follow from."""
    packages = environment.get("packages")
    known = dict(packages) if isinstance(packages, dict) else {}
    python = ".".join(str(environment.get("python")).split(".")[:2])
    return {"machine": environment.get("machine"), "python": python, **known}


def git_of(folder: Path) -> dict[str, object] | None:
    """The commit that a folder is at, and whether its files differ from it; None without Git."""
    if shutil.which("git") is None or not _under_git(folder):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    return {"commit": commit, "changed": None if changed is None else bool(changed)}


def _under_git(folder: Path) -> bool:
    return any((parent / ".git").exists() for parent in (folder, *folder.parents))


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],  # noqa: S607  whichever git the person uses
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
