"""`hansa` with points at which it can be made to die: the program of federations under test.

Usage: mortal.py DOOM PACE ARGUMENTS. ARGUMENTS are those of `hansa`. DOOM is a folder; a process
looks there for a file with the name of its own folder, which holds `POINT COUNT`. When the process
reaches the point for the COUNT-th time from then on, it deletes the file and kills itself with
SIGKILL. Points ending in `?` raise StoreError instead, as if the answer of the database had been
lost on its way.

PACE is `plain`, or `slow`: then sites take different times for their work, and the coordinator
makes the sum durable all the time, so that a round has several durable sums.

Production code knows nothing of this: the points wrap its functions from outside.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

SLOW = 0.03
"""Seconds between the sites' updates in a slow round."""

_DOOM = Path(sys.argv[1], Path(sys.argv[-1]).name) if __name__ == "__main__" else Path()
_lock = threading.Lock()


def reached(point: str) -> None:
    """Dies, if this is the point and the time."""
    with _lock:
        try:
            doom, count = _DOOM.read_text("utf-8").split()
        except (FileNotFoundError, ValueError):
            return
        if doom != point:
            return
        if int(count) > 1:
            _DOOM.write_text(f"{doom} {int(count) - 1}", "utf-8")
            return
        _DOOM.unlink()
        if not point.endswith("?"):
            os.kill(os.getpid(), signal.SIGKILL)
    from hansa.errors import StoreError

    raise StoreError("the connection to the store was lost", fix="ask again")


def before(owner: Any, name: str, point: str) -> None:
    """Puts a point before a function."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        reached(point)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, point: str, when: Callable[..., bool] | None = None) -> None:
    """Puts a point after a function; `when` looks at its arguments."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if when is None or when(*args):
            reached(point)
        return result

    setattr(owner, name, wrapped)


def after_await(owner: Any, name: str, point: str) -> None:
    """Puts a point after a coroutine function."""
    original = getattr(owner, name)

    @wraps(original)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = await original(*args, **kwargs)
        reached(point)
        return result

    setattr(owner, name, wrapped)


def coordinator(pace: str) -> None:
    """The points of a coordinator, in the order in which a job meets them."""
    from hansa.coordinator import intake
    from hansa.coordinator.accumulator import DurableAccumulator
    from hansa.coordinator.database import Database
    from hansa.coordinator.ledger import StoreLedger
    from hansa.coordinator.store import Store
    from hansa.core.contribute import Fold
    from hansa.secagg import server

    def status(*values: str) -> Callable[..., bool]:
        return lambda _, job, status, *rest: status in values

    after(Store, "add_job", "submitted")
    after(Store, "decide", "decided")
    after(Store, "set_status", "running", status("running"))
    after(StoreLedger, "reserve", "reserved")
    after(Store, "open_round", "opened")
    after(server, "_fix", "adverts")
    after(server, "_inboxes", "shared")
    after(server, "_add", "added")
    after(server, "_votes", "voted")
    after(Fold, "add", "folded")
    after(DurableAccumulator, "write", "written")
    after(DurableAccumulator, "sync", "synced")
    after(Store, "commit_fold", "committed")
    after(StoreLedger, "commit", "spent")
    before(Store, "close_round", "put")
    after(Store, "close_round", "closed")
    after(Store, "set_status", "done", status("done"))
    after(Database, "write", "wrote")
    for owner, name in (
        (StoreLedger, "reserve"),
        (Store, "open_round"),
        (Store, "commit_fold"),
        (StoreLedger, "commit"),
        (Store, "close_round"),
    ):
        after(owner, name, f"{name}?" if owner is Store else f"ledger.{name}?")
    if pace == "slow":
        intake.PATIENCE = SLOW / 10


def site(pace: str, name: str) -> None:
    """The points of a site, in the order in which a round meets them."""
    from hansa.secagg import client
    from hansa.site import agent, inbox, rounds
    from hansa.site.logbook import Logbook
    from hansa.site.sessions import Sessions

    def kind(value: str) -> Callable[..., bool]:
        return lambda _, kind, *rest: kind == value

    after(agent, "accept", "accepted")
    after_await(inbox, "_receive", "fetched")
    after(rounds, "work", "worked")
    after(Sessions, "begin", "begun")
    after(client, "_share", "sharing")
    after(client, "_mask", "masking")
    after(client, "_check_survivors", "voting")
    after(client, "_check_votes", "answering")
    after(Logbook, "write", "left", kind("left"))
    after_await(rounds, "deliver", "acknowledged")
    after(Logbook, "write", "received", kind("received"))
    if pace == "slow":
        module: Any = rounds
        work, wait = module.work, SLOW * (1 + sum(name.encode()) % 4)

        @wraps(work)
        def slowly(*args: Any, **kwargs: Any) -> Any:
            time.sleep(wait)
            return work(*args, **kwargs)

        module.work = slowly


def main() -> None:
    """Puts the points in, then is `hansa`."""
    pace, arguments = sys.argv[2], sys.argv[3:]
    if arguments[0] == "coordinator":
        coordinator(pace)
    else:
        site(pace, _DOOM.name)
    from hansa.cli import main as hansa

    sys.argv = ["hansa", *arguments]
    sys.exit(hansa())


if __name__ == "__main__":
    main()
