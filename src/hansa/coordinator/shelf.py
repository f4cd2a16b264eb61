"""What sites may fetch right now: the parameters of open rounds and the bundles of open jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hansa.errors import HansaError


@dataclass(frozen=True, slots=True)
class Item:
    """A file that may be fetched, and who may have it.

    Attributes:
      descriptor: of the open file; its pages are the operating system's to keep, not ours.
      size: bytes.
      readers: names of the sites; None = all that are enrolled.
    """

    descriptor: int
    size: int
    readers: frozenset[str] | None

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from an offset on."""
        return os.pread(self.descriptor, size, offset)


class Shelf:
    """Files by their SHA-256, for as long as somebody offers them."""

    def __init__(self) -> None:
        self._items: dict[str, list[Item]] = {}

    @contextmanager
    def offering(
        self, sha256: str, path: Path, readers: frozenset[str] | None = None
    ) -> Iterator[None]:
        """Offers a file to these sites, to all enrolled ones if `readers` is None."""
        with path.open("rb") as file:
            item = Item(file.fileno(), os.fstat(file.fileno()).st_size, readers)
            self._items.setdefault(sha256, []).append(item)
            try:
                yield
            finally:
                items = self._items[sha256]
                items.remove(item)
                if not items:
                    del self._items[sha256]

    @contextmanager
    def reading(self, sha256: str, site: str) -> Iterator[Item]:
        """The file of that name, open for as long as it is read.

        A slow reader may outlive the round whose file it is. The descriptor of the offer is closed
        then, and its number soon belongs to another file; so each reader has one of its own.

        Raises:
          HansaError: nothing by that name is offered to this site; the two cases look the same.
        """
        item = self._find(sha256, site)
        descriptor = os.dup(item.descriptor)
        try:
            yield replace(item, descriptor=descriptor)
        finally:
            os.close(descriptor)

    def _find(self, sha256: str, site: str) -> Item:
        for item in self._items.get(sha256, ()):
            if item.readers is None or site in item.readers:
                return item
        raise HansaError(
            f"nothing with SHA-256 {sha256[:16]!r} is offered to '{site}'",
            fix="fetch only what the latest offer or work names",
        )
