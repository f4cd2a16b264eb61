"""Rounds of federated averaging by Flower's simulation, its Ray backend, on `speed/models.py`.

    PYTHON bench/peer_simulation_flower.py KIND ROUNDS CLIENTS STARTED

PYTHON is that of `peer_environments.py`; nothing of Hansa is needed. As many actors as there are
cores, each with one thread; nobody is asked before all 1,000 virtual nodes are there. Examples of a
client are made once in a process and kept. STARTED is the time at which somebody started this.
Prints one JSON object: seconds of each round, the first one's end from the start of the run
(`first`) and from STARTED (`wall`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POPULATION = 1000
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}


@cache
def client_app(kind: str) -> Any:
    """What an actor runs; it is imported there, so that what it keeps is kept."""
    import torch
    from flwr.app import (  # type: ignore[import-not-found,unused-ignore]
        ArrayRecord,
        Message,
        MetricRecord,
        RecordDict,
    )
    from flwr.clientapp import ClientApp  # type: ignore[import-not-found,unused-ignore]

    from bench.speed import models

    app, module = ClientApp(), models.network(kind)
    torch.set_num_threads(1)

    @cache
    def data(number: int) -> tuple[Any, Any]:
        inputs, targets = models.examples(f"client-{number + 1:04d}")
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    @app.train()  # type: ignore[untyped-decorator,unused-ignore]
    def train(message: Any, context: Any) -> Any:
        module.load_state_dict(message.content["arrays"].to_torch_state_dict())
        inputs, targets = data(context.node_config["partition-id"])
        optimizer = torch.optim.SGD(module.parameters(), lr=models.RATE)
        for batch in torch.split(torch.randperm(len(targets)), models.BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(inputs[batch]), targets[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        records = {
            "arrays": ArrayRecord(module.state_dict()),
            "metrics": MetricRecord({"num-examples": len(targets)}),
        }
        return Message(content=RecordDict(records), reply_to=message)

    return app


class Client:
    """A client app that is made where it is called."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, message: Any, context: Any) -> Any:
        """What the app answers."""
        from bench.peer_simulation_flower import client_app as here

        return here(self.kind)(message=message, context=context)


def main(kind: str, rounds: int, clients: int, started: float) -> None:
    """Measures one run."""
    from flwr.app import ArrayRecord
    from flwr.serverapp import ServerApp  # type: ignore[import-not-found,unused-ignore]
    from flwr.serverapp.strategy import FedAvg  # type: ignore[import-not-found,unused-ignore]
    from flwr.simulation import run_simulation  # type: ignore[import-not-found,unused-ignore]

    from bench.speed import models

    called, ends, counts = time.time(), list[float](), list[int]()
    begun = 0.0

    class Strategy(FedAvg):  # type: ignore[misc,unused-ignore]
        """Notes how many answered, and when a round is over."""

        def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> Any:
            """As FedAvg does it."""
            answers = list(replies)
            counts.append(sum(not answer.has_error() for answer in answers))
            found = super().aggregate_train(server_round, answers)
            ends.append(time.time())
            return found

    server = ServerApp()

    @server.main()  # type: ignore[untyped-decorator,unused-ignore]
    def serve(grid: Any, _: Any) -> None:
        nonlocal begun
        strategy = Strategy(
            fraction_train=clients / POPULATION,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=POPULATION,
        )
        begun = time.time()
        arrays = ArrayRecord(models.network(kind).state_dict())
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=rounds)

    logging.disable(logging.INFO)
    run_simulation(
        server_app=server,
        client_app=Client(kind),
        num_supernodes=POPULATION,
        backend_config={
            "init_args": {"num_cpus": os.cpu_count(), "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    if counts != [clients] * rounds:
        sys.exit(f"{counts} clients answered, {clients} were wanted in each round")
    seconds = [end - start for start, end in zip([begun, *ends], ends, strict=False)]
    found = {"seconds": seconds, "first": ends[0] - called, "wall": ends[0] - started}
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ.update(QUIET)
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
