"""Who attends right now, and a way to push messages to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hansa.coordinator.members import Caller
from hansa.errors import HansaError, IdentityError
from hansa.wire.v1 import sites_pb2 as pb

OUTBOX = 256
"""Messages that may wait for one site; a site that reads none of them is cut off."""


@dataclass(slots=True, eq=False)
class Attendance:
    """One site's stream: messages wait in `outbox` until the stream takes them."""

    caller: Caller
    outbox: asyncio.Queue[pb.ToSite] = field(default_factory=lambda: asyncio.Queue(OUTBOX))
    ended: asyncio.Future[HansaError] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def end(self, error: HansaError) -> None:
        """Ends the stream with an error that the site is shown."""
        if not self.ended.done():
            self.ended.set_result(error)


class Roster:
    """The attending sites; one stream per site, a newer one displaces an older one."""

    def __init__(self) -> None:
        self._present: dict[str, Attendance] = {}
        self._watchers: list[Callable[[str], None]] = []

    @property
    def present(self) -> frozenset[str]:
        """Names of the attending sites."""
        return frozenset(self._present)

    @contextmanager
    def attending(self, caller: Caller) -> Iterator[Attendance]:
        """Enters a site for the time of its stream; `entered` tells everybody who watches."""
        attendance, peer = Attendance(caller), caller.peer
        older = self._present.pop(peer.name, None)
        if older is not None:
            older.end(
                IdentityError(
                    f"site '{peer.name}' attends by a newer connection",
                    fix="run one agent per site",
                )
            )
        self._present[peer.name] = attendance
        try:
            yield attendance
        finally:
            if self._present.get(peer.name) is attendance:
                del self._present[peer.name]

    def entered(self, site: str) -> None:
        """Tells everybody who watches that a site attends and has heard what it needs first."""
        for watcher in tuple(self._watchers):
            watcher(site)

    @contextmanager
    def watching(self, on_enter: Callable[[str], None]) -> Iterator[None]:
        """Calls `on_enter` with each site that begins to attend."""
        self._watchers.append(on_enter)
        try:
            yield
        finally:
            self._watchers.remove(on_enter)

    def push(self, site: str, message: pb.ToSite) -> bool:
        """Puts a message into a site's stream; False if the site does not attend."""
        attendance = self._present.get(site)
        if attendance is None:
            return False
        try:
            attendance.outbox.put_nowait(message)
        except asyncio.QueueFull:
            attendance.end(
                HansaError(
                    f"site '{site}' left {OUTBOX} messages unread",
                    fix="restart the site's agent; it stopped reading",
                )
            )
            return False
        return True

    def expel(self, site: str, error: HansaError) -> None:
        """Ends a site's stream at once."""
        attendance = self._present.get(site)
        if attendance is not None:
            attendance.end(error)
