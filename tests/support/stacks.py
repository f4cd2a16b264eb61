"""Jobs around the tasks in `stackjob`, and one round of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hansa.algorithms import fedavg
from hansa.core.contribute import Purpose, RoundTask
from hansa.core.job import Cohort, Job, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Algorithm, Dropout, Partial
from hansa.core.round import Engine
from hansa.core.vector import sha256
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of
from tests.support import toy
from tests.support.stackjob import task as tasks
from tests.support.stackjob.task import Net

FOLDER = Path(__file__).parent / "stackjob"
CLIENTS = tuple(f"client-{i:04d}" for i in range(1, 9))
"""They hold between 2 and 13 examples."""


def task_of(kind: str) -> Net:
    """A task by the name of its class."""
    made: Net = getattr(tasks, kind)()
    return made


def job(algorithm: Algorithm, kind: str = "Net", **words: Any) -> Job:
    """A job of twenty rounds for eight clients."""
    usual: dict[str, Any] = {
        "name": "stacks",
        "task": f"task:{kind}",
        "rounds": Rounds(count=20),
        "cohort": Cohort(population=len(CLIENTS)),
        "algorithm": algorithm,
        "folder": FOLDER,
    }
    return Job(**{**usual, **words})


def gathered(
    engine: Engine, purpose: Purpose = Purpose.TRAIN
) -> tuple[list[Partial], list[Dropout]]:
    """What an engine gives for one round of all clients."""
    of = job(fedavg(client_lr=0.1, local_epochs=2, batch_size=4))
    plan = compile_plan(of, facts_of(of, Net()))
    params = Net().initial(of.seed)
    key = ReplayKey.of_seed(of.seed)
    task = RoundTask(plan, 0, 0, purpose, params, sha256(params), key)
    return toy.gathered(engine, task, CLIENTS)
