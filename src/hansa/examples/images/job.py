"""The job of `job.toml`, in Python."""

from __future__ import annotations

from hansa.algorithms import fedavg
from hansa.core.job import Cohort, Job, Rounds


def images_job(rounds: int = 20, seed: int = 0, *, small: bool = False) -> Job:
    """Federated averaging, ten of a hundred clients in a round.

    Args:
      rounds: number of rounds.
      seed: number from which all repeatable randomness derives.
      small: train the small network, which takes a thirtieth of the time.
    """
    return Job(
        name="images",
        task=f"hansa.examples.images.task:{'SmallImages' if small else 'Images'}",
        seed=seed,
        rounds=Rounds(count=rounds),
        cohort=Cohort(population=100, sampler="fixed", size=10),
        algorithm=fedavg(client_lr=0.05, local_epochs=5, batch_size=10),
    )
