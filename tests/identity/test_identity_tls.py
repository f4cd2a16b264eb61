"""Real TLS handshakes over loopback: what the library under Python's ssl thinks of certificates.

The server asks for a client certificate, as the sites' door does. Each side then sends one byte,
for in TLS 1.3 a client learns only from the server's answer whether it was let in.
"""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hansa.identity.authority import Authority
from hansa.identity.credentials import Credentials
from tests.support.ca import enrol, forge, make_authority, pem

TIMEOUT = 10.0


@pytest.fixture(scope="module")
def today() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def real(tmp_path_factory, today) -> Authority:
    """An authority of today: TLS libraries look at the clock themselves."""
    return make_authority(tmp_path_factory.mktemp("tls") / "ca", now=today - timedelta(days=10))


@pytest.fixture(scope="module")
def server(real: Authority, today: datetime) -> Credentials:
    return real.issue_coordinator(["localhost", "127.0.0.1"], today)


def context(kind: int, folder: Path, key: bytes, chain: bytes, root: bytes) -> ssl.SSLContext:
    folder.mkdir(exist_ok=True)
    (folder / "key").write_bytes(key)
    (folder / "chain").write_bytes(chain)
    made = ssl.SSLContext(kind)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_cert_chain(folder / "chain", folder / "key")
    made.load_verify_locations(cadata=root.decode())
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def meet(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> dict[str, str]:
    """One connection: what each side complained of; empty if both are content."""
    said: dict[str, str] = {}
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(TIMEOUT)

        def answer() -> None:
            try:
                plain, _ = door.accept()
                plain.settimeout(TIMEOUT)
                with plain, server.wrap_socket(plain, server_side=True) as secure:
                    secure.sendall(secure.recv(1))
            except (ssl.SSLError, OSError) as error:
                said["server"] = str(error)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            plain = socket.create_connection(door.getsockname(), timeout=TIMEOUT)
            with plain, client.wrap_socket(plain, server_hostname=host) as secure:
                secure.sendall(b"x")
                if secure.recv(1) != b"x":
                    said["client"] = "no answer"
        except (ssl.SSLError, OSError) as error:
            said["client"] = str(error)
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    return said


def as_server(folder: Path, credentials: Credentials) -> ssl.SSLContext:
    return context(
        ssl.PROTOCOL_TLS_SERVER,
        folder / "server",
        credentials.key_pem,
        credentials.chain_pem,
        credentials.root_pem,
    )


def as_client(folder: Path, key: bytes, chain: bytes, root: bytes) -> ssl.SSLContext:
    return context(ssl.PROTOCOL_TLS_CLIENT, folder / "client", key, chain, root)


def test_ok_a_site_and_the_coordinator(real, server, today, tmp_path):
    site = enrol(real, tmp_path / "identity", now=today)
    client = as_client(tmp_path, site.key_pem, site.chain_pem, site.root_pem)
    assert meet(as_server(tmp_path, server), client) == {}
    assert meet(as_server(tmp_path, server), client, "127.0.0.1") == {}


def test_ok_after_the_authority_was_renewed(tmp_path, today):
    """Members of the old intermediate and of the new one meet: only the root is pinned."""
    old = make_authority(tmp_path / "ca", now=today - timedelta(days=10))
    server = old.issue_coordinator(["localhost"], today)
    site = enrol(old.renew(today), tmp_path / "identity", now=today)
    client = as_client(tmp_path, site.key_pem, site.chain_pem, site.root_pem)
    assert meet(as_server(tmp_path, server), client) == {}


@pytest.mark.parametrize(
    ("case", "refusal"),
    [
        ("fail/expired", "certificate has expired"),
        ("fail/other federation", "certificate in certificate chain|unable to get"),
        ("fail/same names, other root", "certificate in certificate chain|unable to get|signature"),
        ("fail/self-signed", "self-signed certificate|self signed certificate"),
        ("fail/server certificate as client", "unsupported certificate purpose|unsuitable"),
        ("fail/none", "peer did not return a certificate"),
    ],
)
def test_the_server_refuses(case, refusal, real, server, today, tmp_path):
    site = enrol(real, tmp_path / "identity", now=today)
    key, chain = site.key_pem, site.chain_pem
    if case == "fail/expired":
        old = enrol(real, tmp_path / "old", now=today - timedelta(days=2))
        key, chain = old.key_pem, old.chain_pem
    elif case in ("fail/other federation", "fail/same names, other root"):
        name = "rhein" if "federation" in case else "hanse"
        other = make_authority(tmp_path / "other", name, today)
        foreign = enrol(other, tmp_path / "foreign", now=today)
        key, chain = foreign.key_pem, foreign.chain_pem
    elif case == "fail/self-signed":
        chain, key = forge(["spiffe://hanse/site/kiel"], now=today)
    elif case == "fail/server certificate as client":
        key, chain = server.key_pem, server.chain_pem
    client = as_client(tmp_path, key, chain, real.root_pem)
    if case == "fail/none":
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(cadata=real.root_pem.decode())
    said = meet(as_server(tmp_path, server), client)
    assert any(word in said["server"] for word in refusal.split("|")), said


@pytest.mark.parametrize(
    "case", ["fail/a site as server", "fail/another host", "fail/another root", "fail/expired"]
)
def test_the_client_refuses(case, real, server, today, tmp_path):
    site = enrol(real, tmp_path / "identity", now=today)
    host, root = "localhost", site.root_pem
    if case == "fail/a site as server":
        # An authority that was tricked into a host name: still no server, by its usage.
        chain, key = forge(
            ["spiffe://hanse/site/localhost"],
            real.intermediates[0],
            real._key,
            now=today,
            common_name="localhost",
        )
        chain += pem(real.intermediates[0])
    else:
        key, chain = server.key_pem, server.chain_pem
    if case == "fail/another host":
        host = "fl.example.org"
    elif case == "fail/another root":
        root = make_authority(tmp_path / "other", now=today).root_pem
    elif case == "fail/expired":
        late = real.issue_coordinator(["localhost"], today - timedelta(days=9), timedelta(days=1))
        key, chain = late.key_pem, late.chain_pem
    door = context(ssl.PROTOCOL_TLS_SERVER, tmp_path / "server", key, chain, real.root_pem)
    client = as_client(tmp_path, site.key_pem, site.chain_pem, root)
    said = meet(door, client, host)
    assert "CERTIFICATE_VERIFY_FAILED" in said["client"], said
