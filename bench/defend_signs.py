"""What the signs `trusted` and `staleness` of a score cost honest clients, and what they find.

    python bench/defend_signs.py [--quick] [--json] [--parts late trusted] [--seeds 200 ... 219]
        [--weights 0 2] [--skews ...] [--works ...] [--bad 2]

Digits, network, draws and work of `defend.py`: 20 clients, evenly divided or by Dirichlet 0.3, the
geometric median, standings in the loop.

late: a round is the first 10 updates, all 20 clients work all the time, each with a speed of its
own (log-normal, spread 1), and 2 are bad: who is quick is in each buffer, where 2 of 20 are 2 of
10. Old updates are shortened by their discount before the rule sees them. 200 rounds without
attack, 50 under one by the quickest clients or by the slowest. Each is run with scores as they are,
which judge an old update like any other, and "looser": z of the cosine divided by the root of
1 + age.

trusted: everybody is in each round, 4 clients are bad, and one honest client's data are trusted.
100 rounds without attack, 25 under one, for each weight of the sign: the z of an update that is
opposite to the trusted client's. The weight was chosen on seeds 100 to 119; the seeds here are
others.

`--quick`: two seeds, Dirichlet 0.3, one batch.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hansa.aggregators.robust.distances import products
from hansa.core.arrival import Buffer
from hansa.defend import Standings, State, scores, scores_of
from hansa.defend.scores import Score, Sign

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # run as a script, this file is not in a package

from bench.defend import ATTACKED, CALM, NAMES, WORK, combined, say, sent, trained  # noqa: E402
from bench.robust_matrix import (  # noqa: E402  after the path is set
    HIDDEN,
    RATE,
    SKEWS,
    F,
    N,
    divided,
    shuffled,
)

BUFFER = Buffer(10, N)
LATE_CALM, LATE_ATTACKED = 200, 50
LATE = ("none", "sign_flip", "scaling", "ipm_0.5", "min_max", "label_flip")
BESIDE = ("none", "ipm_0.5", "alie", "min_max", "free_rider", "label_flip")
TRUSTED = 0
"""The client whose data are trusted; it is honest."""

Array = Any


@dataclass(slots=True)
class Run:
    """Who was watched and quarantined at some time, and how old updates were."""

    bad: frozenset[int]
    slow: frozenset[int] = frozenset()
    watched: set[int] = field(default_factory=set)
    quarantined: set[int] = field(default_factory=set)
    ages: list[int] = field(default_factory=list)

    def heard(self, changes: Sequence[Any]) -> None:
        """Counts transitions."""
        for change in changes:
            place = NAMES.index(change.client)
            if change.after is State.WATCH:
                self.watched.add(place)
            if change.after is State.QUARANTINED:
                self.quarantined.add(place)


def begin(skew: str, seed: int) -> tuple[Any, Array, list[Array]]:
    """The random numbers, the first model and each client's examples, as in `defend.py`."""
    rng = np.random.RandomState(seed)
    w = np.concatenate(
        [
            rng.randn(64 * HIDDEN) / 8,
            np.zeros(HIDDEN),
            rng.randn(HIDDEN * 10) / np.sqrt(HIDDEN),
            np.zeros(10),
        ]
    )
    return rng, w, divided(SKEWS[skew], rng)


def late(skew: str, work: str, attack: str, quick: bool, looser: bool, many: int, seed: int) -> Run:
    """One run by arrival; `quick` says which clients are bad, and `many` how many."""
    rng, w, parts = begin(skew, seed)
    noise = np.random.default_rng(seed)
    x, y, _, _ = shuffled()
    pace = np.exp(noise.standard_normal(N))
    order = np.argsort(pace)
    chosen = order[:many] if quick else order[-many:]
    bad = frozenset() if attack == "none" else frozenset(chosen.tolist())
    honest = [i for i in order.tolist() if i not in bad]
    found = Run(bad, frozenset(honest[-4:]))
    momentum, previous = np.zeros((N, len(w))), np.zeros(len(w))
    standings, models = Standings.of(N, BUFFER.size), {0: w}
    at_work = [(pace[i] * np.exp(0.3 * noise.standard_normal()), i, 0) for i in range(N)]
    heapq.heapify(at_work)
    now = 0.0
    for number in range(LATE_CALM if attack == "none" else LATE_ATTACKED):
        buffer: dict[int, int] = {}
        while len(buffer) < BUFFER.size:
            now, client, began = heapq.heappop(at_work)
            if standings.weight(NAMES[client]) == 0:
                continue
            flips = attack == "label_flip" and client in bad
            momentum[client] = trained(
                models[began], x, y, parts[client], momentum[client], work, rng, flips
            )
            buffer[client] = number - began
        counted = sorted(buffer)
        updates = momentum.astype(np.float32)
        theirs = [i for i in counted if i in bad]
        lie = sent(attack, momentum[[i for i in counted if i not in bad]], previous, noise)
        if lie is not None and theirs:
            updates[theirs] = lie[: len(theirs)]
        for client, age in buffer.items():
            updates[client] *= np.float32(BUFFER.weight(age))
        found.ages += buffer.values()
        step = combined(updates, counted, standings)
        ages = {NAMES[i]: age for i, age in buffer.items()}
        seen = products([updates[i] for i in counted], 1)
        said = scores_of([NAMES[i] for i in counted], seen, late=ages)
        if looser:
            said = {name: loosened(score, ages[name]) for name, score in said.items()}
        standings, changes = standings.observe(number, said)
        found.heard(changes)
        previous = step * (RATE if work == "one batch" else 1.0)
        models[number + 1] = models[number] - previous
        for client in counted:
            ends = now + pace[client] * np.exp(0.3 * noise.standard_normal())
            heapq.heappush(at_work, (ends, client, number + 1))
    return found


