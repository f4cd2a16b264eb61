"""One cell of the matrix: one training run with some bad clients in it, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hansa.attacks.catalogue import Attack, attack_named
from hansa.attacks.data import Poison
from hansa.attacks.engine import AttackedEngine, bad_clients
from hansa.core.job import Job
from hansa.core.keys import ReplayKey
from hansa.core.parts import Task
from hansa.core.plan import Plan
from hansa.core.round import Engine, World
from hansa.core.train import initial_state, train
from hansa.core.vector import Vector
from hansa.defend import Standings
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import RoundVoid
from hansa.privacy.ledger import MemoryLedger
from hansa.redteam.division import Division
from hansa.redteam.measures import Counts, Worth, hits, worth
from hansa.redteam.rules import rule_of
from hansa.redteam.watch import WatchingEngine


@dataclass(frozen=True, slots=True)
class Cell:
    """What is run.

    Attributes:
      attack: name of `hansa.attacks.catalogue`; none: everybody is honest.
      share: of the clients that are bad.
      skew: name of the division.
      rule: words of the rule.
      seed: what the run, the division and the choice of bad clients follow from.
    """

    attack: str
    share: float
    skew: str
    rule: str
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a cell.

    Attributes:
      worth: of the last model.
      bad: names of the bad clients.
      minority: names of the clients that are least like the others.
      ended: why training ended before its last round; empty if it did not.
      quarantined: clients whose standing would be so at the end; None where no single updates are
        seen.
      by_itself: of an attack that wants an answer, what it gets of the model with nobody bad.
    """

    worth: Worth
    bad: frozenset[str]
    minority: frozenset[str]
    ended: str = ""
    quarantined: frozenset[str] | None = None
    by_itself: Counts | None = None

    def to_json(self) -> dict[str, Any]:
        """As one line of a file."""
        return {
            "sites": {name: [c.right, c.of] for name, c in self.worth.sites.items()},
            "classes": {name: [c.right, c.of] for name, c in self.worth.classes.items()},
            "cohorts": {name: [c.right, c.of] for name, c in self.worth.cohorts.items()},
            "hits": _pair(self.worth.hits),
            "by_itself": _pair(self.by_itself),
            "bad": sorted(self.bad),
            "minority": sorted(self.minority),
            "ended": self.ended,
            "quarantined": None if self.quarantined is None else sorted(self.quarantined),
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Outcome:
        """Reads such a line."""
        return cls(
            Worth(
                {name: Counts(*pair) for name, pair in value["sites"].items()},
                {name: Counts(*pair) for name, pair in value["classes"].items()},
                {name: Counts(*pair) for name, pair in value["cohorts"].items()},
                _counts(value["hits"]),
            ),
            frozenset(value["bad"]),
            frozenset(value["minority"]),
            value["ended"],
            None if value["quarantined"] is None else frozenset(value["quarantined"]),
            _counts(value["by_itself"]),
        )


def _pair(counts: Counts | None) -> list[int] | None:
    return None if counts is None else [counts.right, counts.of]


def _counts(pair: list[int] | None) -> Counts | None:
    return None if pair is None else Counts(*pair)


def run_cell(
    cell: Cell, plan: Plan, task: Task, division: Division, clean: Callable[[], Vector]
) -> tuple[Outcome, Vector]:
    """Trains the plan with bad clients in it, and measures the model.

    A round that is void again and again ends training: the model is then that of the last round
    that counted.

    Args:
      cell: what is run.
      plan: of the job under the cell's rule.
      task: the job's task.
      division: who holds what.
      clean: gives the parameters that the same plan reaches with nobody bad.

    Returns:
      What came of it, and the (d,) last parameters.

    Raises:
      HansaError: the attack cannot be made of what the bad clients have.
    """
    key = ReplayKey.of_seed(plan.job.seed)
    attack = attack_named(cell.attack)
    bad = bad_clients(division.clients, cell.share, key.derive("redteam"))
    poison = _poison(attack, division, bad)
    inline = InlineEngine(task, division.data, masked=False)
    attacked = AttackedEngine(inline, attack, bad, poison, rule=rule_of(plan))
    nobody = Standings.of(len(division.clients), plan.quorum)
    engine = WatchingEngine(attacked, nobody)
    with np.errstate(all="ignore"):  # a mean under attack diverges
        params, ended = _trained(plan, task, engine, division.clients)
        found = worth(task, params, division, poison)
        by_itself = None if poison is None else hits(task, clean(), division, poison)
    return (
        Outcome(found, bad, division.minority, ended, engine.quarantined, by_itself),
        params,
    )


def _poison(attack: Attack, division: Division, bad: frozenset[str]) -> Poison | None:
    """What is done to the data of the bad clients, made of what they hold."""
    if attack.poisoner is None or not bad:
        return None
    known = [division.data(client).train for client in sorted(bad)]
    return attack.poisoner(known, division.classes)


def _trained(
    plan: Plan, task: Task, engine: Engine, population: Sequence[str]
) -> tuple[Vector, str]:
    """The last parameters, and why training ended early, if it did."""
    key, journal = ReplayKey.of_seed(plan.job.seed), MemoryJournal()
    world = World(
        job=plan.job.name,
        engine=engine,
        ledger=MemoryLedger(plan.charges),
        journal=journal,
        noise=key,
        key=key,
        population=population,
    )
    start = task.initial(plan.job.seed)
    start.flags.writeable = False
    try:
        return asyncio.run(train(plan, initial_state(plan, start), world)).params, ""
    except RoundVoid as error:
        if journal.state is None:
            raise
        return journal.state.params, error.message


def quick_job(job: Job, seed: int) -> Job:
    """The job of a cell: only its last model is measured, unless what it measures decides."""
    if job.rounds.patience or job.defend.rollback:
        return replace(job, seed=seed)
    return replace(job, seed=seed, evaluate_every=0)
