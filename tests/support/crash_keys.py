"""Runs a renewal again and again, each time killed at the next file operation; prints the outcome.

Usage: crash_keys.py FOLDER WHAT SCRATCH. FOLDER holds `identity`, `chain.pem`, `root.pem` and
`document.json`; it is copied for every run. A child process is killed by SIGKILL inside the
operation, before it happens.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from hansa.identity.credentials import Credentials
from hansa.identity.keys import install_credentials, load_credentials, make_site_keys

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "shutil.rmtree")


def install(folder: Path) -> Credentials:
    return install_credentials(
        folder / "identity",
        (folder / "chain.pem").read_bytes(),
        (folder / "root.pem").read_bytes(),
        (folder / "document.json").read_text(),
    )


def request(folder: Path) -> object:
    return make_site_keys(folder / "identity", "kiel", "hanse")


def killed_at(count: int, work: Callable[[Path], object], folder: Path) -> bool:
    """Whether a child that does the work was killed at its count-th file operation."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, _: object) -> None:
            nonlocal seen
            if event in EVENTS:
                seen += 1
                if seen == count:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(source: Path, what: str, scratch: Path) -> None:
    work = {"install": install, "request": request}[what]
    before = _serial(source)
    for count in range(1, 200):
        folder = scratch / f"{what}-{count}"
        shutil.copytree(source, folder, symlinks=True)
        killed = killed_at(count, work, folder)
        left = _serial(folder)  # raises if the set that is in use is not a consistent one
        made = make_site_keys(folder / "identity", "kiel", "hanse")
        work(folder) if what == "request" else _again(folder, left == before)
        print("old" if left == before else "new", len(made.csr_pem) > 0)
        if not killed:
            return


def _again(folder: Path, unfinished: bool) -> None:
    """A site that was killed before the switch asks for the same keys' certificate again."""
    if unfinished:
        install(folder)


def _serial(folder: Path) -> str:
    if not (folder / "identity" / "current").exists():
        return "none yet"
    return load_credentials(folder / "identity").serial


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
