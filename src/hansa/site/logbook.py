"""The site's own record of what left the building, one JSON object per line, kept by the site.

An entry is durable before the first byte of an update is sent. Entries form a hash chain, so that
a changed or missing line shows.
"""

from __future__ import annotations

import hashlib
import json
import os
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
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._drop_torn_line()
        for entry in read(path):
            self._head = str(entry["hash"])

    def write(self, kind: str, time: float, **body: Any) -> None:
        """Appends an entry and waits until it is on the disk.

        Raises:
          StoreError: the disk refuses; nothing may leave the site then.
        """
        entry = {"kind": kind, "time": time, **body, "previous": self._head}
        entry["hash"] = _hash(entry)
        line = json.dumps(entry, sort_keys=True) + "\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, line.encode("utf-8"))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
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


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The entries, checked as a chain.

    Raises:
      StoreError: an entry was changed, removed or put in.
    """
    previous = FIRST
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            entry = _entry(line)
            stated = entry.get("hash")
            rest = {key: value for key, value in entry.items() if key != "hash"}
            if entry.get("previous") != previous or stated != _hash(rest):
                raise StoreError(
                    f"line {number} of {path} does not follow from the line before",
                    fix="restore the file from its backup; somebody changed it",
                )
            previous = str(stated)
            yield entry


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(canonical.dumps(entry).encode("ascii")).hexdigest()