def loosened(score: Score, age: int) -> Score:
    """The score if pointing against the others were held against old updates by less."""
    z = round(score.cosine.z / (1 + age) ** 0.5, 4)
    return replace(score, cosine=Sign(score.cosine.value, z))


def beside(skew: str, work: str, attack: str, weight: float, seed: int) -> Run:
    """One run with everybody in each round, beside one client that is trusted."""
    rng, w, parts = begin(skew, seed)
    noise = np.random.default_rng(seed)
    x, y, _, _ = shuffled()
    bad = frozenset() if attack == "none" else frozenset(range(N - F, N))
    found = Run(bad)
    momentum, previous = np.zeros((N, len(w))), np.zeros(len(w))
    standings = Standings.of(N, N // 2 + 1)
    scores.TRUSTED = weight  # the one number that is compared here
    for number in range(CALM if attack == "none" else ATTACKED):
        for client in range(N):
            flips = attack == "label_flip" and client in bad
            momentum[client] = trained(w, x, y, parts[client], momentum[client], work, rng, flips)
        updates = momentum.astype(np.float32)
        lie = sent(attack, momentum[: N - F], previous, noise)
        if lie is not None:
            updates[N - F :] = lie
        counted = [i for i in range(N) if standings.weight(NAMES[i]) > 0]
        step = combined(updates, counted, standings)
        seen = products([updates[i] for i in counted], 1)
        said = scores_of([NAMES[i] for i in counted], seen, trusted=NAMES[TRUSTED])
        standings, changes = standings.observe(number, said)
        found.heard(changes)
        previous = step * (RATE if work == "one batch" else 1.0)
        w = w - previous
    return found


def shares(runs: Sequence[Run]) -> dict[str, float]:
    """Percent of clients that were watched or quarantined at some time."""

    def percent(which: str, of: Any) -> float:
        hits = [client in getattr(run, which) for run in runs for client in of(run)]
        return round(100 * float(np.mean(hits)), 2) if hits else 0.0

    told = {
        f"{name}_{which}": percent(which, of)
        for which in ("quarantined", "watched")
        for name, of in (
            ("honest", lambda run: set(range(N)) - run.bad),
            ("slow", lambda run: run.slow),
            ("bad", lambda run: run.bad),
        )
    }
    ages = [age for run in runs for age in run.ages]
    if not ages:
        return {name: share for name, share in told.items() if not name.startswith("slow")}
    return {**told, "mean_age": round(float(np.mean(ages)), 2), "oldest": max(ages)}


def measured(
    part: str,
    skews: Sequence[str],
    works: Sequence[str],
    weights: Sequence[float],
    many: int,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """The shares of one part, by skew, work, attack and variant."""
    table: dict[str, Any] = {}

    def row(skew: str, work: str, name: str, runs: Sequence[Run]) -> None:
        found = shares(runs)
        table.setdefault(skew, {}).setdefault(work, {})[name] = found
        say(f"{part}, {skew}, {work}, {name}: {found}")

    for skew in skews:
        for work in works:
            for attack in LATE if part == "late" else BESIDE:
                if part == "trusted":
                    for weight in weights:
                        runs = [beside(skew, work, attack, weight, seed) for seed in seeds]
                        row(skew, work, f"{attack}, weight {weight:g}", runs)
                    continue
                for quick in (True, False)[: 1 if attack == "none" else 2]:
                    who = "" if attack == "none" else f" by the {'quick' if quick else 'slow'}"
                    for looser in (False, True):
                        runs = [late(skew, work, attack, quick, looser, many, s) for s in seeds]
                        row(skew, work, f"{attack}{who}{', looser' if looser else ''}", runs)
    return table


def main(arguments: list[str]) -> int:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds, skewed data, one batch")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--parts", nargs="+", choices=["late", "trusted"], default=["late"])
    parser.add_argument("--skews", nargs="+", choices=SKEWS, default=["dirichlet_0.3"])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, scores.TRUSTED])
    parser.add_argument("--works", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--bad", type=int, default=2, help="bad clients, where updates arrive")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(200, 220)))
    options = parser.parse_args(arguments)
    seeds = options.seeds[:2] if options.quick else options.seeds
    works = ["one batch"] if options.quick else options.works
    started = time.perf_counter()
    table = {
        part: measured(part, options.skews, works, options.weights, options.bad, seeds)
        for part in options.parts
    }
    if options.json:
        seconds = time.perf_counter() - started
        print(json.dumps({"clients": N, "seeds": seeds, "shares": table, "s": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
