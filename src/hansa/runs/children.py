"""Processes of this one, some at a time; whatever goes wrong here, none of them is left.

| what happens                            | result                                       |
|-----------------------------------------|----------------------------------------------|
| Ctrl-C, or an error of whoever waits    | all are told to end, and no other one begins |
| one does not listen for 20 seconds      | it is killed                                 |
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hansa.errors import HansaError

PATIENCE_SECONDS = 20.0
"""Time that a process which is to end has to write down how far it is."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Stopped(HansaError):
    """Nothing begins any more."""

    def __init__(self) -> None:
        super().__init__("all was stopped", fix="run it again")


@dataclass(slots=True)
class Children:
    """Processes that were started and have not ended.

    Attributes:
      ending: the signal that tells one to end.
    """

    ending: signal.Signals = signal.SIGINT
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    @property
    def stopped(self) -> bool:
        """Whether no other one may begin."""
        return self._stopped

    def start(self, words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Starts one, in a group of its own: Ctrl-C reaches it through this process only.

        Args:
          words: its command line.
          options: of `subprocess.Popen`.

        Raises:
          Stopped: nothing may begin any more.
        """
        with self._lock:
            if self._stopped:
                raise Stopped
            process = subprocess.Popen(words, process_group=0, **options)
            self._running.add(process)
        return process

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Waits until one has ended; gives its code."""
        code = process.wait()
        with self._lock:
            self._running.discard(process)
        return code

    def stop(self) -> None:
        """Tells what runs to end, and kills what does not listen."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.send_signal(self.ending)
        for process in running:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def each(
    parallel: int,
    first: Iterable[_Item],
    work: Callable[[_Item], _Result],
    ended: Callable[[_Item, _Result], Sequence[_Item]],
    stop: Callable[[], None],
) -> None:
    """Does several things at a time, each in a thread that waits for a process.

    Args:
      parallel: most at a time.
      first: what can be done at once; it is begun in this order.
      work: does one of them, in a thread.
      ended: called in this thread after each, with what came of it; gives what can be done now
        that could not before, and is begun next.
      stop: called if anything raises, here or there; makes each `work` end.
    """
    left, going = deque(first), dict[Future[_Result], _Item]()
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while left or going:
                while left and len(going) < parallel:
                    item = left.popleft()
                    going[pool.submit(work, item)] = item
                done, _ = wait(going, return_when=FIRST_COMPLETED)
                for future in done:
                    item = going.pop(future)
                    left.extendleft(reversed(ended(item, future.result())))
        except BaseException:
            stop()
            raise
