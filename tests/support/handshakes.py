"""A gRPC door with a coordinator's certificate, as a process: handshakes.py FOLDER PORT."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc.aio

from hansa.coordinator import config
from hansa.coordinator.keyring import Keyring
from hansa.identity.authority import Authority


async def main(folder: Path, port: int) -> None:
    authority = Authority.open(folder / "ca", config.utc_now())
    keyring = Keyring(folder, config.load(folder), authority, config.utc_now)
    server = grpc.aio.server()
    server.add_secure_port(f"127.0.0.1:{port}", keyring.server_credentials(mutual=False))
    await server.start()
    print("listening", flush=True)
    await server.wait_for_termination(120)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
