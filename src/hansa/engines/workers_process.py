"""What runs in the processes of the workers engine: a nursery, and the workers that it forks.

The nursery loads the task once, with one thread, and forks workers from there: a worker costs
milliseconds, and shares the memory of the libraries. It holds no open computation when it forks,
so a fork is safe. A task that starts threads while it is loaded is loaded in each worker instead.

    simulation ── "fork" and a socket ──► nursery ── fork ──► worker
               ◄── process id ──────────
    simulation ── a pipe that nobody writes to: when it ends, so does everybody
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from hansa.core.parts import Model
from hansa.core.plan import Plan
from hansa.engines.kept import Kept
from hansa.engines.share import Share
from hansa.engines.trainer import Trainer
from hansa.engines.workers_messages import Data, Failed, Memory, Order, Source, Wire, take_place


def main(control: int, memory: int, places: int, lifeline: int, late: int) -> None:
    """The nursery: loads the task and forks until the simulation hangs up.

    Args:
      control: the socket to the simulation.
      memory: the file with the parameters.
      places: the pipe that places are taken from.
      lifeline: the pipe that ends with the simulation.
      late: 1 to load the task in each worker, because it starts threads.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the simulation hears Ctrl-C and ends all
    wire = Connection(control)
    children: set[int] = set()
    try:
        source: Source = wire.recv()
        loaded = None if late else source()
        threads = _threads()
        wire.send(threads)
        while threads == 1 or late:
            asked = wire.recv()
            if isinstance(asked, int):
                wire.send(_ended(asked))
                children.discard(asked)
                continue
            _, slot, kept = asked
            _, fds, _, _ = socket.recv_fds(_socket(wire), 1, 1)
            pid = os.fork()
            if pid == 0:
                wire.close()
                _watch(lifeline)
                _worker(fds[0], slot, kept, (Memory(memory), places), loaded or source)
            os.close(fds[0])
            children.add(pid)
            wire.send(pid)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except BaseException as error:  # noqa: BLE001  whatever a task raises is told
        with suppress(OSError):
            wire.send(Failed.of(error))
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _worker(
    fd: int, slot: int, kept: int, shared: tuple[Memory, int], found: tuple[Model, Data] | Source
) -> NoReturn:
    """One worker: order after order until the simulation hangs up."""
    wire, code = Connection(fd), 1
    memory, places = shared
    try:
        model, data = found() if callable(found) else found
        examples = Kept(data, kept)
        plan: Plan | None = None
        trainer = Trainer(model)
        warm = False
        while True:
            order: Order = wire.recv()
            plan = order.plan or plan
            params = memory.read(order.size)
            share = Share(order, plan, params, examples, trainer)  # type: ignore[arg-type]
            while (place := take_place(places)) is not None:
                start = place * order.piece
                share.train(start, lambda position: memory.works_on(slot, position))
            memory.works_on(slot)
            wire.send(share.report())
            if not warm:  # libraries, task and traces stay: looking for garbage in them takes long
                gc.freeze()
                warm = True
    except (EOFError, BrokenPipeError, ConnectionResetError):
        code = 0
    except BaseException as error:  # noqa: BLE001  whatever it is, it is told
        with suppress(OSError):
            wire.send(Failed.of(error))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # what the nursery would do at its end is not for a worker to do


def _threads() -> int:
    """Threads of this process, also those that Python does not know."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


def _ended(pid: int) -> str:
    """How a worker ended whose socket was closed."""
    for _ in range(100):
        with suppress(ChildProcessError):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return _words(status)
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return "closed its socket"


def _words(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"ended with code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    memory = ", as the system does when memory runs out" if number == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(number).name}{memory}"


def _socket(wire: Wire) -> socket.socket:
    """The socket of a connection, for what only sockets can carry."""
    return socket.socket(fileno=os.dup(wire.fileno()))


def _watch(lifeline: int) -> None:
    """Ends this process when the simulation is gone, whatever it is doing."""

    def wait() -> None:
        with suppress(OSError):
            os.read(lifeline, 1)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
