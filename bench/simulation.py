"""Clients per second of a simulation, by model and engine, beside a loop written by hand.

    python bench/simulation.py [--quick] [--peers] [--json]

A round trains 100 of 1,000 clients, each with 50 examples of noise, one epoch in batches of 10.
Every engine is a process of its own, and they take turns, several times over: the machine may do
other things, so compare figures of one run. Figures are of the later half of the rounds, and auto
and vector run more of them: what auto chooses follows from how much is left. inline and workers
must give the same model, bit by bit; another one ends the benchmark. With `--peers` others take
their turns on the same rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))  # run as a script, this file is not in a package

from bench.peer_simulation import SCRIPTS, peer_command, versions  # noqa: E402  after the path

POPULATION = 1000
EXACT = ("inline", "workers")
"""Engines of Hansa that give the same bits."""

STACKING = ("auto", "vector")
"""Engines of Hansa that may stack clients, which gives the same parameters to about 1e-4."""

ENGINES = (*EXACT, *STACKING)
"""Engines of Hansa; another one is measured as soon as it is named here."""

PARTIES = (*ENGINES, "torch_loop_2")
PEERS = tuple(SCRIPTS)

COLUMNS = (
    "clients_per_second",
    "best_clients_per_second",
    "first_round_seconds",
    "peak_mb",
    "engine",
    "engine_because",
)


@dataclass(frozen=True)
class Model:
    """One model.

    Attributes:
      key: its name.
      kind: its class in `speed/task.py`.
      quick: rounds of the short form.
      long: rounds of the long form.
      study: rounds of the long form for engines that may stack.
    """

    key: str
    kind: str
    quick: int
    long: int
    study: int


MODELS = (
    Model("logistic", "Logistic", 5, 30, 600),
    Model("mlp", "MLP", 3, 12, 100),
    Model("cnn", "CNN", 2, 3, 6),
)


@dataclass(frozen=True)
class Found:
    """What one run of one party gave.

    Attributes:
      seconds: of each round.
      first: from the call, with imports behind it, to the end of the first round.
      wall: from the start of the process to the end of the first round.
      model: SHA-256 of the model, of Hansa's engines.
      engine: what ran at the end.
      because: why.
      peak_mb: largest sum of the proportional memory of its processes.
    """

    seconds: list[float]
    first: float
    wall: float = 0.0
    model: str = ""
    engine: str = ""
    because: str = ""
    peak_mb: float = 0.0


def alone(party: str, kind: str, rounds: int, clients: int, started: float) -> Found:
    """Measures one party in this very process."""
    if party == "torch_loop_2":
        from bench.speed.loop import run

        names = [f"client-{number % POPULATION + 1:04d}" for number in range(rounds * clients)]
        cohorts = [names[r * clients : (r + 1) * clients] for r in range(rounds)]
        seconds, first = run(kind, cohorts, 2)
        return Found(seconds, first, time.time() - started - sum(seconds[1:]))

    from hansa.algorithms import fedavg
    from hansa.core.contribute import Purpose
    from hansa.core.job import Cohort, Job, Rounds
    from hansa.core.round import RoundRecord
    from hansa.simulation import simulate

    job = Job(
        name="speed",
        task=f"task:{kind}",
        rounds=Rounds(count=rounds),
        cohort=Cohort(population=POPULATION, sampler="fixed", size=clients),
        algorithm=fedavg(client_lr=0.1, local_epochs=1, batch_size=10),
        evaluate_every=0,
        folder=HERE / "speed",
    )
    ends: list[float] = []

    def heard(_: RoundRecord) -> None:
        ends.append(time.time())

    called = time.time()
    result = simulate(job, engine=party, on_round=heard)
    return Found(
        [r.seconds for r in result.records if r.purpose is Purpose.TRAIN],
        ends[0] - called,
        ends[0] - started,
        result.model_sha256,
        result.engine,
        result.engine_because,
    )


def measure(party: str, model: Model, rounds: int, clients: int) -> Found:
    """The same in a process of its own, whose memory is watched."""
    if party in PEERS:
        command = peer_command(party, str(HERE), model.kind, rounds, clients)
    else:
        words = [party, model.kind, str(rounds), str(clients), str(time.time())]
        command = [sys.executable, str(HERE / "simulation.py"), "--alone", *words]
    path = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        peak = Peak(process.pid)
        out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{party}, {model.key}: failed")
    return Found(**{**json.loads(out.splitlines()[-1]), "peak_mb": peak.stop()})


class Peak:
    """The largest memory of a process and its descendants, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._over = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """In MB."""
        self._over.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self._most = max(self._most, sum(_pss_mb(pid) for pid in descendants(self._pid)))


