"""An engine in which some clients attack: what they send goes the way of every update.

    honest clients ──► train ─────────────┐
                          │ seen          ├─► encode: weight, clip, ... ──► checks, rule
    bad clients ──► attack on what is seen┘             └─► a lie about the form, if that is it

Stages are the client's own, so an attack that is cut by the client's clip is the strongest that
the server's own check of the bound lets through. `scaled`, among the lies, goes past the clip.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from hansa.attacks.adaptive import Rule
from hansa.attacks.catalogue import Attack, Knowledge
from hansa.attacks.data import Poison
from hansa.attacks.memory import Memory
from hansa.core.contribute import (
    Purpose,
    RoundTask,
    Trained,
    context_of,
    contribute,
    encoded,
    train_locally,
)
from hansa.core.keys import Noise, ReplayKey
from hansa.core.parts import ClientWork, Dropout, Model, Partial, Split, Update
from hansa.engines.inline import InlineEngine
from hansa.errors import HansaError


@dataclass(slots=True)
class AttackedEngine:
    """The inline engine with bad clients in it; with none, or no attack, its bits.

    Attributes:
      inline: what runs all clients.
      attack: what the bad ones do.
      bad: their names.
      poison: what is done to their data, for attacks that do something to it.
      omniscient: whether they see all honest updates of the round; else those that their own
        clean data give.
      rule: what will be applied to (n, d) updates, for attacks that adapt.
    """

    inline: InlineEngine
    attack: Attack
    bad: frozenset[str]
    poison: Poison | None = None
    omniscient: bool = True
    rule: Rule | None = None
    _memory: Memory = field(default_factory=Memory, repr=False)
    _poisoned: InlineEngine | None = field(default=None, repr=False)

    @property
    def real(self) -> bool:
        """False: all clients are this process."""
        return False

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Trains the cohort; the bad ones see before they send.

        Raises:
          HansaError: the attack cannot be made of what is known; or as the inline engine.
        """
        bad = [client for client in cohort if client in self.bad]
        engine = self._with_poison()
        if bad and task.purpose is Purpose.TRAIN and (self.attack.changes or self.attack.lie):
            sent = self._sent(task, cohort, bad, engine) if self.attack.changes else {}
            engine = replace(engine, contribution=_Sending(self.attack, sent, frozenset(bad)))
        async for item in engine.gather(task, cohort):
            yield item

    def _with_poison(self) -> InlineEngine:
        poison = self.poison
        if poison is None:
            return self.inline
        if self._poisoned is None:
            clean, order = self.inline.data, sorted(self.bad)
            key = ReplayKey.of_seed(0).derive("attack", self.attack.name)

            @lru_cache(maxsize=len(order) + 1)
            def poisoned(client: str) -> Split:
                return poison.poison(clean(client), key, order.index(client))

            def data(client: str) -> Split:
                return poisoned(client) if client in self.bad else clean(client)

            self._poisoned = replace(self.inline, data=data)
        return self._poisoned

    def _sent(
        self, task: RoundTask, cohort: Sequence[str], bad: list[str], engine: InlineEngine
    ) -> dict[str, Trained]:
        """What each client of the round gives to the encoding, honest ones as they trained."""
        send, previous = self.attack.send, self._memory.step(task)
        work = self.attack.work_of(task.plan, previous)
        own = {c: _trained(task, c, engine, work) for c in bad}
        if send is None:
            return {c: found for c, found in own.items() if found is not None}
        seen = self.omniscient and self.attack.knows != "own"
        honest: dict[str, Trained | None] = {}
        if seen:
            honest = {c: _trained(task, c, engine) for c in cohort if c not in self.bad}
        elif engine is self.inline and work is None:
            honest = own
        else:
            honest = {c: _trained(task, c, self.inline) for c in bad}
        taking_part = [c for c in bad if own[c] is not None]
        mine = {c: found for c, found in own.items() if found is not None}
        known = {c: found for c, found in honest.items() if found is not None}
        if not taking_part or not known:
            return known if seen else {}
        rows = np.stack([mine[c][0] for c in taking_part])
        attack = send(
            Knowledge(
                honest=np.stack([delta for delta, _ in known.values()]),
                own=rows,
                old=self._memory.first(taking_part, rows),
                previous=previous,
                cohort=len(cohort),
                key=task.key.derive("attack", self.attack.name, task.round),
                rule=self.rule,
            )
        )
        lies = {c: (row, mine[c][1]) for c, row in zip(taking_part, attack, strict=True)}
        return {**(known if seen else {}), **lies}


def _trained(
    task: RoundTask, client: str, engine: InlineEngine, work: ClientWork[Any] | None = None
) -> Trained | None:
    """What a client's training gives; None if it raises: it will again, and drops out then."""
    try:
        split = engine.data(client)
        ctx = context_of(task, client, engine.model, split)
        return train_locally(task, ctx, split, work)
    except Exception:  # noqa: BLE001  what a task raises drops that client
        return None


@dataclass(frozen=True, slots=True)
class _Sending:
    """The contribution of a client in a round under attack."""

    attack: Attack
    sent: Mapping[str, Trained]
    bad: frozenset[str]

    def __call__(
        self, task: RoundTask, client: str, model: Model, split: Split, noise: Noise | None = None
    ) -> Update:
        """What was trained or made up before, encoded; then the lie."""
        if client in self.sent:
            ctx = context_of(task, client, model, split, noise)
            update = encoded(task, ctx, split, self.sent[client])
        else:
            update = contribute(task, client, model, split, noise)
        if self.attack.lie is None or client not in self.bad:
            return update
        return Update(self.attack.lie(update.vector, update.layout), update.layout)


def bad_clients(population: Sequence[str], share: float, key: ReplayKey) -> frozenset[str]:
    """The floor(share * n) clients that are bad, drawn by a key.

    Raises:
      HansaError: the share is none, or nobody would be honest.
    """
    count = int(share * len(population) + 1e-9)
    if not 0 <= share < 1 or count >= len(population):
        raise HansaError(
            f"{share:g} of {len(population)} clients cannot be bad",
            fix="take a share from 0 to below 1",
        )
    drawn = key.generator("bad").permutation(len(population))[:count]
    return frozenset(population[i] for i in drawn.tolist())


def organisation(client: str, attack: Attack, bad: frozenset[str]) -> str:
    """Whose client it is: Sybils are one organisation, everybody else is its own."""
    return "sybils" if attack.together and client in bad else client
