"""Names of clients that are made when they are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload


@dataclass(frozen=True, slots=True)
class Numbered(Sequence[str]):
    """client-0001, client-0002 and so on: a population of any size in no memory.

    Attributes:
      size: how many there are.
    """

    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...

    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        if isinstance(place, slice):
            return tuple(_name(number) for number in range(self.size)[place])
        return _name(range(self.size)[place])


def _name(place: int) -> str:
    return f"client-{place + 1:04d}"
