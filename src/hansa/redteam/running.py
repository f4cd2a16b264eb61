"""Runs the cells of a matrix one after the other, and what neighbours share of their work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hansa.attacks.catalogue import attack_named
from hansa.core.job import Job
from hansa.core.keys import ReplayKey
from hansa.core.parts import Task
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.redteam.cell import Cell, Outcome, run_cell
from hansa.redteam.division import Division, divided
from hansa.redteam.record import Record
from hansa.redteam.rows import NONE
from hansa.work.threads import one_thread

OnCell = Callable[[Cell, Outcome, bool], None]
"""Told after each cell: what came of it, and whether it ran just now."""


@dataclass(slots=True)
class Work:
    """Runs single cells; keeps the division of the last one.

    Attributes:
      job: whose cells they are.
      task: its task.
      own: the task's own division.
      plans: by rule and seed.
    """

    job: Job
    task: Task
    own: Division
    plans: Mapping[tuple[str, int], Plan] = field(repr=False)
    _place: tuple[str, int] | None = None
    _division: Division | None = field(default=None, repr=False)

    def plan(self, cell: Cell) -> Plan:
        """What a cell trains."""
        return self.plans[cell.rule, cell.seed]

    def run(self, cell: Cell, clean: Callable[[], Vector]) -> tuple[Outcome, Vector]:
        """What came of a cell, and its (d,) last parameters; see `run_cell`."""
        place = (cell.skew, cell.seed)
        if self._division is None or place != self._place:
            self._division = divided(self.own, cell.skew, ReplayKey.of_seed(cell.seed))
            self._place = place
        return run_cell(cell, self.plan(cell), self.task, self._division, clean)


def unattacked(cell: Cell) -> Cell:
    """The same run with nobody bad."""
    return replace(cell, attack=NONE, share=0.0)


def compares(cell: Cell) -> bool:
    """Whether a cell needs the model of the same run with nobody bad, to attack that as well."""
    return cell.share > 0 and attack_named(cell.attack).poisoner is not None


def in_turn(
    work: Work, cells: Sequence[Cell], record: Record, on_cell: OnCell
) -> dict[Cell, Outcome]:
    """Runs all cells that the record does not have, in their order, in this process.

    Args:
      work: runs one.
      cells: what is run; those of one skew and seed side by side, so that they share a division.
      record: what was run before.
      on_cell: called after each.
    """
    outcomes: dict[Cell, Outcome] = {}
    place, models = ("", 0), dict[str, Vector]()
    with one_thread():
        for cell in cells:
            if (cell.skew, cell.seed) != place:
                place = (cell.skew, cell.seed)
                models.clear()
            digest = work.plan(cell).digest

            def clean(cell: Cell = cell, digest: str = digest) -> Vector:
                if digest not in models:
                    _, models[digest] = work.run(unattacked(cell), lambda: models[digest])
                return models[digest]

            known = record.find(digest, cell)
            if known is None:
                outcomes[cell], params = work.run(cell, clean)
                record.add(digest, cell, outcomes[cell])
                if not cell.share:
                    models[digest] = params
            else:
                outcomes[cell] = known
            on_cell(cell, outcomes[cell], known is None)
    return outcomes
