"""What one process makes of one order: its clients' updates, folded as they are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hansa.aggregators.grouped import SUM
from hansa.core.contribute import Fold, RoundTask
from hansa.core.parts import Dropout, Partial, Split, Update
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.engines.reasons import told
from hansa.engines.trainer import Trainer
from hansa.engines.workers_messages import Data, Order, Report
from hansa.errors import UpdateRejected


class Share:
    """Trains pieces of an order and adds the updates up, for each group."""

    def __init__(
        self, order: Order, plan: Plan, params: Vector, data: Data, trainer: Trainer
    ) -> None:
        self._order = order
        self._task: RoundTask = replace(order.task, plan=plan, params=params)
        fold = Fold.of(self._task)
        self._fold = replace(fold, aggregator=SUM) if order.hidden else fold
        self._data, self._trainer = data, trainer
        self._partials: dict[int, Partial] = {}
        self._dropouts: list[Dropout] = []
        self._examples: dict[str, int] = {}

    def train(self, start: int, at: Callable[[int], None]) -> None:
        """Trains the piece of the order that starts at this position.

        Args:
          start: of the first client.
          at: is told the position of each client before anything of it is read.
        """
        end = min(start + self._order.piece, len(self._order.clients))
        if self._order.stacked:
            self._together(range(start, end), at)
            return
        for position in range(start, end):  # one client's examples in memory at a time
            self._together([position], at)

    def _together(self, positions: range | list[int], at: Callable[[int], None]) -> None:
        """Reads and trains some clients; who fails is left out, and the others are not touched."""
        groups: dict[str, int] = {}
        splits: list[tuple[str, Split]] = []
        for position in positions:
            group, client = self._order.clients[position]
            at(position)
            try:
                split = self._data(client)
                self._examples[client] = len(split.train)
            except Exception as error:  # noqa: BLE001  what a client's task raises drops that client
                self._dropouts.append(Dropout(client, told(error)))
                continue
            groups[client] = group
            splits.append((client, split))
        for client, update in self._trainer.updates(self._task, splits, self._order.stacked):
            if isinstance(update, Exception):
                self._dropouts.append(Dropout(client, told(update)))
            else:
                self._add(groups[client], client, update)

    def _add(self, group: int, client: str, update: Update) -> None:
        partial = self._partials.get(group) or self._fold.zero()
        try:
            self._partials[group] = self._fold.add(partial, client, update)
        except UpdateRejected as error:
            self._dropouts.append(Dropout(client, error.message))

    def report(self) -> Report:
        """All of it."""
        how = self._trainer.how if self._order.stacked else ""
        return Report(self._partials, tuple(self._dropouts), self._examples, how)
