"""A TCP proxy between a site and a coordinator that treats connections badly when it is told to."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

BLOCK = 4096


class Proxy:
    """Listens on a port of its own and passes everything on; runs in a thread of its own.

    Attributes:
      delay: seconds that each block waits before it is passed on.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Resets every connection, on both sides."""
        self._do(self._cut)

    def half_close(self) -> None:
        """Says to the coordinator that the site has said everything."""
        self._do(self._half_close)

    def hold(self) -> None:
        """Passes nothing on, until `flow`; connections stay open."""
        self._do(self._flowing.clear)

    def flow(self) -> None:
        """Passes things on again."""
        self._do(self._flowing.set)

    def _do(self, action: Any) -> None:
        self._loop.call_soon_threadsafe(action)

    def _cut(self) -> None:
        for pair in self._connections:
            for writer in pair:
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def _half_close(self) -> None:
        for _, to_coordinator in self._connections:
            if not to_coordinator.is_closing():
                to_coordinator.write_eof()

    # -------------------------------------------------------------- in the loop

    async def _serve(self, started: threading.Event) -> None:
        self._flowing.set()
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=BLOCK)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            self._cut()
            for task in self._tasks:
                task.cancel()

    async def _accepted(self, site: asyncio.StreamReader, to_site: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", self._target, limit=BLOCK)
        except OSError:
            to_site.close()
            return
        finally:
            self._tasks.discard(task)
        pair = (to_site, to_there)
        self._connections.add(pair)
        self._tasks.add(task)
        try:
            await asyncio.gather(self._pass(site, to_there), self._pass(there, to_site))
        finally:
            self._connections.discard(pair)
            self._tasks.discard(task)
            for writer in pair:
                writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Blocks from one side to the other; when one side ends, so does the other."""
        try:
            while data := await reader.read(BLOCK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flowing.wait()
                if writer.is_closing():
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            if not writer.is_closing():
                writer.close()

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Runs it in a thread."""
        started = threading.Event()
        task: list[asyncio.Task[None]] = []

        def work() -> None:
            asyncio.set_event_loop(self._loop)
            task.append(self._loop.create_task(self._serve(started)))
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(task[0])
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

        thread = threading.Thread(target=work, name="proxy", daemon=True)
        thread.start()
        assert started.wait(10)
        try:
            yield self
        finally:
            self._do(task[0].cancel)
            thread.join(10)
