r"""One sum by Flower's SecAgg+, its server workflow and its clients in one process.

    python3 -m venv flower && flower/bin/pip install --no-deps flwr==1.42.0
    flower/bin/pip install numpy 'protobuf<7' grpcio cryptography pycryptodome iterators \
        'typer<0.21' tomli tomli-w pathspec prompt-toolkit 'rich<15' pyyaml requests httpx click
    flower/bin/python bench/flower_secagg.py CLIENTS SIZE

It needs an environment of its own, and nothing of Hansa. Messages are handed over as they are, so
that no transport is measured; every client returns the parameters that it was given. Prints one
JSON object: seconds of wall time and of CPU, and the largest error of the decoded mean.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

import flwr.compat.common.recorddict_compat as compat  # type: ignore[import-not-found]
import numpy as np
from flwr import common as fl
from flwr.client.mod.secure_aggregation.secaggplus_mod import (  # type: ignore[import-not-found]
    secaggplus_mod,
)
from flwr.server.compat.legacy_context import LegacyContext  # type: ignore[import-not-found]
from flwr.server.workflow.constant import (  # type: ignore[import-not-found]
    MAIN_CONFIGS_RECORD,
    MAIN_PARAMS_RECORD,
    Key,
)
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import (  # type: ignore[import-not-found]
    SecAggPlusWorkflow,
)
from flwr.supercore.task_identity import TaskIdentity  # type: ignore[import-not-found]

THRESHOLD = 0.68
"""Share of the shares that give a secret back: 34 of 50, as Hansa takes with a third corrupt."""


class Proxy:
    """A client as the server knows it."""

    def __init__(self, number: int) -> None:
        self.node_id, self.cid = number, str(number)


class Strategy:
    """Asks everybody, and keeps what the workflow decoded."""

    def __init__(self, clients: Sequence[int]) -> None:
        self.clients: Sequence[int] = clients
        self.mean: Any = None

    def configure_fit(self, *given: Any) -> list[tuple[Proxy, Any]]:
        """Everybody, with the parameters."""
        _, parameters, _ = given
        return [(Proxy(number), fl.FitIns(parameters, {})) for number in self.clients]

    def aggregate_fit(self, *given: Any) -> tuple[Any, dict[str, Any]]:
        """Keeps the mean."""
        _, results, _ = given
        (self.mean,) = fl.parameters_to_ndarrays(results[0][1].parameters)
        return results[0][1].parameters, {}

    def num_available(self) -> int:
        """Everybody."""
        return len(self.clients)


class Grid:
    """Hands messages to the clients, one after the other."""

    def __init__(self, clients: Sequence[int]) -> None:
        self.contexts = {number: context(number) for number in clients}

    def send_and_receive(self, messages: Sequence[Any], **_: Any) -> list[Any]:
        """Their replies."""
        return [self._ask(message) for message in messages]

    def _ask(self, message: Any) -> Any:
        own = {  # the client takes words out of its configuration, which others share
            name: fl.ConfigRecord(dict(record)) if isinstance(record, fl.ConfigRecord) else record
            for name, record in message.content.items()
        }
        message.content = fl.RecordDict(own)
        return secaggplus_mod(message, self.contexts[message.metadata.dst_node_id], train)


def train(message: Any, _: Any) -> Any:
    """A client that changes nothing."""
    given = compat.recorddict_to_fitins(message.content, keep_input=True)
    result = fl.FitRes(fl.Status(fl.Code.OK, ""), given.parameters, 10, {})
    return fl.Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def context(number: int, state: Any = None) -> Any:
    """A party's own state."""
    return fl.Context(
        run_id=1, node_id=number, node_config={}, state=state or fl.RecordDict(), run_config={}
    )


def main(clients: int, size: int) -> None:
    """Measures one sum."""
    logging.disable(logging.CRITICAL)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    vector = np.random.default_rng(0).normal(size=size).astype(np.float32)
    numbers, state = range(1, clients + 1), fl.RecordDict()
    state.config_records[MAIN_CONFIGS_RECORD] = fl.ConfigRecord({Key.CURRENT_ROUND: 1})
    given = fl.ndarrays_to_parameters([vector])
    state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(given, True)
    strategy = Strategy(numbers)
    server = LegacyContext(context(0, state), strategy=strategy, client_manager=strategy)
    workflow = SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=THRESHOLD)
    wall, cpu = time.perf_counter(), time.process_time()
    workflow(Grid(numbers), server)
    found = {
        "clients": clients,
        "size": size,
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "error": float(np.abs(strategy.mean - vector).max()),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
