"""The job of `job.toml`, in Python, and the sites that it runs at."""

from __future__ import annotations

from pathlib import Path

from hansa.algorithms import fedavg
from hansa.core.job import Aggregation, Cohort, Job, Quantization, Rounds, SecureAggregation
from hansa.core.parts import Site
from hansa.examples.heart.task import HOSPITALS


def heart_job(rounds: int = 40, seed: int = 0) -> Job:
    """Federated averaging among all four hospitals.

    Twenty steps of descent a round, 800 in all: enough for the model to settle, and a hospital
    with few patients takes as many steps as one with many. The coordinator reads sums only; the
    clip is beyond what any honest update reaches, and a step is far below what training notices.
    """
    return Job(
        name="heart",
        task="hansa.examples.heart.task:Heart",
        seed=seed,
        rounds=Rounds(count=rounds),
        cohort=Cohort(population=len(HOSPITALS)),
        algorithm=fedavg(client_lr=0.1, local_steps=20, batch_size=32),
        aggregation=Aggregation(clip=8.0, max_weight=256),
        quantization=Quantization(step=1e-5),
        secure_aggregation=SecureAggregation(enabled=True, corrupt=0.34),
    )


def heart_sites(split_seed: int = 0) -> dict[str, Site]:
    """The four hospitals, reading the files that are installed with Hansa."""
    folder = Path(__file__).parent / "data"
    return {
        name: Site(name, {"path": str(folder / f"processed.{name}.data"), "split_seed": split_seed})
        for name in HOSPITALS
    }
