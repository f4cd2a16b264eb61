"""The matrix: attacks x share of bad clients x skew of the data x rule, on a job of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from hansa.attacks.catalogue import ATTACKS, attack_named
from hansa.attacks.engine import bad_clients
from hansa.core.job import Cohort, Job
from hansa.core.keys import ReplayKey
from hansa.core.parts import Task
from hansa.core.plan import Plan
from hansa.errors import HansaError, Refused
from hansa.recipes import compile_plan
from hansa.redteam.cell import Cell, quick_job
from hansa.redteam.division import OWN as OWN_SKEW
from hansa.redteam.division import Division, divided, read_own, skew_named
from hansa.redteam.parallel import in_processes
from hansa.redteam.record import Record
from hansa.redteam.rows import NONE, Row, rows_of
from hansa.redteam.rules import MEAN, OWN, Words, rule_of, under, words_of
from hansa.redteam.running import OnCell, Work, in_turn
from hansa.simulation import population_of
from hansa.work.bundle import facts_of, load_task

SHARES = (0.05, 0.2, 0.4)
"""Of the clients that are bad: of one's own choosing, or those of these that are somebody."""

USUAL = (
    "sign_flip", "gaussian", "scaling", "alie", "ipm_0.5", "min_max", "mimic", "label_flip",
    "backdoor_boosted",
)  # fmt: skip
"""Attacks that are run where none are named."""

ADAPTIVE = tuple(name for name, attack in ATTACKS.items() if attack.knows == "rule")
"""Attacks that look for what harms the job's rule most."""

SKEWS = (OWN_SKEW, "iid", "dirichlet_0.3")

