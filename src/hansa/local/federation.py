"""A coordinator and its sites as processes of this machine, each in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
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

SERVER_PORTS = (10_000, 32_000)
"""Where ports for the coordinator are looked for."""


@dataclass(slots=True)
class LocalFederation:
    """Starts, kills, restarts and stops the processes of a federation; use as a context manager.

    Only processes that it started are ever signalled.

    Attributes:
      folder: where everything lies; `coordinator/`, one folder per site, one log per process.
      name: name of the federation.
      store: URL of a PostgreSQL for the coordinator; empty for SQLite.
      program: what runs with the arguments of `hansa`: a command of its own for tests.
    """

    folder: Path
    name: str = "demo"
    store: str = ""
    program: Sequence[str] = (sys.executable, "-m", "hansa")
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ports: tuple[int, int, int] = (0, 0, 0)
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        """Makes the coordinator's folder with ports that nobody else takes."""
        from hansa.coordinator import config

        self.folder.mkdir(parents=True, exist_ok=True)
        self._ports = reserve_ports(self._held)
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
        self._held.close()

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
        while not _listening(self._ports[2]):  # the people's door, which opens last
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

    def start_hostile_site(self, site: str, attack: str) -> None:
        """Starts the agent of a site that attacks; see `hansa.attacks.site`."""
        folder = str(self.folder / site)
        program = (sys.executable, "-m", "hansa.attacks.site")
        self._start(site, [folder, "--attack", attack], program)

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

    def kill(self, *names: str) -> None:
        """Ends processes with SIGKILL, all at one moment, as a power cut would."""
        processes = [self._processes.pop(name) for name in names]
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.wait(10)

    def pause(self, name: str) -> None:
        """Stops a process where it is, until `proceed`; its connections stay open."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def proceed(self, name: str) -> None:
        """Lets a paused process go on."""
        self._processes[name].send_signal(signal.SIGCONT)

    def wait(self, name: str, seconds: float) -> None:
        """Waits until a process has ended by itself.

        Raises:
          Unavailable: it still runs.
        """
        try:
            self._processes[name].wait(seconds)
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"'{name}' still runs after {seconds:g} s", fix=f"see {self.log(name)}"
            ) from None

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

    def _start(
        self, name: str, arguments: list[str], program: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        if self.running(name):
            raise HansaError(f"'{name}' runs already", fix="stop it first")
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [*(program or self.program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self._processes[name] = process
        return process


def reserve_ports(held: contextlib.ExitStack) -> tuple[int, int, int]:
    """Three ports that nobody uses, and that nobody takes by chance until `held` is closed.

    They are below those that the system gives to outgoing connections: one of these could take
    the port of a server that is being restarted. A socket that is bound and does not listen keeps
    each for servers, which may share it (SO_REUSEADDR), from others who look for a free port.

    Raises:
      Unavailable: there are none.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(*SERVER_PORTS), 1000):
        keeper = held.enter_context(socket.socket())
        with contextlib.suppress(OSError):
            keeper.bind(("127.0.0.1", port))
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.append(port)
        if len(found) == 3:
            return found[0], found[1], found[2]
    raise Unavailable("no ports are free", fix="end programs that listen on this machine")


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
