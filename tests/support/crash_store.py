"""Runs a small job over the store again and again, killed at every step; prints what came of it.

Usage: python -m tests.support.crash_store MODE FOLDER [URL]

`points`: one run per crash point: a child process is killed by SIGKILL at the n-th commit or file
operation (also half-way through a write), another one goes on and ends the job. On SQLite half of
the commits are crash points and two of five file operations, on PostgreSQL a quarter of commits.
`storm`: one long run that is killed at random moments. One JSON object per run is printed. The
processes are forked from this one, which has no threads and no connections.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hansa.coordinator.accumulator import DurableAccumulator
from hansa.coordinator.blobs import Blobs
from hansa.coordinator.ledger import StoreLedger
from hansa.coordinator.rows import AcceptedRow, Fold, Slot, StateRow
from hansa.coordinator.store import Store
from hansa.core.contribute import Purpose
from hansa.core.events import Gaussian
from hansa.core.parts import Dropout
from hansa.core.rollback import Rejected
from hansa.core.round import Charge, Opening, RoundRecord
from tests.support.store_rows import COHORT, empty, start

SIZE, GROUP, QUORUM, KILLS = 3000, 2, 2, 20
VOID = (1, 0)
"""Round and attempt in which one client alone answers."""
BACK = (1, 5, 6)
"""Rounds that reject the model that they started from."""

Point = Callable[[str], None]


def update_of(number: int, attempt: int, client: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """What a client sends: the same in every run."""
    seed = hashlib.sha256(f"{number}/{attempt}/{client}".encode()).digest()
    return np.random.default_rng(list(seed)).integers(-(2**40), 2**40, SIZE, np.int64)


def prepare(url: str, folder: Path) -> None:
    """A store with one running job and nothing else."""
    initial = Blobs(folder / "blobs").put(np.zeros(SIZE, np.int64))
    with Store.open(url) as store:
        store.database.write(empty)
        start(store, initial_sha256=initial)


def run(url: str, folder: Path, rounds: int, point: Point) -> None:
    """Runs the job to its last round, from wherever an earlier process left it."""
    with Store.open(url) as store:
        arm(store, point)
        began = time.monotonic()
        store.acquire_lease(f"process {os.getpid()}", 5.0)
        note(folder, "lease", round(time.monotonic() - began, 3))
        blobs = Blobs(folder / "blobs")
        while (state := current(store)).round < rounds:
            one_round(store, blobs, folder, state)


def current(store: Store) -> StateRow:
    return store.state("j1") or StateRow(0, 0, store.job("j1").initial_sha256, (), None, 0)


def one_round(store: Store, blobs: Blobs, folder: Path, state: StateRow) -> None:
    number, attempt = state.round, state.attempt
    name = (number, attempt)
    ledger = StoreLedger(store, "j1", 100, lambda: 5.0)
    charge = Charge("j1", number, attempt, Purpose.TRAIN, Gaussian(1.0))
    ledger.reserve(charge)
    note(folder, "reserved", *name)
    opening = Opening(Purpose.TRAIN, number, attempt, COHORT, state.model_sha256)
    opening = store.open_round("j1", opening, 20.0)
    total, members = gather(store, DurableAccumulator(folder / "sums", "j1"), folder, opening)
    ledger.commit(charge)
    note(folder, "committed", *name)

    void = len(members) < QUORUM
    back = number in BACK and not void
    model, server = state.model_sha256, state.server_sha256s
    kept = state.accepted or AcceptedRow(0, model, server)
    if back:
        model, server = kept.model_sha256, kept.server_sha256s
    elif not void:
        kept = AcceptedRow(number, model, server)
        model = blobs.put(blobs.array(model, np.int64) + total)
        server = (blobs.put(f"{model}".encode()),)
    due = (number, attempt + 1) if void else (number + 1, 0)
    after = StateRow(*due, model, server, None, 0, None, kept)
    why = Rejected("loss", 2.0, 1.0, 0.5, kept.round) if back else None
    late = tuple(Dropout(c, "late") for c in COHORT if c not in members)
    seconds = time.monotonic()
    record = RoundRecord(
        Purpose.TRAIN,
        number,
        attempt,
        COHORT,
        members,
        late,
        void,
        {},
        seconds,
        model,
        rejected=why,
    )
    store.close_round("j1", record, after, 21.0)
    note(folder, "closed", *name, model)


def gather(
    store: Store, sums: DurableAccumulator, folder: Path, opening: Opening
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], tuple[str, ...]]:
    """Folds what is missing, group by group; a receipt is noted when its group is durable."""
    name = (opening.round, opening.attempt)
    fold = store.folded("j1", opening)
    total, kept, members = np.zeros(SIZE, np.int64), None, tuple[str, ...]()
    if fold is not None:
        kept, members = fold.place, fold.members
        total = np.frombuffer(sums.read(kept), np.int64).copy()
    answering = COHORT[:1] if name == VOID else COHORT
    waiting = [client for client in answering if client not in members]
    while waiting:
        group, waiting = waiting[:GROUP], waiting[GROUP:]
        for client in group:
            total += update_of(*name, client)
        kept = commit(store, sums, opening, total, kept, tuple(group))
        members += tuple(group)
        for client in group:
            note(folder, "receipt", *name, client)
    return total, tuple(sorted(members))


def commit(
    store: Store,
    sums: DurableAccumulator,
    opening: Opening,
    total: np.ndarray[Any, np.dtype[np.int64]],
    kept: Slot | None,
    group: tuple[str, ...],
) -> Slot:
    slot = sums.sync(sums.write(total, 1 + (kept.generation if kept else 0), kept))
    store.commit_fold("j1", opening, Fold(slot.generation, slot.slot, slot.checksum, group))
    return slot


def note(folder: Path, *words: object) -> None:
    """What the world was told; a promise that a crash must not break."""
    with (folder / "notes").open("a") as file:
        file.write(json.dumps(words) + "\n")


def notes(folder: Path) -> list[list[Any]]:
    path = folder / "notes"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def arm(store: Store, point: Point) -> None:
    """Calls `point` before and after every commit and after every file operation."""
    dialect: Any = store.database.engine.dialect
    do_commit, pwrite = dialect.do_commit, os.pwrite

    def committing(connection: Any) -> None:
        point("before commit")
        do_commit(connection)
        point("after commit")

    def writing(descriptor: int, content: memoryview, offset: int) -> int:
        half = len(content) // 2
        pwrite(descriptor, content[:half], offset)
        point("half-way through a write")
        count = half + pwrite(descriptor, content[half:], offset + half)
        point("after a write")
        return count

    dialect.do_commit = committing
    os.pwrite = writing  # type: ignore[assignment]  # the one caller gives these three
    for call in ("fsync", "fdatasync", "replace"):
        setattr(os, call, pointed(call, getattr(os, call), point))


def pointed(name: str, real: Callable[..., Any], point: Point) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        point(f"after {name}")
        return result

    return call


def broken_promises(store: Store, folder: Path) -> list[str]:
    """What the store has forgotten of what the world was told; looked at before the resume."""
    ledger = StoreLedger(store, "j1", 100, lambda: 5.0)
    ledger.verify()
    store.verify_events()
    steps = {(e.kind, e.round, e.attempt) for e in ledger.entries()}
    models = {(r.round, r.attempt): r.model for r in store.records("j1")}
    wrong = []
    for words in notes(folder):
        match words:
            case ["reserved", number, attempt]:
                kept = ("reserve", number, attempt) in steps
            case ["committed", number, attempt]:
                kept = ("commit", number, attempt) in steps
            case ["closed", number, attempt, model]:
                kept = models.get((number, attempt)) == model
            case ["receipt", number, attempt, client]:
                fold = store.folded("j1", Opening(Purpose.TRAIN, number, attempt, (), ""))
                kept = fold is not None and client in fold.members
            case _:
                kept = words[0] == "lease" and words[1] < 1.0
        if not kept:
            wrong.append(json.dumps(words))
    return wrong


def outcome(store: Store, folder: Path) -> str:
    """Everything that must not depend on crashes, as one hash; the final model bit by bit."""
    blobs = Blobs(folder / "blobs")
    state = current(store)
    records = [
        (r.round, r.attempt, r.cohort, r.members, r.void, r.model, r.rejected)
        for r in store.records("j1")
    ]
    entries = StoreLedger(store, "j1", 100, lambda: 5.0).entries()
    spent = sorted((e.kind, e.round, e.attempt) for e in entries)
    kinds = sorted(e.kind for e in store.events("j1"))
    content = blobs.get(state.model_sha256).hex()
    kept = state.accepted
    names = () if kept is None else (kept.model_sha256, *kept.server_sha256s)
    held = [blobs.get(name).hex() for name in (*state.server_sha256s, *names)]
    return hashlib.sha256(repr((state, records, spent, kinds, content, held)).encode()).hexdigest()


# ------------------------------------------------------------------ processes


def forked(work: Callable[[], None], seconds: float | None = None) -> int:
    """Runs `work` in a child, killed after `seconds`; the number of the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # shown, and told by the exit code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a child failed; see its traceback above")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killer(folder: Path, at: int) -> Point:
    """Kills this process at the n-th point, and leaves the point's name."""
    left = at

    def point(what: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            (folder / "point").write_text(what)
            os.kill(os.getpid(), signal.SIGKILL)

    return point


def nothing(what: str) -> None:
    """An unarmed point."""


def report(url: str, folder: Path, **words: object) -> None:
    """Prints one line about a run that is over."""
    with Store.open(url) as store:
        wrong = json.loads((folder / "wrong").read_text())
        print(json.dumps({**words, "wrong": wrong, "outcome": outcome(store, folder)}), flush=True)


def look(url: str, folder: Path) -> None:
    """Writes down broken promises, as they are before anything goes on."""
    path = folder / "wrong"
    before = json.loads(path.read_text()) if path.exists() else []
    with Store.open(url) as store:
        path.write_text(json.dumps(before + broken_promises(store, folder)))


def fresh(base: Path, name: str, url: str) -> tuple[str, Path]:
    """A folder and a store that are ready to run; on SQLite a copy of the first one."""
    folder, template = base / name, base / "template"
    if url:
        folder.mkdir()
        forked(lambda: prepare(url, folder))
        return url, folder
    if not template.exists():
        template.mkdir()
        forked(lambda: prepare(str(template / "store.db"), template))
    shutil.copytree(template, folder)
    return str(folder / "store.db"), folder


def points(base: Path, given: str) -> None:
    """One run for each crash point, until a run meets none."""
    number = 0
    while True:
        url, folder = fresh(base, f"run-{number}", given)
        point = sampled(killer(folder, number), on_files=not given) if number else nothing
        if not forked(lambda: run(url, folder, 3, point)) and number:  # noqa: B023  # called at once
            return
        what = (folder / "point").read_text() if number else "undisturbed"

        def end() -> None:
            look(url, folder)  # noqa: B023
            run(url, folder, 3, nothing)  # noqa: B023
            report(url, folder, point=number, what=what)  # noqa: B023

        forked(end)
        shutil.rmtree(folder)
        number += 1


def sampled(point: Point, *, on_files: bool) -> Point:
    """Leaves out some of the points, evenly over their kinds; see the head of this file."""
    seen = {"commit": 0, "file": 0}

    def some(what: str) -> None:
        kind = "commit" if "commit" in what else "file"
        seen[kind] += 1
        step = 2 if on_files else 4
        if kind == "commit" and (seen[kind] + seen[kind] // 8) % step == 0:
            point(what)
        if kind == "file" and on_files and seen[kind] % 5 in (0, 2):
            point(what)

    return some


def storm(base: Path, given: str) -> None:
    """One undisturbed run, then the same run killed at random moments."""
    rounds = 12
    url, folder = fresh(base, "calm", given)
    began = time.monotonic()
    forked(lambda: run(url, folder, rounds, nothing))
    whole = time.monotonic() - began
    forked(lambda: look(url, folder))
    forked(lambda: report(url, folder, what="undisturbed"))
    url, folder = fresh(base, "storm", given)
    chance, kills = random.Random(7), 0
    for _ in range(KILLS):
        seconds = chance.uniform(0, 2.5 * whole / KILLS)
        kills += bool(forked(lambda: run(url, folder, rounds, nothing), seconds))
        forked(lambda: look(url, folder))
    forked(lambda: run(url, folder, rounds, nothing))
    forked(lambda: report(url, folder, what="storm", kills=kills))


if __name__ == "__main__":
    MODE, BASE, URL = sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
    if MODE == "points":
        points(BASE, URL)
    else:
        storm(BASE, URL)
