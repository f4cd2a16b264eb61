"""What robust rules cost: seconds and peak memory of each, on the updates of fifty clients.

    python bench/robust.py [--quick] [--json] [--only RULE] [--peers PYTHON]

Each rule runs in a process of its own on one (n, d) float32 array of normal numbers, so that the
peak of its resident memory is its own. With `--peers` the same updates go through the rules of
Flower and byzfl by `bench/peer_robust.py`, in turn with ours.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hansa.aggregators import robust
from hansa.core.keys import ReplayKey

CLIENTS, BAD = 50, 10
SIZES = {"n50_d1.7M": 1_663_370, "n50_d10M": 10_000_000}
"""Parameters of the settings: a small convolutional network, and one of 40 MB."""

KEY = ReplayKey.of_seed(0)
RULES: dict[str, Callable[[Any], Any]] = {
    "median": lambda x: robust.median(x),
    "trimmed_mean": lambda x: robust.trimmed_mean(x, BAD),
    "krum": lambda x: robust.krum(x, BAD),
    "multi_krum": lambda x: robust.multi_krum(x, BAD),
    "geometric_median": lambda x: robust.geometric_median(x),
    "bulyan": lambda x: robust.bulyan(x, BAD),
    "centered_clipping": lambda x: robust.centered_clipping(
        x, 1_000.0, np.zeros(x.shape[1], np.float32)
    ),
    "dnc": lambda x: robust.dnc(x, BAD, KEY),
    "bucketing": lambda x: robust.bucketing(x, 2, KEY),
    "nearest_neighbor_mixing": lambda x: robust.nearest_neighbor_mixing(x, BAD, out=x),
}
PEERS = {
    "flower": ("median", "trimmed_mean", "krum", "multi_krum"),
    "byzfl": ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median"),
}
SAME = ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median")
"""Rules whose results are compared: geometric medians after eight steps of theirs."""


def one(rule: str, size: int, repeats: int, file: str | None) -> dict[str, float]:
    """Best wall time of a rule, the CPU time of that run, and the peak memory of this process."""
    updates = np.random.default_rng(0).standard_normal((CLIENTS, size), dtype=np.float32)
    runs, found = [], None
    for _ in range(repeats):
        found = None
        start = time.perf_counter(), time.process_time()
        found = RULES[rule](updates)
        runs.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    if file:
        np.save(Path(file), np.asarray(found))
    seconds, cpu = min(runs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}


def measured(command: list[str]) -> dict[str, float]:
    """What a process that measures one rule says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(rule: str, python: str, repeats: int, ours: dict[str, float]) -> dict[str, Any]:
    """A rule of each peer that has it, beside ours of the same run."""
    script = str(Path(__file__).with_name("peer_robust.py"))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "ours.npy"
        one_of_ours(rule, "n50_d1.7M", 1, mine)
        for peer, rules in PEERS.items():
            if rule not in rules:
                continue
            theirs = Path(folder) / f"{peer}.npy"
            size = str(SIZES["n50_d1.7M"])
            figures: dict[str, Any] = measured(
                [python, script, peer, rule, str(CLIENTS), size, str(BAD), str(repeats)]
                + [str(theirs)] * (rule in SAME)
            )
            figures["times_slower"] = figures["seconds"] / ours["seconds"]
            figures["times_more_cpu"] = figures["cpu_seconds"] / ours["cpu_seconds"]
            if rule in SAME:
                figures["largest_difference"] = float(np.abs(np.load(theirs) - np.load(mine)).max())
            found[peer] = figures
            say(f"  {peer}: {shown(figures)}, {figures['times_slower']:.1f} times ours")
    return found


def one_of_ours(rule: str, setting: str, repeats: int, file: Path | None = None) -> dict[str, Any]:
    """A rule in a process of its own."""
    command = [sys.executable, __file__, "--one", rule, setting, str(repeats)]
    return measured(command + ([str(file)] if file else []))


def shown(figures: dict[str, float]) -> str:
    return (
        f"{figures['seconds']:.3f} s ({figures['cpu_seconds']:.3f} s of CPU), "
        f"peak {figures['peak_mb']:.0f} MB"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Measures what is asked for."""
    if arguments[:1] == ["--one"]:
        file = arguments[4] if arguments[4:] else None
        print(json.dumps(one(arguments[1], SIZES[arguments[2]], int(arguments[3]), file)))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small setting, three repeats")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--only", choices=sorted(RULES), help="one rule")
    parser.add_argument("--peers", metavar="PYTHON", help="a Python with flwr and byzfl")
    options = parser.parse_args(arguments)
    repeats = 3 if options.quick else 7
    found: dict[str, Any] = {"clients": CLIENTS, "bad": BAD, "settings": {}, "peers": {}}
    for setting, size in list(SIZES.items())[: 1 if options.quick else None]:
        updates_mb = CLIENTS * size * 4 / 2**20
        rules: dict[str, Any] = {}
        found["settings"][setting] = {"updates_mb": updates_mb, "rules": rules}
        for rule in [options.only] if options.only else RULES:
            figures = one_of_ours(rule, setting, repeats if size < 2_000_000 else 3)
            figures["peak_to_updates"] = figures["peak_mb"] / updates_mb
            rules[rule] = figures
            say(f"{setting} {rule}: {shown(figures)}, {figures['peak_to_updates']:.2f} of updates")
            if options.peers and setting == "n50_d1.7M":
                compared = compare(rule, options.peers, min(repeats, 3), figures)
                if compared:
                    found["peers"][rule] = compared
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
