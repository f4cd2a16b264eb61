"""Runs prepared runs in processes of their own, some at a time.

| what happens                  | result                                                        |
|-------------------------------|---------------------------------------------------------------|
| a run fails, or is killed     | its status says so; the others go on                          |
| Ctrl-C                        | every run is interrupted, writes that down, and can be resumed |
| this process is killed        | runs that are under way end on their own; no others begin     |
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from hansa.runs.folder import Status, read_status, write_status

LOG = "log.txt"
"""What a run's process said, in the run's folder."""

PATIENCE_SECONDS = 20.0
"""Time that an interrupted run has to write down how far it is."""

_ENDED = frozenset({"finished", "stopped", "failed", "void", "interrupted"})


@dataclass(slots=True)
class Processes:
    """Runs that are under way.

    Attributes:
      parallel: most at a time.
      options: words after `hansa simulate --resume FOLDER`.
    """

    parallel: int
    options: Sequence[str] = ()
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(self, runs: Sequence[Path], ended: Callable[[Path, Status], None]) -> None:
        """Runs all of them, whatever becomes of each.

        Args:
          runs: prepared folders.
          ended: called after each with its status.

        Raises:
          KeyboardInterrupt: somebody interrupted it; no process is left.
        """
        with ThreadPoolExecutor(self.parallel) as pool:
            waiting: dict[Future[None], Path] = {pool.submit(self._one, at): at for at in runs}
            try:
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        at = waiting.pop(future)
                        future.result()
                        ended(at, read_status(at))
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, at: Path) -> None:
        words = [sys.executable, "-m", "hansa", "simulate", "--resume", str(at), "--json"]
        with (at / LOG).open("ab") as log:
            with self._lock:
                if self._stopped:
                    return
                process = subprocess.Popen(
                    [*words, *self.options],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    process_group=0,  # Ctrl-C reaches them through this process only
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        status = read_status(at)
        if status.state not in _ENDED and not self._stopped:
            write_status(at, Status("failed", status.round, status.rounds, _why(at, code)))

    def _stop(self) -> None:
        """Interrupts what runs, and ends what does not listen."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _why(at: Path, code: int) -> str:
    """Why a process ended that could not write it down itself."""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    lines = (at / LOG).read_text("utf-8", "replace").strip().splitlines()
    said = next((line for line in reversed(lines) if line.startswith("Error: ")), "")
    return said.removeprefix("Error: ") or f"its process ended with code {code}; see {LOG}"
