"""A real PostgreSQL server for tests: in a temporary folder, on a free loopback port.

The server is a daemon. So that it ends also when the tests are killed, a guard waits beside them:

    tests ──pipe──► guard      the pipe says "end", or breaks because the tests are no more:
      │               │        either way the guard stops the server and removes its folder
      └──► server ◄───┘

Usage of the guard: python postgres.py FOLDER
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg

MISSING = (
    "no PostgreSQL server programs were found: the store is tested on a real server. Install them "
    "(Debian: apt-get install postgresql) or set HANSA_SKIP_POSTGRES to the reason why not"
)

TUNING = {
    "fsync": "off",  # these tests kill clients, never the machine
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "150",
    "max_pred_locks_per_transaction": "128",
    "logging_collector": "off",
    "autovacuum": "off",
}


def programs() -> Path | None:
    """The folder of initdb and pg_ctl: of the newest server that is installed."""
    found = [Path(path).parent for name in ("initdb",) if (path := shutil.which(name))]
    if config := shutil.which("pg_config"):
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        found.append(Path(told.stdout.strip()))
    for pattern in ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/*/bin"):
        found += sorted(Path("/").glob(pattern[1:]), key=_version, reverse=True)
    return next((f for f in found if (f / "initdb").is_file() and (f / "pg_ctl").is_file()), None)


def _version(folder: Path) -> list[int]:
    return [
        int(digits) for digits in "".join(c if c.isdigit() else " " for c in str(folder)).split()
    ]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    port: int
    names: Iterator[int] = field(default_factory=count)

    def url(self, database: str = "postgres") -> str:
        """How Hansa is told where a database is."""
        return f"postgresql+psycopg://hansa@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """A new, empty database; its name."""
        name = f"test_{next(self.names)}"
        conninfo = f"host=127.0.0.1 port={self.port} user=hansa dbname=postgres"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return name


@contextmanager
def serving() -> Iterator[Server]:
    """Makes a server, runs it, and leaves nothing of it."""
    binaries = programs()
    if binaries is None:
        raise RuntimeError(MISSING)
    memory = Path("/dev/shm")  # Linux keeps it in memory: thousands of small files cost nothing
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="hansa-postgres-", dir=where))
    with _guarded(folder):
        prefix = _as_server_user()
        if prefix:
            shutil.chown(folder, prefix[2])
        _initialise(prefix, binaries, folder)
        yield Server(_start(prefix, binaries, folder))


@contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Stops the server of a folder and removes the folder at the end, also at a sudden one."""
    # In a session of its own, so that it survives the Ctrl-C that ends the tests.
    guard = subprocess.Popen(
        [sys.executable, "-P", __file__, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.communicate(b"end")


def _guard(folder: Path) -> None:
    """Waits for the tests' end, however it comes; then leaves nothing of their server."""
    sys.stdin.buffer.read(1)
    binaries = programs()
    if binaries is not None:
        _ctl(_as_server_user(), binaries, folder, "stop", "-m", "immediate")
    shutil.rmtree(folder, ignore_errors=True)


def _as_server_user() -> list[str]:
    """What a command of the server begins with: PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return []
    user = next((u for u in ("postgres", "nobody") if _exists(u)), None)
    if user is None:
        raise RuntimeError("PostgreSQL does not run as root, and there is no user 'postgres'")
    return ["runuser", "-u", user, "--"]


def _exists(user: str) -> bool:
    with contextlib.suppress(KeyError):
        pwd.getpwnam(user)
        return True
    return False


def _initialise(prefix: list[str], binaries: Path, folder: Path) -> None:
    command = [
        *prefix,
        str(binaries / "initdb"),
        *("-D", str(folder / "data"), "-U", "hansa", "--auth=trust", "--no-sync"),
        *("-E", "UTF8", "--locale=C", "--no-instructions"),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd="/")
    lines = [
        "listen_addresses = '127.0.0.1'",
        f"unix_socket_directories = '{folder}'",
        *(f"{name} = {value}" for name, value in TUNING.items()),
    ]
    with (folder / "data" / "postgresql.conf").open("a") as file:
        file.write("\n".join(lines) + "\n")


def _start(prefix: list[str], binaries: Path, folder: Path) -> int:
    """Starts the server on a port that was free a moment ago; tries a few."""
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if _ctl(prefix, binaries, folder, "start", "-o", f"-p {port}") == 0:
            return port
    log = (folder / "log").read_text()[-2000:]
    raise RuntimeError(f"PostgreSQL did not start:\n{log}")


def _ctl(prefix: list[str], binaries: Path, folder: Path, *words: str) -> int:
    # The server inherits pg_ctl's outputs: a pipe would never end.
    command = [
        *prefix,
        str(binaries / "pg_ctl"),
        *("-D", str(folder / "data"), "-l", str(folder / "log"), "-w", "-t", "30"),
        *words,
    ]
    return subprocess.run(
        command, check=False, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
