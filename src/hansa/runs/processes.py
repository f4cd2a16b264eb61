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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hansa.runs.children import Children, Stopped, each
from hansa.runs.folder import Status, read_status, write_status

LOG = "log.txt"
"""What a run's process said, in the run's folder."""

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
    _children: Children = field(default_factory=Children)

    def run(self, runs: Sequence[Path], ended: Callable[[Path, Status], None]) -> None:
        """Runs all of them, whatever becomes of each.

        Args:
          runs: prepared folders.
          ended: called after each with its status.

        Raises:
          KeyboardInterrupt: somebody interrupted it; no process is left.
        """

        def told(at: Path, _: None) -> tuple[Path, ...]:
            ended(at, read_status(at))
            return ()

        each(self.parallel, runs, self._one, told, self._children.stop)

    def _one(self, at: Path) -> None:
        words = [sys.executable, "-m", "hansa", "simulate", "--resume", str(at), "--json"]
        with (at / LOG).open("ab") as log:
            try:
                process = self._children.start(
                    [*words, *self.options],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
            except Stopped:
                return
            code = self._children.wait(process)
        status = read_status(at)
        if status.state not in _ENDED and not self._children.stopped:
            write_status(at, Status("failed", status.round, status.rounds, _why(at, code)))


def _why(at: Path, code: int) -> str:
    """Why a process ended that could not write it down itself."""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    lines = (at / LOG).read_text("utf-8", "replace").strip().splitlines()
    said = next((line for line in reversed(lines) if line.startswith("Error: ")), "")
    return said.removeprefix("Error: ") or f"its process ended with code {code}; see {LOG}"