def descendants(pid: int) -> list[int]:
    """A process and all that it started, and those started, in any session."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def _pss_mb(pid: int) -> float:
    """Memory of a process, where shared pages are divided among those that share them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024e-6


def rounds_of(model: Model, *, quick: bool) -> dict[str, int]:
    """How many rounds each party runs."""
    parties = (*PARTIES, *PEERS)
    long = {party: model.study if party in STACKING else model.long for party in parties}
    return dict.fromkeys(parties, model.quick) if quick else long


def compare(
    model: Model,
    rounds: Mapping[str, int],
    clients: int,
    repeats: int,
    say: Callable[[str], None],
    parties: Sequence[str] = PARTIES,
) -> dict[str, dict[str, Any]]:
    """All parties on one model, turn by turn; figures are medians over rounds of all turns."""
    found: dict[str, list[Found]] = {party: [] for party in parties}
    for _ in range(repeats):
        for party in parties:
            found[party].append(measure(party, model, rounds[party], clients))
    if len({run.model for party in parties if party in EXACT for run in found[party]}) > 1:
        sys.exit(f"{model.key}: the engines gave different models")
    rows = {party: _row(runs, clients) for party, runs in found.items()}
    for party, row in rows.items():
        say(f"{model.key} {party}: {row['clients_per_second']:.4g} clients a second")
    return rows


def _row(runs: list[Found], clients: int) -> dict[str, Any]:
    later = [second for run in runs for second in run.seconds[len(run.seconds) // 2 :]]
    return {
        "clients_per_second": clients / statistics.median(later),
        "best_clients_per_second": clients / min(later),
        "first_round_seconds": statistics.median(run.wall for run in runs),
        "peak_mb": max(run.peak_mb for run in runs),
        "engine": runs[-1].engine,
        "engine_because": runs[-1].because,
    }


def times_slower(rows: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """By how much each peer is slower than the fastest exact engine that was measured, by model."""
    found: dict[str, dict[str, float]] = {}
    for key, of in rows.items():
        ours = [of[party]["clients_per_second"] for party in EXACT if party in of]
        theirs = {peer: of[peer]["clients_per_second"] for peer in PEERS}
        found[key] = {peer: max(ours) / each for peer, each in theirs.items()} if ours else {}
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, once each")
    parser.add_argument("--only", choices=[m.key for m in MODELS], help="one model")
    parser.add_argument("--parties", nargs="+", choices=PARTIES, default=PARTIES, help="some")
    parser.add_argument("--clients", type=int, default=100, help="clients in a round")
    parser.add_argument("--repeats", type=int, help="turns of each party; 3, or 1 with --quick")
    parser.add_argument(
        "--peers", action="store_true", help="Flower and pfl-research take turns, too"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--alone", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.alone:
        party, kind, rounds, clients, started = args.alone
        found = alone(party, kind, int(rounds), int(clients), float(started))
        print(json.dumps(asdict(found)))
        return
    rows = {
        model.key: compare(
            model,
            rounds_of(model, quick=args.quick),
            args.clients,
            args.repeats or (1 if args.quick else 3),
            lambda line: print(line, file=sys.stderr),
            (*args.parties, *(PEERS if args.peers else ())),
        )
        for model in MODELS
        if args.only in (None, model.key)
    }
    if args.json:
        said: dict[str, Any] = {
            column: {
                key: {party: row[column] for party, row in of.items() if row[column] != ""}
                for key, of in rows.items()
            }
            for column in COLUMNS
        }
        if args.peers:
            said["peers"] = {"installed": versions(), "times_slower": times_slower(rows)}
        print(json.dumps(said))


if __name__ == "__main__":
    main()
