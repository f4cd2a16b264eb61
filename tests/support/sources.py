"""Clients that go wrong in some way, by the client's name; each can be sent to another process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hansa.core.parts import Model, Split
from hansa.engines.workers_messages import Data
from tests.support.toy import data, nobody


@dataclass(frozen=True)
class Both:
    """What a worker loads: this model with this data."""

    model: Model
    source: Data

    def __call__(self) -> tuple[Model, Data]:
        return self.model, self.source


@dataclass(frozen=True)
class Raising:
    """One client raises, and its words quote its data."""

    bad: str

    def __call__(self, client: str) -> Split:
        if client == self.bad:
            raise RuntimeError("a private value 41.5")
        return data(client)


@dataclass(frozen=True)
class Infinite:
    """One client's update is not finite."""

    bad: str

    def __call__(self, client: str) -> Split:
        split = data(client)
        if client == self.bad:
            split.train.inputs[:] = np.inf
        return split


@dataclass(frozen=True)
class Empty:
    """One client has no examples."""

    bad: str

    def __call__(self, client: str) -> Split:
        return nobody(client) if client == self.bad else data(client)


@dataclass(frozen=True)
class Killing:
    """One client kills the process that trains it: the first `times` times, or always."""

    bad: str
    folder: Path
    times: int = 10**9

    def __call__(self, client: str) -> Split:
        if client == self.bad and not (self.folder / str(self.times)).exists():
            before = len(list(self.folder.iterdir()))
            (self.folder / str(before + 1)).touch()
            time.sleep(0.05)  # others are at work, and this one has some clients behind it
            os.kill(os.getpid(), signal.SIGKILL)
        return data(client)


@dataclass(frozen=True)
class Slow:
    """Every client takes its time, and leaves a file of its process."""

    folder: Path
    seconds: float

    def __call__(self, client: str) -> Split:
        (self.folder / f"{client}-{os.getpid()}").touch()
        time.sleep(self.seconds)
        return data(client)


@dataclass(frozen=True)
class Threaded:
    """A task that starts a thread while it is loaded, and says in which process."""

    folder: Path

    def __call__(self) -> tuple[Any, Data]:
        import threading

        from tests.support.toy import TOY

        (self.folder / str(os.getpid())).touch()
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return TOY, data


@dataclass(frozen=True)
class Telling:
    """One client prints its data in every way, and raises with it."""

    bad: str
    value: str

    def __call__(self, client: str) -> Split:
        if client == self.bad:
            print(self.value, flush=True)
            print(self.value, file=sys.stderr, flush=True)
            logging.getLogger("task").error(self.value)
            os.write(1, self.value.encode())
            os.write(2, self.value.encode())
            raise RuntimeError(self.value)
        return data(client)


@dataclass(frozen=True)
class Ending:
    """A task that ends the process that loads it."""

    def __call__(self) -> tuple[Any, Data]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError
