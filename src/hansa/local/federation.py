"""A coordinator and its sites as processes of this machine, each in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hansa.errors import HansaError, Unavailable
from hansa.remote import Remote

START_SECONDS = 60.0
"""Longest time for a process to be ready."""


@dataclass(slots=True)
class LocalFederation:
    """Starts, kills, restarts and stops the processes of a federation; use as a context manager.

    Only processes that it started are ever signalled.

    Attributes:
      folder: where everything lies; `coordinator/`, one folder per site, one log per process.
      name: name of the federation.
      store: URL of a PostgreSQL for the coordinator; empty for SQLite.
    """

    folder: Path
    name: str = "demo"
    store: str = ""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ports: tuple[int, int, int] = (0, 0, 0)

    def __enter__(self) -> Self:
        """Makes the coordinator's folder with ports that are free now."""
        from hansa.coordinator import config

        self.folder.mkdir(parents=True, exist_ok=True)
        self._ports = free_ports()
        sites, enrol, people = self._ports
        settings = config.Settings(
            federation=self.name,
            host="127.0.0.1",
            sites_port=sites,
            enrol_port=enrol,
            people_port=people,
            store=self.store,
        )
        config.init(self.coordinator, settings, datetime.now(UTC))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops every process that still runs."""
        self.stop()

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    @property
    def remote(self) -> Remote:
        """The people's door."""
        return Remote.load(self.coordinator)

    # -------------------------------------------------------------- processes

    def start_coordinator(self) -> None:
        """Starts the coordinator and waits until all its doors are open.

        Raises:
          Unavailable: it ended or was not ready in time; its log says why.
        """
        process = self._start("coordinator", ["coordinator", "serve", str(self.coordinator)])
        ends = time.monotonic() + START_SECONDS
        while not all(_listening(port) for port in self._ports):
            if process.poll() is not None or time.monotonic() > ends:
                raise Unavailable(
                    "the coordinator did not start", fix=f"see {self.log('coordinator')}"
                )
            time.sleep(0.02)

    def join(self, site: str, data: Mapping[str, Any], tasks: Sequence[str]) -> None:
        """Invites a site and lets it join; the coordinator must be running.

        Args:
          site: its name.
          data: `[data]` of its `site.toml`.
          tasks: digests of the tasks that it allows.
        """
        from hansa.coordinator.inviting import invite
        from hansa.site import config
        from hansa.site.join import join

        now = datetime.now(UTC)
        text = invite(self.coordinator, site, site, now)
        folder = self.folder / site
        asyncio.run(join(text, folder, now))
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in data.items()]
        (folder / config.NAME).write_text(
            f"[data]\n{''.join(lines)}\n[policy]\nfederations = [{json.dumps(self.name)}]\n"
            f"tasks = {json.dumps(list(tasks))}\n",
            "utf-8",
        )

    def start_site(self, site: str) -> None:
        """Starts a site's agent; it attends a moment later."""
        self._start(site, ["site", "run", str(self.folder / site)])

    def wait_for_sites(self, count: int) -> None:
        """Waits until so many sites attend.

        Raises:
          Unavailable: they did not come in time.
        """
        ends = time.monotonic() + START_SECONDS + count
        while sum(site["attending"] for site in self.remote.sites()) < count:
            if time.monotonic() > ends:
                raise Unavailable(
                    f"fewer than {count} sites attend", fix=f"see the logs in {self.folder}"
                )
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """Ends a process with SIGKILL, as a power cut would."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def running(self, name: str) -> bool:
        """Whether a process runs."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def pid(self, name: str) -> int:
        """The process id of a running process."""
        return self._processes[name].pid

    def log(self, name: str) -> Path:
        """What a process printed."""
        return self.folder / f"{name}.log"

    def stop(self) -> None:
        """Ends every process in order, and with SIGKILL whoever does not follow."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        self._processes.clear()

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        if self.running(name):
            raise HansaError(f"'{name}' runs already", fix="stop it first")
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "hansa", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self._processes[name] = process
        return process


def free_ports() -> tuple[int, int, int]:
    """Three ports that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(3)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        first, second, third = (each.getsockname()[1] for each in sockets)
        return first, second, third
    finally:
        for each in sockets:
            each.close()


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
