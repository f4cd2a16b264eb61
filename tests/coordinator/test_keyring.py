"""The certificate that the doors show: the newest one, and no reload while nothing changed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from hansa.coordinator import config
from hansa.coordinator.keyring import Keyring
from hansa.identity.authority import Authority
from hansa.local.federation import reserve_ports
from tests.support import handshakes

SECONDS = 15.0
AT_ONCE = 16


def folder_of(tmp_path: Path, now: datetime) -> tuple[Path, Authority]:
    folder = tmp_path / "coordinator"
    settings = config.Settings(federation="hanse", host="127.0.0.1")
    return folder, config.init(folder, settings, now)


@pytest.mark.parametrize("mutual", [True, False])
def test_the_library_is_given_a_certificate_only_when_it_has_changed(
    mutual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = config.utc_now()
    folder, authority = folder_of(tmp_path, now)
    keyring = Keyring(folder, config.load(folder), authority, lambda: now)
    asked: list[Callable[[], Any]] = []
    make = grpc.dynamic_ssl_server_credentials

    def watched(first: Any, ask: Callable[[], Any], **words: Any) -> grpc.ServerCredentials:
        asked.append(ask)
        return make(first, ask, **words)

    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", watched)
    keyring.server_credentials(mutual=mutual)
    (ask,) = asked
    before = keyring.current().serial
    assert [ask() for _ in range(3)] == [None] * 3
    while keyring.current().serial == before:
        now += timedelta(days=1)
    assert isinstance(ask(), grpc.ServerCertificateConfiguration)
    assert [ask() for _ in range(3)] == [None] * 3


@pytest.mark.soak
def test_many_handshakes_at_once_do_not_end_the_process(tmp_path: Path) -> None:
    """The library frees what a handshake uses when another one brings a new certificate."""
    folder, _ = folder_of(tmp_path, config.utc_now())
    held = contextlib.ExitStack()
    port = reserve_ports(held)[0]
    command = [sys.executable, handshakes.__file__, str(folder), str(port)]
    with held, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        try:
            made = asyncio.run(shake(port, process))
            assert process.poll() is None, f"it ended after {made} handshakes"
        finally:
            process.kill()
    assert made > 1000


async def shake(port: int, process: subprocess.Popen[str]) -> int:
    """Handshakes of strangers for a while; how many there were."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    ends, made = time.monotonic() + SECONDS, 0

    async def one() -> None:
        nonlocal made
        while time.monotonic() < ends and process.poll() is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                made += 1
                writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    await asyncio.sleep(0.2)  # for the last connections to be closed
    return made
