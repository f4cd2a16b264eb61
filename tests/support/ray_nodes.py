"""A Ray cluster of two small nodes on loopback, whose nodes can be lost and can join."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bench.simulation import descendants

HOST = "127.0.0.1"
SMALL = {
    "num_cpus": 1,
    "object_store_memory": 80 << 20,  # the least that Ray takes
    "include_dashboard": False,
    "node_ip_address": HOST,
}

SOON = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""When a node that is silent is given up; Ray's own figures come to half a minute."""


class Nodes:
    """The head, which the simulation is connected to, and one more node.

    Attributes:
      address: of the cluster.
      folder: of Ray's own files, logs among them.
    """

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        self.folder = Path(folder)
        head = {**SMALL, "_system_config": SOON}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self._cluster.address)
        self.other: Any = None
        self.join()

    def connect(self) -> None:
        """Connects this process."""
        import ray

        ray.init(address=self.address, logging_level="ERROR", log_to_driver=False)

    def join(self) -> None:
        """One more node."""
        self.other = self._cluster.add_node(**SMALL)

    def lose(self) -> None:
        """The other node is gone at once with all its processes, as when a machine fails."""
        raylet = self.other.all_processes["raylet"][0].process.pid
        pids = descendants(raylet)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cluster.remove_node(self.other, allow_graceful=False)

    def stop(self) -> None:
        """Ends all processes."""
        self._cluster.shutdown()


@contextmanager
def nodes() -> Iterator[Nodes]:
    """Two nodes, and this process connected to them.

    Ray takes an address on loopback for the machine's own one, where nobody listens here.
    """
    folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        import ray
        from ray._private import services

        for module in (services, ray.util):
            patch.setattr(module, "get_node_ip_address", lambda *_: HOST)
        made = Nodes(folder)
        try:
            made.connect()
            yield made
        finally:
            ray.shutdown()
            made.stop()
            shutil.rmtree(folder, ignore_errors=True)
