"""Ports of a local federation: kept for its servers, whoever else looks for some."""

from __future__ import annotations

import contextlib
import socket

import pytest

from hansa.local.federation import reserve_ports


def _bind(port: int, *, server: bool) -> socket.socket:
    found = socket.socket()
    if server:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
    except OSError:
        found.close()
        raise
    return found


def test_a_reserved_port_is_for_its_server_again_and_again_and_for_nobody_else() -> None:
    held = contextlib.ExitStack()
    with held:
        ports = reserve_ports(held)
        assert len(set(ports)) == 3
        for port in ports:
            for _ in range(2):  # a server that dies and comes back
                with pytest.raises(OSError, match="in use"):
                    _bind(port, server=False)
                with _bind(port, server=True) as server:
                    server.listen()
                    with socket.create_connection(("127.0.0.1", port), 5):
                        pass
    for port in ports:
        _bind(port, server=True).close()
