"""Jobs to audit, around the task in `wide`, and one line for each mechanism."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hansa.algorithms import fedavg, fedsgd
from hansa.core.job import (
    Aggregation,
    Cohort,
    Job,
    Privacy,
    Quantization,
    Rounds,
    SecureAggregation,
)
from hansa.core.parts import Task
from hansa.core.plan import Plan
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of, load_task

FOLDER = Path(__file__).parent / "wide"


def job(**words: Any) -> Job:
    usual: dict[str, Any] = {
        "name": "wide",
        "task": "task:Wide",
        "folder": FOLDER,
        "rounds": Rounds(count=3),
        "cohort": Cohort(population=20),
        "algorithm": fedavg(client_lr=0.5, local_epochs=1, batch_size=8),
        "aggregation": Aggregation(weighting="uniform"),
    }
    return Job(**{**usual, **words})


def gaussian(epsilon: float = 2.0, **words: Any) -> Job:
    """Noise by the coordinator."""
    privacy = Privacy(mechanism="gaussian", clip=0.5, epsilon=epsilon, delta=1e-5)
    return job(**{"privacy": privacy, **words})


def distributed(epsilon: float = 2.0, **words: Any) -> Job:
    """Noise by the clients, under masks."""
    usual: dict[str, Any] = {
        "privacy": Privacy(mechanism="distributed", clip=0.5, epsilon=epsilon, delta=1e-5),
        "quantization": Quantization(bits=24),
        "secure_aggregation": SecureAggregation(enabled=True),
        "rounds": Rounds(count=2, quorum=18),
    }
    return job(**{**usual, **words})


def dpsgd(steps: int = 4, batch_size: int = 5, examples: int = 20, **words: Any) -> Job:
    """Noise by each client, at each step."""
    privacy = Privacy(
        unit="example", mechanism="dpsgd", clip=1.0, epsilon=2.0, delta=1e-5, examples=examples
    )
    usual: dict[str, Any] = {
        "privacy": privacy,
        "cohort": Cohort(population=3),
        "algorithm": fedavg(client_lr=0.1, local_steps=steps, batch_size=batch_size),
    }
    return job(**{**usual, **words})


PRIVATE = gaussian().privacy

MECHANISMS = {
    "gaussian": gaussian(),
    "gaussian, weighted by examples": gaussian(
        aggregation=Aggregation(weighting="examples", max_weight=7.0)
    ),
    "gaussian, on a ring": gaussian(quantization=Quantization(step=1e-4)),
    "gaussian, poisson": gaussian(cohort=Cohort(population=30, sampler="poisson", rate=0.7)),
    "gaussian, fixed size": gaussian(cohort=Cohort(population=30, sampler="fixed", size=20)),
    "distributed": distributed(),
    "discrete": gaussian(privacy=replace(PRIVATE, mechanism="discrete")),
    "local": gaussian(privacy=replace(PRIVATE, mechanism="local")),
    "correlated": gaussian(
        privacy=replace(PRIVATE, mechanism="correlated"),
        cohort=Cohort(population=30, sampler="cyclic", separation=3),
        rounds=Rounds(count=6),
    ),
    "dpsgd": dpsgd(),
}


def planned(of: Job) -> tuple[Plan, Task]:
    task = load_task(of)
    return compile_plan(of, facts_of(of, task)), task


def plain(**words: Any) -> Job:
    """No privacy; one gradient a round."""
    return job(**{"algorithm": fedsgd(server_lr=0.1), **words})
