"""Jobs, plans and updates for tests, around the task in `toyjob`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hansa.algorithms import fedavg
from hansa.core.contribute import Purpose, RoundTask
from hansa.core.job import Cohort, Job, Rounds, TaskFacts
from hansa.core.keys import ReplayKey
from hansa.core.parts import (
    Aggregator,
    Context,
    Course,
    Dropout,
    Examples,
    Facts,
    Partial,
    Site,
    Split,
    Stage,
    Update,
)
from hansa.core.plan import Plan
from hansa.core.round import Engine, World
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Layout, Segment, Vector, sha256
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.privacy.ledger import MemoryLedger
from hansa.recipes import compile_plan
from tests.support.toyjob.task import Toy

FOLDER = Path(__file__).parent / "toyjob"
TOY = Toy()
FACTS = TaskFacts(schema=TOY.schema, metrics=tuple(TOY.metrics), digest="0" * 64)
POPULATION = tuple(f"client-{i:04d}" for i in range(1, 7))
LAYOUT = Layout((Segment("delta", 5), Segment("weight", 1), Segment("metrics", 4)))


def job(**words: Any) -> Job:
    """A job for six clients."""
    usual: dict[str, Any] = {
        "name": "toy",
        "task": "task:Toy",
        "rounds": Rounds(count=3),
        "cohort": Cohort(population=len(POPULATION)),
        "algorithm": fedavg(client_lr=0.5, local_epochs=2, batch_size=8),
        "folder": FOLDER,
    }
    return Job(**{**usual, **words})


def plan(**words: Any) -> Plan:
    """The plan of such a job."""
    return compile_plan(job(**words), FACTS)


def with_parts(of: Plan, **changed: Any) -> Plan:
    """The same plan with other parts, unchecked: for odd fakes."""
    return replace(of, parts=replace(of.parts, **changed))


def data(client: str) -> Split:
    """A client's examples."""
    return TOY.data(Site(client, {}))


def nobody(_: str) -> Split:
    """A client without any examples."""
    none = Examples(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    return Split(none, none)


def world(of: Plan, engine: Engine | None = None, **changed: Any) -> World:
    """Where a plan runs in tests."""
    key = ReplayKey.of_seed(of.job.seed)
    usual: dict[str, Any] = {
        "job": of.job.name,
        "engine": engine or InlineEngine(TOY, data),
        "ledger": MemoryLedger(of.charges),
        "journal": MemoryJournal(),
        "noise": key,
        "key": key,
        "population": POPULATION,
    }
    return World(**{**usual, **changed})


def start() -> Vector:
    """Parameters to start from."""
    return TOY.initial(0)


def round_task(of: Plan, purpose: Purpose = Purpose.TRAIN, number: int = 0) -> RoundTask:
    """The task of one round from the initial parameters."""
    params = start()
    return RoundTask(of, number, 0, purpose, params, sha256(params), ReplayKey.of_seed(of.job.seed))


def context(client: str = "kiel", number: int = 0, seed: int = 0) -> Context:
    """A client's place in a round."""
    key = ReplayKey.of_seed(seed).derive("round", number, "client", client)
    return Context(client, number, key, TOY, clip=2.0, loss=lambda: 0.7)


def update(
    delta: Sequence[float], weight: float, metrics: Sequence[float] = (), layout: Layout = LAYOUT
) -> Update:
    """A raw update as a client has it before the first stage."""
    vector = np.zeros(layout.size, np.float32)
    for name, values in {"delta": delta, "weight": [weight], "metrics": metrics}.items():
        target = layout.slice(vector, name)
        target[: min(len(values), len(target))] = np.asarray(values, np.float64)[: len(target)]
    return Update(vector, layout)


def copy(of: Update) -> Update:
    """An update in its own memory."""
    return Update(of.vector.copy(), of.layout)


def facts_after(
    parts: Sequence[Stage | Aggregator], layout: Layout = LAYOUT, **known: Any
) -> dict[str, UpdateSpec]:
    """The facts of each segment after some parts."""
    facts = {
        s.name: UpdateSpec(segment=s.name, size=s.size, **{"cohort": 4, "quorum": 3, **known})
        for s in layout.segments
    }
    for part in parts:
        facts = {name: part.infer(spec) for name, spec in facts.items()}
    return facts


def encode(stages: Sequence[Stage], of: Update, ctx: Context | None = None) -> Update:
    """What a client sends."""
    sent = copy(of)
    for stage in stages:
        sent = stage.encode(sent, ctx or context())
    return sent


def admit(stages: Sequence[Stage], of: Update, facts: Facts) -> None:
    """What the coordinator checks."""
    for stage in stages:
        stage.admit(of, facts)


def run(work: Any) -> Any:
    """The result of a coroutine."""
    return asyncio.run(work)


def gathered(
    engine: Engine, task: RoundTask, cohort: Sequence[str]
) -> tuple[list[Partial], list[Dropout]]:
    """All that an engine yields."""

    async def collect() -> tuple[list[Partial], list[Dropout]]:
        partials: list[Partial] = []
        dropouts: list[Dropout] = []
        stream: AsyncIterator[Partial | Dropout | Course] = engine.gather(task, cohort)
        async for item in stream:
            if isinstance(item, Dropout):
                dropouts.append(item)
            elif isinstance(item, Partial):
                partials.append(item)
        return partials, dropouts

    result: tuple[list[Partial], list[Dropout]] = asyncio.run(collect())
    return result
