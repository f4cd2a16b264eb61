"""Rounds of federated averaging by pfl-research, in one process or in two, on `speed/models.py`.

    PYTHON bench/peer_simulation_pfl.py KIND ROUNDS CLIENTS STARTED PROCESSES

PYTHON is that of `peer_environments.py`; nothing of Hansa is needed. Two processes are those of
torchrun with gloo, as pfl's documentation has it; each computes on one thread. Examples of a client
are made once in a process and kept. STARTED is the time at which somebody started this. Prints one
JSON object: seconds of each round, the first one's end from the start of the run (`first`) and from
STARTED (`wall`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POPULATION = 1000


def train(kind: str, rounds: int, clients: int, started: float) -> dict[str, Any] | None:
    """Trains in this process; what it gave, in the first process."""
    import numpy as np
    import torch
    from pfl.aggregate.simulate import SimulatedBackend  # type: ignore[import-not-found]
    from pfl.algorithm.base import NNAlgorithmParams  # type: ignore[import-not-found]
    from pfl.algorithm.federated_averaging import (  # type: ignore[import-not-found]
        FederatedAveraging,
    )
    from pfl.callback.base import TrainingProcessCallback  # type: ignore[import-not-found]
    from pfl.data.dataset import Dataset  # type: ignore[import-not-found]
    from pfl.data.federated_dataset import FederatedDataset  # type: ignore[import-not-found]
    from pfl.hyperparam import NNTrainHyperParams  # type: ignore[import-not-found]
    from pfl.metrics import Metrics  # type: ignore[import-not-found]
    from pfl.model.pytorch import PyTorchModel  # type: ignore[import-not-found]

    from bench.speed import models

    called = time.time()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        """The network, with the methods that pfl calls."""

        def __init__(self) -> None:
            super().__init__()
            self.net = models.network(kind)

        def loss(self, inputs: Any, targets: Any, **_: Any) -> torch.Tensor:
            """Mean cross-entropy."""
            return torch.nn.functional.cross_entropy(self.net(inputs), targets)

        def metrics(self, *_: Any, **__: Any) -> dict[str, Any]:
            """None are measured."""
            return {}

    ends: list[float] = []

    class Clock(TrainingProcessCallback):  # type: ignore[misc]
        """Notes when a round is over."""

        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
            """Goes on."""
            ends.append(time.time())
            return False, Metrics()

    @cache
    def dataset(client: int) -> Any:
        inputs, targets = models.examples(f"client-{client + 1:04d}")
        return Dataset(raw_data=[torch.from_numpy(inputs), torch.from_numpy(targets)])

    module = Net()
    begun = time.time()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=clients,
            val_cohort_size=0,
        ),
        SimulatedBackend(
            training_data=FederatedDataset(dataset, cohorts(np, clients)), val_data=None
        ),
        PyTorchModel(
            module,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
        ),
        NNTrainHyperParams(
            local_learning_rate=models.RATE, local_num_epochs=1, local_batch_size=models.BATCH
        ),
        None,
        [Clock()],
    )
    if int(os.environ.get("RANK", "0")):
        return None
    seconds = [end - start for start, end in zip([begun, *ends], ends, strict=False)]
    return {"seconds": seconds, "first": ends[0] - called, "wall": ends[0] - started}


def cohorts(np: Any, size: int) -> Callable[[], int]:
    """The next client of a cohort: `size` different ones, then a new cohort."""
    rng, waiting = np.random.default_rng(0), list[int]()

    def draw() -> int:
        if not waiting:
            waiting.extend(rng.choice(POPULATION, size, replace=False).tolist())
        return waiting.pop()

    return draw


def main(kind: str, rounds: str, clients: str, started: str, processes: str) -> None:
    """Measures one run."""
    if processes == "1" or "RANK" in os.environ:
        sys.path.insert(0, str(ROOT))
        found = train(kind, int(rounds), int(clients), float(started))
        if found is not None:
            print(json.dumps(found))
        return
    words = [__file__, kind, rounds, clients, started, processes]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    subprocess.run([sys.executable, *torchrun, *words], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
