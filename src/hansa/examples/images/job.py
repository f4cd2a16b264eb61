"""The jobs of `job.toml`, `1000.toml` and `1000-iid.toml`, in Python."""

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


def devices_job(rounds: int = 50, seed: int = 0, *, iid: bool = False) -> Job:
    """Federated averaging, twenty of a thousand devices in a round.

    Args:
      rounds: number of rounds.
      seed: number from which all repeatable randomness derives.
      iid: devices have images of all classes alike.
    """
    return Job(
        name="images-1000-iid" if iid else "images-1000",
        task=f"hansa.examples.images.task:{'DevicesIid' if iid else 'Devices'}",
        seed=seed,
        rounds=Rounds(count=rounds),
        cohort=Cohort(population=1000, sampler="fixed", size=20),
        algorithm=fedavg(client_lr=0.1, local_epochs=2, batch_size=10),
    )
