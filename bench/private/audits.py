"""What attacks can show of the jobs that are measured, and of one job for each other mechanism.

Each is attacked by `hansa.privacy.audits.audit`, which is what `hansa audit privacy` runs. The jobs
for the other mechanisms have fewer clients, all of whom take part in each round: noise that clients
add themselves is made by each of them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench.private import accuracy
from hansa.algorithms import fedavg
from hansa.core.job import Cohort, Job, Privacy, Quantization, Rounds, SecureAggregation
from hansa.privacy.audits import AuditReport, audit

EPSILON, CLIENTS, ROUNDS = 4.0, 50, 10
"""Of the jobs for the other mechanisms."""


@dataclass(frozen=True)
class Subject:
    """One job to attack.

    Attributes:
      data: whose model it is.
      job: the job; its epsilon is the target that it names, none without noise.
    """

    data: str
    job: Job


def subjects() -> Iterator[Subject]:
    """The digits at each epsilon, as they are measured; then every other mechanism."""
    digits, turns = accuracy.digits(), accuracy.digits_in_turns()
    for epsilon in accuracy.EPSILONS:
        yield Subject(digits.data, digits.job(epsilon, 0, False))
    yield Subject(turns.data, turns.job(EPSILON, 0, False))
    base = replace(
        digits.job(EPSILON, 0, False),
        cohort=Cohort(population=CLIENTS),
        rounds=Rounds(count=ROUNDS, quorum=CLIENTS - 5),
    )
    for change in OTHERS.values():
        yield Subject(digits.data, change(base))


def rows(*, quick: bool, attack: Callable[..., AuditReport] = audit) -> Iterator[dict[str, Any]]:
    """One row for each job: what it claims beside what an attack shows, with noise and without."""
    for subject in subjects():
        yield row(subject, attack(subject.job, quick=quick))


def row(subject: Subject, report: AuditReport) -> dict[str, Any]:
    """All figures of one audit, with the target of its job."""
    privacy = subject.job.privacy
    return {
        "data": subject.data,
        "mechanism": privacy.mechanism,
        "clients": subject.job.cohort.population,
        "epsilon": privacy.epsilon or None,
        **{k: v for k, v in report.json().items() if k != "mechanism"},
        "noise": report.mechanism,
    }


def _with(**words: Any) -> Callable[[Job], Job]:
    def changed(job: Job) -> Job:
        return replace(job, privacy=replace(job.privacy, **words))

    return changed


def _distributed(job: Job) -> Job:
    return replace(
        _with(mechanism="distributed")(job),
        quantization=Quantization(bits=24),
        secure_aggregation=SecureAggregation(enabled=True),
    )


def _dpsgd(job: Job) -> Job:
    """Fifty clients of at least 1,000 images each hide single ones of them."""
    return replace(
        job,
        algorithm=fedavg(client_lr=accuracy.CLIENT_LR, local_steps=4, batch_size=250),
        privacy=Privacy(
            unit="example",
            mechanism="dpsgd",
            clip=1.0,
            epsilon=EPSILON,
            delta=accuracy.DELTA,
            examples=1000,
        ),
    )


OTHERS: dict[str, Callable[[Job], Job]] = {
    "gaussian": _with(mechanism="gaussian"),
    "discrete": _with(mechanism="discrete"),
    "distributed": _distributed,
    "local": _with(mechanism="local"),
    "dpsgd": _dpsgd,
}
"""How the job of each mechanism differs."""
