"""The tests' own PostgreSQL: nothing of it is left, however the tests end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RUN = """
import psycopg, time
from tests.support.postgres import serving

with serving() as server:
    where = f"host=127.0.0.1 port={server.port} user=hansa dbname=postgres"
    with psycopg.connect(where) as connection:
        print(server.port, connection.execute("SHOW data_directory").fetchone()[0], flush=True)
    input()
"""


@pytest.mark.usefixtures("postgres")  # where there is none, this is skipped with the others
@pytest.mark.parametrize("end", ["as usual", signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_its_tests(end):
    command = [sys.executable, "-c", RUN]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        port, data = run.stdout.readline().decode().split()
        folder = Path(data).parent
        assert folder.name.startswith("hansa-postgres-")
        assert folder.exists()
        if isinstance(end, signal.Signals):
            run.send_signal(end)
        else:
            run.communicate(b"\n")
        ends = time.monotonic() + 30.0
        while folder.exists() and time.monotonic() < ends:
            time.sleep(0.02)
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))
