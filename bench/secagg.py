"""CPU seconds of masked sums, of all clients and the coordinator together; the speed of masks.

    python bench/secagg.py [--quick] [--json] [--peers [--flower PYTHON]]

All parties are in one process and take turns, so that what is measured is the protocol itself:
keys, signatures, shares, masks, votes and what cancels masks, without a network. Each sum is
compared with the plain sum of the same vectors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.core.vector import Vector
from hansa.secagg import Masked, Rule, Session, client_flow, drive, server_flow
from hansa.secagg.drive import Client
from hansa.secagg.local import LocalMembers
from hansa.secagg.masks import BLOCK_BYTES, apply

BITS: Final = 32
UPLOAD: Final = (50, 1_000_000)
"""Clients and elements for which the upload is counted."""

RECORDED: Final = {
    "what": "flwr 1.42.0, SecAgg+, as many shares as clients, seconds above a plain round",
    "recorded": True,
    "n50_d100k": 41.8,
    "n50_d1.7M": 60.7,
    "n50_d1.7M_drop20": 70.7,
    "upload_ratio": 2.0,
}
"""Measured once on two cores with Python 3.11, its own parties in one process; not run here."""


def flower(python: str) -> dict[str, Any]:
    """Flower's seconds for the settings that it is asked for, by its own Python."""
    script = Path(__file__).with_name("flower_secagg.py")
    found: dict[str, Any] = {"what": "flwr 1.42.0, SecAgg+, CPU seconds", "recorded": False}
    for name, size in (("n50_d100k", 100_000), ("n50_d1.7M", 1_663_370)):
        done = subprocess.run(
            [python, script, "50", str(size)], check=True, capture_output=True, text=True
        )
        found[name] = json.loads(done.stdout)["cpu_seconds"]
    return found


SILOS = Rule(corrupt=0.1, dropouts=0.2, active=True)
DEVICES = Rule(corrupt=0.1, dropouts=0.2, active=False)


@dataclass(frozen=True)
class Setting:
    """One sum: its name, how many clients, elements and dropouts, and what is assumed."""

    name: str
    clients: int
    size: int
    drop: float = 0.0
    rule: Rule = SILOS
    repeats: int = 1
    quick: bool = True


SETTINGS = (
    Setting("n50_d100k", 50, 100_000, repeats=3),
    Setting("n50_d1.7M", 50, 1_663_370),
    Setting("n50_d1.7M_drop20", 50, 1_663_370, drop=0.2),
    Setting("n1000_d20k_drop15", 1000, 20_000, drop=0.15, rule=DEVICES, quick=False),
)


def measure(setting: Setting) -> float:
    """CPU seconds of one sum, the best of so many runs."""
    names = [f"client-{number:04}" for number in range(setting.clients)]
    rng = np.random.default_rng(0)
    vectors = {n: rng.integers(0, 1 << BITS, setting.size, dtype=np.uint32) for n in names}
    staying = setting.clients - round(setting.drop * setting.clients)
    plain = np.zeros(setting.size, np.uint32)
    for name in names[:staying]:
        plain += vectors[name]
    members, best = LocalMembers(), float("inf")
    for name in names:
        members.member(name)  # the keys that members sign with are older than the sum
    for attempt in range(setting.repeats):
        session, started = make_session(setting, attempt), time.process_time()
        clients = {n: client_flow(session, members.member(n), vectors[n]) for n in names}
        for name in names[staying:]:
            clients[name] = vanishing(clients[name])
        found = drive(server_flow(session, names, members), clients)
        best = min(best, time.process_time() - started)
        if len(found.members) != staying or not (found.vector == plain).all():
            sys.exit(f"{setting.name}: the masked sum is not the plain one")
    return best


def make_session(setting: Setting, attempt: int) -> Session:
    """What the sum is about."""
    return Session(
        federation="bench",
        job="bench",
        purpose="train",
        round=0,
        attempt=attempt,
        plan="00" * 32,
        model="00" * 32,
        size=setting.size,
        bits=BITS,
        cohort=2,
        rule=setting.rule,
        nonce="00" * 32,
    )


