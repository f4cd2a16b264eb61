"""What one process makes of one order: its clients' updates, folded as they are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial as call

from hansa.aggregators.grouped import SUM
from hansa.core.contribute import Fold, RoundTask, contribute, encode_rows, encoded
from hansa.core.parts import Dropout, Partial, Split, Update
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.engines.reasons import told
from hansa.engines.trainer import Stack, Trainer
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
            group, client = self._order.clients[position]
            split = self._read(position, client, at)
            if split is not None:
                self._add(group, client, call(self._alone, client, split))

    def report(self) -> Report:
        """All of it."""
        return Report(self._partials, tuple(self._dropouts), self._examples)

    def _together(self, positions: range, at: Callable[[int], None]) -> None:
        """Reads and trains some clients; who fails is left out, and the others are not touched."""
        groups: dict[str, int] = {}
        splits: dict[str, Split] = {}
        for position in positions:
            group, client = self._order.clients[position]
            split = self._read(position, client, at)
            if split is not None:
                groups[client], splits[client] = group, split
        for stack in self._trainer.stacks(self._task, tuple(splits.items())):
            clients = [ctx.client for ctx in stack.contexts]
            numbers = {groups[client] for client in clients}
            if len(numbers) == 1 and self._fold.in_rows:
                if not self._in_rows(clients, numbers.pop(), stack):
                    continue  # each alone, so that whoever it was is found and left out
            else:
                self._one_by_one(groups, stack)
            for client in clients:
                del splits[client]
        for client, split in splits.items():
            self._add(groups[client], client, call(self._alone, client, split))

    def _read(self, position: int, client: str, at: Callable[[int], None]) -> Split | None:
        at(position)
        try:
            split = self._data(client)
            self._examples[client] = len(split.train)
        except Exception as error:  # noqa: BLE001  what a client's task raises drops that client
            self._dropouts.append(Dropout(client, told(error)))
            return None
        return split

    def _in_rows(self, clients: Sequence[str], group: int, stack: Stack) -> bool:
        """Encodes and adds the updates of a stack in one pass, or says that this cannot be."""
        partial = self._partials.get(group) or self._fold.zero()
        try:
            encode_rows(self._task, stack.contexts, stack.splits, stack.rows, stack.losses)
            self._partials[group] = self._fold.add_rows(partial, clients, stack.rows)
        except Exception:  # noqa: BLE001  one by one, whoever it was is found and left out
            return False
        return True

    def _one_by_one(self, groups: dict[str, int], stack: Stack) -> None:
        deltas = stack.rows[:, stack.deltas]
        rows = zip(stack.contexts, stack.splits, deltas, stack.losses, strict=True)
        for ctx, split, delta, loss in rows:
            made = call(encoded, self._task, ctx, split, (delta, float(loss)))
            self._add(groups[ctx.client], ctx.client, made)

    def _alone(self, client: str, split: Split) -> Update:
        return contribute(self._task, client, self._trainer.model, split)

    def _add(self, group: int, client: str, update: Callable[[], Update]) -> None:
        """Adds a client's update to the sum of its group, or notes why it does not count."""
        partial = self._partials.get(group) or self._fold.zero()
        try:
            made = update()
        except Exception as error:  # noqa: BLE001  what a client's task raises drops that client
            self._dropouts.append(Dropout(client, told(error)))
            return
        try:
            self._partials[group] = self._fold.add(partial, client, made)
        except UpdateRejected as error:
            self._dropouts.append(Dropout(client, error.message, refused=True))
