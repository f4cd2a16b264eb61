"""What runs in a process that runs cells of a matrix: it loads the task, then takes orders.

    job, setup ──► worker     once
    order      ──► worker     one for each cell
               ◄── answer     or why it failed

It ends when the other side hangs up, and at once when the other side is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

from hansa.core.vector import Vector
from hansa.redteam.division import read_own
from hansa.redteam.orders import Answer, Failed, Order, Setup, Wire
from hansa.redteam.running import Work
from hansa.work.bundle import load_task
from hansa.work.threads import one_thread


def main(end: int) -> None:
    """Runs cells until the other side hangs up.

    Args:
      end: this side of the socket.
    """
    threading.Thread(target=_watch, daemon=True).start()
    wire: Wire = Connection(end)
    try:
        job = wire.recv()
        task = load_task(job)
        setup: Setup = wire.recv()
        work = Work(job, task, read_own(task, setup.clients), setup.plans)
        with one_thread():
            while True:
                wire.send(_answer(work, wire.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except BaseException as error:  # noqa: BLE001  whatever a task raises is told
        with suppress(OSError):
            wire.send(Failed.of(error))


def _answer(work: Work, order: Order) -> Answer:
    def clean() -> Vector:
        if order.clean is None:
            raise TypeError(f"{order.cell} came without the model that it is compared with")
        return order.clean

    outcome, params = work.run(order.cell, clean)
    return Answer(outcome, params if order.wanted else None)


def _watch() -> None:
    """Ends this process when the one that started it is gone, whatever it is doing."""
    with suppress(OSError):
        os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
