"""Virtual time until a model is good: rounds that wait, that over-select, and that do neither.

    python bench/asynchronous.py [--quick] [--json]

Forty of 200 phones of `bench/many` work at a time in each of three jobs, on devices of which some
are many times slower than most. `waits` counts all forty; `over_selects` the first thirty;
`arrival` makes a step of the model for every ten updates (FedBuff). Measured is the loss of the
model after each round on the held-out examples of all 200 clients together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hansa.algorithms import fedavg
from hansa.core.contribute import Purpose
from hansa.core.job import Cohort, Job, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.metrics import measure, values
from hansa.core.parts import Examples, Site, Split, Task
from hansa.core.round import RoundRecord, TrainState, World
from hansa.core.train import initial_state, train
from hansa.devices import Devices, Failures, LogNormal
from hansa.engines.buffered import BufferedEngine, OnDevices
from hansa.engines.inline import InlineEngine
from hansa.engines.kept import Kept
from hansa.engines.memory import MemoryJournal
from hansa.engines.timed import Predictor, TimedEngine
from hansa.populations.names import Numbered
from hansa.privacy.ledger import MemoryLedger
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of, load_task

HERE = Path(__file__).resolve().parent
CLIENTS, AT_WORK, LOSS = 200, 40, 0.8
"""The loss is log(5) = 1.61 at first, and near 0.7 at the end."""

DEVICES: Mapping[str, Devices] = {
    "alike": Devices(speeds=LogNormal(1.0, compute_spread=0.0, network_spread=0.0)),
    "varied": Devices(speeds=LogNormal(1.0)),
    "stragglers": Devices(speeds=LogNormal(1.0), failures=Failures(0.05, stragglers=0.05)),
}
"""All equally fast; as phones are; and 5 % of all work is lost, 5 % takes ten times as long."""

COHORTS = {
    "waits": Cohort(population=CLIENTS, sampler="fixed", size=AT_WORK),
    "over_selects": Cohort(
        population=CLIENTS, sampler="fixed", size=3 * AT_WORK // 4, over_selection=4 / 3
    ),
    "arrival": Cohort(
        population=CLIENTS, sampler="arrival", buffer=AT_WORK // 4, concurrency=AT_WORK
    ),
}


@dataclass(slots=True)
class Watching(MemoryJournal):
    """Measures each model, and stops caring once one is good enough."""

    task: Task | None = None
    held_out: Examples | None = None
    now: float = 0.0
    updates: int = 0
    reached: dict[str, float] = field(default_factory=dict)
    ages: list[int] = field(default_factory=list)

    async def close(self, record: RoundRecord, state: TrainState) -> TrainState:
        """Notes when the model was good for the first time, and what it took."""
        if record.purpose is Purpose.TRAIN and not self.reached:
            self.now += record.virtual_seconds or 0.0
            self.updates += len(record.members)
            self.ages += [age for age, count in enumerate(record.ages) for _ in range(count)]
            if self._loss(state) <= LOSS:
                self.reached = {
                    "hours": self.now / 3600,
                    "rounds": record.round + 1,
                    "updates": self.updates,
                    "age": statistics.fmean(self.ages) if self.ages else 0.0,
                }
        return await MemoryJournal.close(self, record, state)

    def _loss(self, state: TrainState) -> float:
        assert self.task is not None
        assert self.held_out is not None
        sums = measure(self.task.metrics, self.task.predict(state.params, self.held_out))
        loss = values(self.task.metrics, sums)["loss"]
        return float("inf") if loss is None else loss


def run(name: str, devices: Devices, seed: int, most: int) -> dict[str, float]:
    """What it takes until the model is good; empty if it is not after `most` rounds."""
    job = Job(
        name=name.replace("_", "-"),
        task="task:Many",
        rounds=Rounds(count=most, deadline=1800.0, attempts=9, quorum=0),
        cohort=COHORTS[name],
        algorithm=fedavg(client_lr=0.01, local_epochs=5, batch_size=8),
        seed=seed,
        evaluate_every=0,
        folder=HERE / "many",
    )
    task = load_task(job)
    plan = compile_plan(job, facts_of(job, task))
    data = Kept(lambda client: task.data(Site(client, {})))
    names, key = Numbered(CLIENTS), ReplayKey.of_seed(seed)
    predictor = Predictor(task, data, key.derive("devices"), devices)
    timed = TimedEngine(InlineEngine(task, data), predictor)
    engine = BufferedEngine(timed.inner, OnDevices(predictor), timed)
    journal = Watching(task=task, held_out=_together([data(client) for client in names]))
    world = World(plan.job.name, engine, MemoryLedger(plan.charges), journal, key, key, names)
    params = task.initial(seed)
    asyncio.run(train(plan, initial_state(plan, params), world))
    return journal.reached


def _together(splits: list[Split]) -> Examples:
    parts = [split.test for split in splits]
    return Examples(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.targets for part in parts]),
    )


def measure_all(seeds: int, kinds: list[str]) -> dict[str, Any]:
    """Medians over the seeds, for each kind of devices and each job, and the ratios of time."""
    found: dict[str, Any] = {"loss": LOSS, "seeds": seeds}
    for kind in kinds:
        rows = {}
        for name in COHORTS:
            most = 400 if name == "arrival" else 100
            runs = [run(name, DEVICES[kind], seed, most) for seed in range(seeds)]
            rows[name] = {
                word: statistics.median(one[word] for one in runs)
                for word in ("hours", "rounds", "updates", "age")
            }
        hours = rows["arrival"]["hours"]
        for name in ("waits", "over_selects"):
            rows["arrival"][f"sooner_than_{name}"] = rows[name]["hours"] / hours
        found[kind] = rows
    return found


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and one kind of devices")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    asked = parser.parse_args(words)
    found = measure_all(1, ["stragglers"]) if asked.quick else measure_all(3, list(DEVICES))
    if asked.json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return
    for kind in found.keys() & DEVICES.keys():
        print(kind)
        for name, row in found[kind].items():
            print(f"  {name:<14}" + "".join(f"{word} {row[word]:<10.3g}" for word in row))


if __name__ == "__main__":
    main()
