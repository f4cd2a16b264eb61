"""The floor: the same transfers with nothing around them, to compare a round of Hansa with.

    python bench/bare.py [--sites 10] [--parameters 1663370] [--rounds 8] [--quick] [--json]

One process takes updates over mTLS from client processes: one stream each, the parameters pushed
in chunks of 1 MiB, an update back in chunks of 1 MiB, each added as it comes. No hash, no schema,
no exact sum, no durability, no receipt, no bound on memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from hansa.identity.authority import Authority
from hansa.identity.credentials import Credentials
from hansa.identity.keys import install_credentials, load_credentials, make_site_keys

CHUNK = 1 << 20
OPTIONS = (("grpc.max_receive_message_length", 2 * CHUNK),)


async def serve(sites: int, parameters: int, rounds: int, folder: Path) -> list[float]:
    """Runs the rounds; returns the seconds of each."""
    credentials = _make_credentials(folder)
    params: Any = np.ones(parameters, np.float32)
    total = np.zeros(parameters, np.float32)
    state: dict[str, Any] = {"round": 0, "left": 0, "go": asyncio.Event(), "done": asyncio.Event()}

    async def attend(requests: AsyncIterator[bytes], context: Any) -> None:
        await anext(requests)
        state["here"] = state.get("here", 0) + 1
        for number in range(rounds):
            while state["round"] <= number:
                await state["go"].wait()
            view = params.data.cast("B")
            for start in range(0, len(view), CHUNK):
                await context.write(bytes(view[start : start + CHUNK]))
            offset = 0
            while offset < parameters:
                part = np.frombuffer(await anext(requests), np.float32)
                total[offset : offset + len(part)] += part
                offset += len(part)
            state["left"] -= 1
            if state["left"] == 0:
                state["done"].set()

    server = grpc.aio.server(options=OPTIONS)
    handler: Any = grpc.stream_stream_rpc_method_handler(attend)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"A": handler}),))
    tls = grpc.ssl_server_credentials(
        [(credentials.key_pem, credentials.chain_pem)], credentials.root_pem, True
    )
    port = server.add_secure_port("127.0.0.1:0", tls)
    await server.start()
    command = [sys.executable, __file__, "--client", str(port), str(folder), str(parameters)]
    clients = [subprocess.Popen(command) for _ in range(sites)]  # noqa: ASYNC220  before any work
    seconds = []
    try:
        while state.get("here", 0) < sites:  # noqa: ASYNC110  nothing is measured yet
            await asyncio.sleep(0.05)
        for number in range(rounds):
            started = time.perf_counter()
            state["left"], state["round"] = sites, number + 1
            state["done"].clear()
            state["go"].set()
            state["go"] = asyncio.Event()
            await state["done"].wait()
            params = params + total / sites
            seconds.append(time.perf_counter() - started)
    finally:
        for client in clients:
            client.terminate()
        for client in clients:
            client.wait(10)
        await server.stop(0)
    return seconds


async def attend(port: int, folder: Path, parameters: int) -> None:
    """A client: gets the parameters, adds one, sends the difference."""
    own = load_credentials(folder / "site")
    tls = grpc.ssl_channel_credentials(own.root_pem, own.key_pem, own.chain_pem)
    async with grpc.aio.secure_channel(f"localhost:{port}", tls, options=OPTIONS) as channel:
        stream: Any = channel.stream_stream("/bare/A")()
        await stream.write(b"here")
        got = np.empty(4 * parameters, np.uint8)
        while True:
            offset = 0
            while offset < len(got):
                part = await stream.read()
                if part is grpc.aio.EOF:
                    return
                got[offset : offset + len(part)] = np.frombuffer(part, np.uint8)
                offset += len(part)
            view = (got.view(np.float32) * 0 + 1).data.cast("B")
            for start in range(0, len(view), CHUNK):
                await stream.write(bytes(view[start : start + CHUNK]))


def _make_credentials(folder: Path) -> Credentials:
    now = datetime.now(UTC)
    authority = Authority.create(folder / "ca", "bare", now)
    request = make_site_keys(folder / "site", "one", "bare")
    issued = authority.issue_site(request.csr_pem, "one", "one", now)
    install_credentials(folder / "site", issued.chain_pem, authority.root_pem, issued.document)
    return authority.issue_coordinator(("localhost",), now)


def main() -> None:
    """Measures, or is one of the clients."""
    if sys.argv[1:2] == ["--client"]:
        asyncio.run(attend(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=1_663_370)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="four rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args()
    rounds = 4 if args.quick else args.rounds
    with tempfile.TemporaryDirectory() as folder:
        seconds = asyncio.run(serve(args.sites, args.parameters, rounds, Path(folder)))
    median = statistics.median(seconds[1:])
    print(f"{args.sites} sites: {median:.3f} s per round", file=sys.stderr)
    if args.json:
        print(json.dumps({"seconds_per_round": median, "sites": args.sites, "rounds": rounds}))


if __name__ == "__main__":
    main()