def vanishing(client: Client) -> Client:
    """The client until it has shared its secrets; it never sends a vector."""
    roster = yield next(client)
    yield client.send(roster)


def upload_ratio(clients: int, size: int) -> float:
    """Bytes that one client sends in all steps, relative to those of its vector alone.

    What is sent beside the vector does not depend on its size, so one element is enough to count.
    """
    setting, members = Setting("upload", clients, 1), LocalMembers()
    session, sent = make_session(setting, 0), dict[str, int]()

    def counted(name: str) -> Client:
        flow = client_flow(session, members.member(name), np.zeros(1, np.uint32))
        reply = next(flow)
        while True:
            sent[name] = sent.get(name, 0) + (0 if isinstance(reply, Masked) else weight(reply))
            message = yield reply
            try:
                reply = flow.send(message)
            except StopIteration:
                return

    names = [f"client-{number:04}" for number in range(clients)]
    drive(server_flow(session, names, members), {name: counted(name) for name in names})
    vector = size * BITS // 8
    return (vector + max(sent.values())) / vector


def weight(value: Any) -> int:
    """Bytes of a message: of all that it holds, and four for each number."""
    match value:
        case bytes() | str():
            return len(value)
        case int():
            return 4
        case dict():
            return sum(weight(key) + weight(item) for key, item in value.items())
    return sum(weight(getattr(value, name)) for name in value.__slots__)


def speed(work: Callable[[], None], count: int, seconds: float) -> float:
    """GB per second of CPU time: the best run within so many seconds."""
    best, until = float("inf"), time.process_time() + seconds
    while time.process_time() < until:
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return count / best / 1e9


def mask_speed(size: int, seconds: float, seeds: int = 8) -> float:
    """Masks made and added to a vector."""
    words: Vector = np.zeros(size, np.uint32)
    some = [bytes([number]) * 32 for number in range(seeds)]
    return speed(lambda: apply(words, BITS, some), seeds * words.nbytes, seconds)


def aes_speed(size: int, seconds: float) -> float:
    """AES-256 in counter mode alone, in one piece or in blocks, whichever is faster."""
    found = []
    for block in (BLOCK_BYTES, 4 * size):
        cipher = Cipher(algorithms.AES256(bytes(32)), modes.CTR(bytes(16))).encryptor()
        zeros, buffer = bytes(block), bytearray(block)
        times = max(4 * size // block, 1)

        def work(
            cipher: Any = cipher, zeros: bytes = zeros, buffer: bytearray = buffer, n: int = times
        ) -> None:
            for _ in range(n):
                cipher.update_into(zeros, buffer)

        found.append(speed(work, times * block, seconds))
    return max(found)


def results(*, quick: bool, only: str | None, seconds: float) -> Iterator[tuple[str, float]]:
    """Each key and its figure, as they come."""
    for setting in SETTINGS:
        if only in (None, setting.name) and not (quick and not setting.quick):
            yield setting.name, measure(setting)
    yield "upload_ratio", upload_ratio(*UPLOAD)
    yield "mask_gb_per_s", mask_speed(1_663_370, seconds)
    yield "aes_ctr_gb_per_s", aes_speed(1_663_370, seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the long settings out")
    parser.add_argument("--only", help="one setting by name")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each speed; 1 as it stands")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--peers", action="store_true", help="with figures of others, recorded")
    parser.add_argument("--flower", help="a Python with Flower: its figures are measured instead")
    args = parser.parse_args(argv)
    found: dict[str, Any] = {}
    for key, figure in results(quick=args.quick, only=args.only, seconds=args.seconds):
        found[key] = round(figure, 4)
        print(f"{key}: {figure:.4g}", file=sys.stderr)
    if args.peers:
        peer = flower(args.flower) if args.flower else RECORDED
        found["peers"] = [peer]
        print(f"peers: {peer}", file=sys.stderr)
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
