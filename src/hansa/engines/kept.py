"""Clients' examples that are kept in memory between rounds, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from hansa.core.parts import Examples, Split
from hansa.engines.workers_messages import Data

KEPT_BYTES = 2**28
"""Memory for the examples that all processes of a simulation together keep between rounds."""


@dataclass(slots=True)
class Kept:
    """A source of examples that remembers those that were asked for last.

    Attributes:
      source: where examples come from.
      most: bytes to keep; examples that are larger alone are not kept.
    """

    source: Data
    most: int = KEPT_BYTES
    _splits: OrderedDict[str, Split] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def __call__(self, client: str) -> Split:
        """A client's examples; whatever the source raises is raised again each time."""
        known = self._splits.get(client)
        if known is not None:
            self._splits.move_to_end(client)
            return known
        split = self.source(client)
        size = _size(split)
        if size <= self.most:
            self._splits[client] = split
            self._bytes += size
        while self._bytes > self.most:
            _, old = self._splits.popitem(last=False)
            self._bytes -= _size(old)
        return split


def _size(split: Split) -> int:
    return _bytes(split.train) + _bytes(split.test)


def _bytes(examples: Examples) -> int:
    return examples.inputs.nbytes + examples.targets.nbytes
