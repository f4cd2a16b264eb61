"""What sites may fetch right now: the parameters of open rounds and the bundles of open jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hansa.errors import HansaError


@dataclass(frozen=True, slots=True)
class Item:
    """Content, and who may have it."""

    content: memoryview
    readers: frozenset[str] | None


class Shelf:
    """Content by its SHA-256, for as long as somebody offers it."""

    def __init__(self) -> None:
        self._items: dict[str, list[Item]] = {}

    @contextmanager
    def offering(
        self, sha256: str, content: memoryview, readers: frozenset[str] | None = None
    ) -> Iterator[None]:
        """Offers content to these sites, to all enrolled ones if `readers` is None."""
        item = Item(content, readers)
        self._items.setdefault(sha256, []).append(item)
        try:
            yield
        finally:
            items = self._items[sha256]
            items.remove(item)
            if not items:
                del self._items[sha256]

    def read(self, sha256: str, site: str) -> memoryview:
        """The content.

        Raises:
          HansaError: nothing by that name is offered to this site; the two cases look the same.
        """
        for item in self._items.get(sha256, ()):
            if item.readers is None or site in item.readers:
                return item.content
        raise HansaError(
            f"nothing with SHA-256 {sha256[:16]!r} is offered to '{site}'",
            fix="fetch only what the latest offer or work names",
        )
