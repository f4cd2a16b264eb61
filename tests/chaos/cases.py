"""Runs of a job in which something is killed, each with everything that must be true of it."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from hansa.examples.heart.task import HOSPITALS
from tests.chaos.arena import COORDINATOR, Arena, Make, expected, plain_job, private_job
from tests.chaos.evidence import nothing_lost_or_doubled

FIGURES = "HANSA_CHAOS_FIGURES"
"""Names a file to which each run adds a line; `python -m tests.chaos.figures FILE` sums it up."""

SEEDS = 5
"""Different jobs of one kind: each is simulated once and run many times."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run.

    Attributes:
      number: its name; all chance of a random run comes from it.
      make: the kind of job.
      rounds: training rounds.
      victims: processes that are killed, all at one moment.
      moment: a point of `tests/support/mortal.py` at which the victim dies, or empty.
      count: how often the point, or the beginning of a round, is passed before.
      delay: seconds after the beginning of that round at which a random run kills.
    """

    number: int
    make: Make
    rounds: int
    victims: tuple[str, ...]
    moment: str = ""
    count: int = 0
    delay: float = 0.0

    @property
    def seed(self) -> int:
        """The job's seed."""
        return self.number % SEEDS

    def __str__(self) -> str:
        where = self.moment or f"{self.delay * 1000:.0f} ms after round"
        who = " and ".join(self.victims)
        return f"run {self.number} ({self.make.__name__}): {who} {where} {self.count}"


def at_random(number: int, rounds: int, longest: float) -> Case:
    """The coordinator in even runs, a site in odd ones; two of ten runs are private.

    Args:
      number: of the run; equal numbers give equal cases.
      rounds: training rounds.
      longest: most seconds between the beginning of a round and the kill.
    """
    rng = random.Random(f"chaos {number}")
    victim = COORDINATOR if number % 2 == 0 else rng.choice(HOSPITALS)
    make = private_job if number % 10 >= 8 else plain_job
    count, delay = rng.randrange(rounds + 2), rng.uniform(0, longest)
    return Case(number, make, rounds, (victim,), count=count, delay=delay)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to.

    Attributes:
      case: the run in words.
      victims: who was killed.
      late: whether the job had ended before.
      identical: whether the model is the undisturbed one; None where noise is fresh.
      receipts: receipts that the sites hold.
      lost: members of rounds without a place in the result: 0, or the run fails.
      twice: members that were counted twice: 0, or the run fails.
      rounds: rounds that ended.
      charges: charges that were committed.
      resume: seconds from the start of the coordinator's process to the job's next step.
      seconds: of the whole run.
    """

    case: str
    victims: tuple[str, ...]
    late: bool
    identical: bool | None
    receipts: int
    lost: int
    twice: int
    rounds: int
    charges: int
    resume: float | None
    seconds: float


def run(arena: Arena, case: Case) -> Figures:
    """Runs a job, kills, starts again, and checks everything."""
    wanted = expected(case.make, case.seed, case.rounds)
    if case.moment:
        arena.condemn(case.victims[0], case.moment, case.count)
    started = time.monotonic()
    job = arena.submit(case.make(case.seed, case.rounds))
    late = False
    if case.moment:
        arena.await_death(case.victims[0])
    else:
        late = not arena.await_rounds(job, case.count)
        time.sleep(case.delay)
        late = late or arena.store.job(job).status.final
        arena.kill(*case.victims)
    since = arena.revive(*case.victims)
    traces = arena.finished(job, *case.victims)
    seconds = time.monotonic() - started
    nothing_lost_or_doubled(traces, wanted, frozenset(case.victims) - {COORDINATOR})
    counted = [site for record in traces.records for site in record.members]
    told = {(site, key) for site in HOSPITALS for key in traces.said(site, "received")}
    figures = Figures(
        case=str(case),
        victims=case.victims,
        late=late,
        identical=traces.state is not None and traces.state.model_sha256 == wanted.model
        if wanted.model
        else None,
        receipts=len(told),
        lost=len(wanted.rounds) * len(HOSPITALS) - len(counted),
        twice=len(counted)
        - len({(site, r.purpose, r.round) for r in traces.records for site in r.members}),
        rounds=len(traces.records),
        charges=sum(entry.kind == "commit" for entry in traces.entries),
        resume=None if late or COORDINATOR not in case.victims else arena.resumed(job, since),
        seconds=seconds,
    )
    note(figures)
    return figures


def note(figures: Figures) -> None:
    """Adds a run to the figures, if somebody collects them."""
    path = os.environ.get(FIGURES)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(figures)) + "\n")


def undisturbed(arena: Arena, make: Make, seed: int, rounds: int) -> None:
    """The same job without any kill is what the simulation says."""
    traces = arena.finished(arena.submit(make(seed, rounds)))
    nothing_lost_or_doubled(traces, expected(make, seed, rounds))
