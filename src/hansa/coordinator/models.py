"""Models that sites began with, on the shelf for as long as one of them is at work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.shelf import Shelf


@dataclass(slots=True)
class Models:
    """The models of one job whose sites began in different rounds.

    Attributes:
      shelf: what sites may fetch.
      blobs: where models are.
    """

    shelf: Shelf
    blobs: Blobs
    _held: dict[str, _Held] = field(default_factory=dict, repr=False)

    def offer(self, model: str, readers: Sequence[str]) -> None:
        """Keeps a model on the shelf for one more site; its file may be tidied away meanwhile.

        Raises:
          StoreError: it is nowhere.
        """
        held = self._held.setdefault(model, _Held())
        if not held.sites:
            offering = self.shelf.offering(model, self.blobs.path(model), frozenset(readers))
            held.stack.enter_context(offering)
        held.sites += 1

    def withhold(self, model: str) -> None:
        """One of its sites is done; the last one takes the model from the shelf."""
        held = self._held[model]
        held.sites -= 1
        if not held.sites:
            held.stack.close()
            del self._held[model]


@dataclass(slots=True)
class _Held:
    """A model on the shelf, and how many sites began with it."""

    stack: ExitStack = field(default_factory=ExitStack)
    sites: int = 0
