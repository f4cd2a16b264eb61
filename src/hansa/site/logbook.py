"""The site's own record of what left the building, one JSON object per line, kept by the site.

An entry is durable before the first byte of an update is sent. Entries form a hash chain, so that
a changed or missing line shows. Rounds of several jobs may write at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hansa.core import canonical
from hansa.errors import StoreError

FIRST = "0" * 64


class Logbook:
    """An append-only file.

    Args:
      path: the file; made for the owner alone if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head = FIRST
        self._writing = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._drop_torn_line()
        for entry in read(path):
            self._head = str(entry["hash"])

    def write(self, kind: str, time: float, **body: Any) -> None:
        """Appends an entry and waits until it is on the disk.

        Raises:
          StoreError: the disk refuses; nothing may leave the site then.
        """
        with self._writing:
            entry = {"kind": kind, "time": time, **body, "previous": self._head}
            entry["hash"] = _hash(entry)
            try:
                _append(self._path, _line(entry))
            except OSError as error:
                raise StoreError(
                    f"the site's log cannot be written ({error.strerror}), so nothing may leave",
                    fix=f"make room or mend the permissions of {self._path}",
                ) from error
            self._head = entry["hash"]

    def _drop_torn_line(self) -> None:
        """Cuts off a last line that a crash left without its end."""
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.truncate(self._path, whole)


def _append(path: Path, line: bytes) -> None:
    """Appends a whole line durably, or leaves the file as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            rest = line
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The entries, checked as a chain.

    Raises:
      StoreError: an entry was changed, removed or put in.
    """
    previous = FIRST
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            entry = _entry(line)
            stated = entry.get("hash")
            rest = {key: value for key, value in entry.items() if key != "hash"}
            same = line == _line(entry)  # a number can be written in two ways
            if not same or entry.get("previous") != previous or stated != _hash(rest):
                raise StoreError(
                    f"line {number} of {path} does not follow from the line before",
                    fix="restore the file from its backup; somebody changed it",
                )
            previous = str(stated)
            yield entry


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True).encode("ascii") + b"\n"


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(canonical.dumps(entry).encode("ascii")).hexdigest()