PLAIN = ""
"""Stands for the plain mean in the cells that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for.

    Attributes:
      attacks: names.
      shares: of the clients that are bad; empty: those of `SHARES` that are somebody.
      skews: names of divisions.
      rules: own, or words of a rule.
      seeds: empty: the job's own.
      bad: share that rules are told may be bad, the job's own rule too; None: what the job says.
    """

    attacks: tuple[str, ...] = USUAL
    shares: tuple[float, ...] = ()
    skews: tuple[str, ...] = SKEWS
    rules: tuple[str, ...] = (OWN,)
    seeds: tuple[int, ...] = ()
    bad: float | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that was checked and can run.

    Attributes:
      job: whose it is.
      task: its task.
      own: the task's own division.
      plans: by rule and seed; the plain mean is `PLAIN`.
      cells: in the order in which they run.
    """

    job: Job
    task: Task
    own: Division
    plans: Mapping[tuple[str, int], Plan] = field(repr=False)
    cells: tuple[Cell, ...] = field(repr=False)

    def run(self, record: Record, on_cell: OnCell, parallel: int = 1) -> list[Row]:
        """Runs all cells that the record does not have; the rows do not depend on how many at once.

        Args:
          record: what was run before; what runs now is written there as it ends.
          on_cell: called after each with what came of it, and whether it ran just now.
          parallel: cells at a time, each in a process; 1: one after the other, in this one.

        Raises:
          HansaError: an attack cannot be made, a process is killed again and again, or the record
            cannot be written.
        """
        run = in_turn if parallel == 1 else partial(in_processes, parallel)
        found = run(self.work, self.cells, record, on_cell)
        return rows_of({cell: found[cell] for cell in self.cells})

    @property
    def work(self) -> Work:
        """What runs one cell of it."""
        return Work(self.job, self.task, self.own, self.plans)


def prepare(job: Job, wanted: Wanted) -> Matrix:
    """Checks all that can be checked before anything runs.

    Raises:
      PlanRefused: the job cannot run under one of the rules; holds every reason.
      Refused: an attack, a share, a skew or a rule cannot be; the task's targets are no classes.
    """
    _possible(job, wanted)
    attacks = tuple(dict.fromkeys(wanted.attacks))
    for name in attacks:
        _known_attack(name)
    for skew in wanted.skews:
        skew_named(skew)
    rules = {_label(job, name): _words(job, name) for name in wanted.rules}
    seeds = wanted.seeds or (job.seed,)
    task = load_task(job)
    clients = tuple(population_of(job, task))
    shares = _shares(wanted.shares, clients)
    facts = facts_of(job, task)
    own_words = words_of(job)
    plans: dict[tuple[str, int], Plan] = {}
    for seed in seeds:
        each = quick_job(job, seed)
        for label, words in rules.items():
            kept = words == own_words and wanted.bad is None
            ready = each if kept else under(each, words, wanted.bad)
            plans[label, seed] = compile_plan(ready, facts)
        plans[PLAIN, seed] = compile_plan(under(each, Words(MEAN)), facts)
    for (label, _), plan in plans.items():
        _adapts(attacks, label, plan)
    own = read_own(task, clients)
    for skew in wanted.skews:
        divided(own, skew, ReplayKey.of_seed(seeds[0]))  # refuses what cannot be divided
    cells = tuple(
        Cell(attack, share, skew, rule, seed)
        for skew in dict.fromkeys(wanted.skews)
        for seed in seeds
        for rule in (PLAIN, *rules)
        for attack, share in ((NONE, 0.0), *_attacked(rule, attacks, shares))
    )
    return Matrix(job, task, own, plans, cells)


def _possible(job: Job, wanted: Wanted) -> None:
    """Refuses what would run nothing, or could not run.

    Raises:
      Refused: there is no skew, rule or attack; or rounds are filled as updates arrive.
    """
    for name in ("attacks", "skews", "rules"):
        if not getattr(wanted, name):
            raise Refused(
                f"without {name} there is nothing to run", fix=f"name some, or leave --{name} out"
            )
    if job.cohort.sampler == "arrival":
        raise Refused(
            "attacks are run in rounds that wait for their cohort, and this job's do not",
            fix=f"attack it with {_waiting(job)}: the rule and the data are the same",
        )


def _waiting(job: Job) -> str:
    """The options under which its rounds wait for everyone; words for arrivals alone are unsaid."""
    usual = Cohort(population=job.cohort.population)
    words = {"sampler": usual.sampler} | {
        name: getattr(usual, name)
        for name in ("buffer", "concurrency", "staleness_exponent", "max_staleness")
        if getattr(job.cohort, name) != getattr(usual, name)
    }
    return " ".join(f"--set cohort.{name}={value}" for name, value in words.items())


def _attacked(
    rule: str, attacks: Sequence[str], shares: Sequence[float]
) -> list[tuple[str, float]]:
    """The plain mean is run with nobody bad: to compare with."""
    if rule == PLAIN:
        return []
    return [(attack, share) for attack in attacks if attack != NONE for share in shares]


def _known_attack(name: str) -> None:
    try:
        attack_named(name)
    except HansaError as error:
        raise Refused(error.message, fix=error.fix) from error


def _words(job: Job, name: str) -> Words:
    return words_of(job) if name == OWN else Words.read(name)


def _label(job: Job, name: str) -> str:
    return str(_words(job, name))


def _shares(asked: tuple[float, ...], clients: Sequence[str]) -> tuple[float, ...]:
    """The shares that make somebody bad and leave somebody honest.

    Raises:
      Refused: one of those asked for does not.
    """
    found = []
    for share in dict.fromkeys(asked or SHARES):
        if not 0 < share < 1:
            raise Refused(
                f"a share of {share:g} of the clients cannot be bad",
                fix="take shares above 0 and below 1, such as 0.2",
            )
        count = len(bad_clients(clients, share, ReplayKey.of_seed(0)))
        if count:
            found.append(share)
        elif asked:
            raise Refused(
                f"{share:.0%} of {len(clients)} clients is nobody",
                fix=f"take a share of at least {-(-100 // len(clients)) / 100:g}",
            )
    if not found:
        raise Refused(
            f"among {len(clients)} clients no share of {', '.join(f'{s:.0%}' for s in SHARES)} is "
            "anybody",
            fix="name shares that are, or attack a job with three clients or more",
        )
    return tuple(found)


def _adapts(attacks: Sequence[str], label: str, plan: Plan) -> None:
    """Refuses attacks that adapt to a rule that cannot be looked at."""
    adaptive = [name for name in attacks if name in ADAPTIVE]
    if adaptive and label != PLAIN and rule_of(plan) is None:
        raise Refused(
            f"{adaptive[0]} adapts to a rule over single updates, and this job's plan shows none: "
            "updates are masked, quantized, in groups or compared with a trusted one",
            fix="leave the adaptive attacks out, or attack the job without these",
        )
