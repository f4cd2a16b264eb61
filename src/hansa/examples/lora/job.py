"""The jobs of `job.toml` and `folders.toml`, in Python."""

from __future__ import annotations

from hansa.algorithms import fedavg
from hansa.core.job import Cohort, Job, Rounds

from .mails import FOLDERS


def lora_job(rounds: int = 15, seed: int = 0, *, folders: bool = False) -> Job:
    """Federated averaging of adapters, all clients in each round.

    Args:
      rounds: number of rounds.
      seed: number from which all repeatable randomness derives.
      folders: the clients are the corpus's five folders, not ten mailboxes.
    """
    return Job(
        name="lora-folders" if folders else "lora",
        task=f"hansa.examples.lora.task:{'SpamFolders' if folders else 'Spam'}",
        seed=seed,
        rounds=Rounds(count=rounds),
        cohort=Cohort(population=len(FOLDERS) if folders else 10),
        algorithm=fedavg(client_lr=0.1, local_steps=4, batch_size=16),
        evaluate_every=5,
    )
