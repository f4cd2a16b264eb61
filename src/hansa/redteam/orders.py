"""What the red team and the processes that run its cells say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.errors import HansaError, Refused
from hansa.redteam.cell import Cell, Outcome

Wire: TypeAlias = "Connection[Any, Any]"


@dataclass(frozen=True, slots=True)
class Setup:
    """What all cells need; it is read after the task was loaded, whose classes it may name.

    Attributes:
      clients: of the federation.
      plans: by rule and seed.
    """

    clients: tuple[str, ...]
    plans: Mapping[tuple[str, int], Plan] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """A cell to run.

    Attributes:
      cell: what is run.
      clean: (d,) parameters that it reaches with nobody bad; None if it needs none.
      wanted: whether its own last parameters are.
    """

    cell: Cell
    clean: Vector | None = field(default=None, repr=False)
    wanted: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a cell.

    Attributes:
      outcome: to be written down.
      params: (d,) its last parameters; None if they are not wanted.
    """

    outcome: Outcome
    params: Vector | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a cell cannot run, in the words of its error.

    Attributes:
      message: what happened.
      fix: what to do.
      refused: whether a check said no.
    """

    message: str
    fix: str
    refused: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """The words of any error."""
        if isinstance(error, HansaError):
            return cls(error.message, error.fix, isinstance(error, Refused))
        said = f"a cell raised {type(error).__name__}: {error}"
        return cls(said, "see where with --parallel 1")
