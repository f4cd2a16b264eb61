"""The job of `job.toml`, in Python."""

from __future__ import annotations

from hansa.algorithms import fedavg
from hansa.core.job import Cohort, Job, Rounds

ROLES = 586
"""Roles with at least 1,000 characters."""


def shakespeare_job(rounds: int = 200, seed: int = 0) -> Job:
    """Federated averaging, ten roles in a round.

    Args:
      rounds: number of rounds.
      seed: number from which all repeatable randomness derives.
    """
    return Job(
        name="shakespeare",
        task="hansa.examples.shakespeare.task:Roles",
        seed=seed,
        rounds=Rounds(count=rounds),
        cohort=Cohort(population=ROLES, sampler="fixed", size=10),
        algorithm=fedavg(client_lr=4.0, local_epochs=1, batch_size=4),
    )
