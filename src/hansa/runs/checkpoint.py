"""The state between two rounds as one file: what a run goes on from, to the last bit.

A checkpoint is a NumPy archive (`numpy.load` opens it; no pickle): `params` (d,) float32, one
`server/i` for each vector of the server optimizer, and `state`, JSON with the numbers beside them.
Where clients are still at work, `begun/r` is the model of round r that some of them began with.
Where models are judged, `accepted` and `accepted/server/i` are what is gone back to.
What correlated noise remembers is not in it: it follows from the seed and is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from hansa.core.arrival import Begun, Flight, Flights
from hansa.core.rollback import Accepted
from hansa.core.round import TrainState
from hansa.core.vector import Schema, Vector, sha256
from hansa.defend.text import judged_of, judged_words
from hansa.errors import HansaError
from hansa.runs.disk import explained, write_whole

FOLDER = "checkpoints"
NAME = "round-{:06d}.npz"
_BEGINS, _ENDS = "round-", ".npz"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state, and how much of the run's record belongs to it.

    Attributes:
      state: what the next round starts from.
      records: how many rounds were closed before, void ones counted.
    """

    state: TrainState
    records: int


def save(folder: Path, checkpoint: Checkpoint, keep: int, *, sync: bool = False) -> None:
    """Writes a checkpoint, then removes those that are older than the last `keep`; 0 keeps all.

    Raises:
      HansaError: the disk refuses; older checkpoints are as they were.
    """
    state = checkpoint.state
    numbers: dict[str, Any] = {
        "round": state.round,
        "attempt": state.attempt,
        "model": state.model,
        "best": state.best,
        "stale": state.stale,
        "clip": state.clip,
        "records": checkpoint.records,
        "server": [sha256(vector) for vector in state.server],
        **_flights_words(state.flights),
        **_accepted_words(state.accepted),
    }
    if state.standing is not None:
        numbers["standing"] = judged_words(state.standing)
    text = json.dumps(numbers).encode("ascii")
    arrays: dict[str, Vector] = {
        "params": state.params,
        **{f"server/{i}": vector for i, vector in enumerate(state.server)},
        **{f"begun/{r}": begun.params for r, begun in _begun(state.flights)},
        **_accepted_arrays(state.accepted),
        "state": np.frombuffer(text, np.uint8),
        "check": np.frombuffer(hashlib.sha256(text).digest(), np.uint8),
    }
    at = folder / FOLDER
    write_whole(
        at / NAME.format(checkpoint.records), lambda file: write_arrays(file, arrays), sync=sync
    )
    for old in _files(folder)[:-keep] if keep else []:
        old.unlink(missing_ok=True)


def newest(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint of a run; None before its first.

    Raises:
      HansaError: there are checkpoints, and all of them are damaged.
    """
    files = _files(folder)
    for path in reversed(files):
        found = _load(path)
        if found is not None:
            return found
    if files:
        raise HansaError(
            f"all checkpoints in '{folder / FOLDER}' are damaged",
            fix="restore one from a copy, or run the job anew",
        )
    return None


def write_model(path: Path, schema: Schema, params: Vector) -> None:
    """Writes a model as a NumPy archive with one float32 array for each tensor, by its name.

    Raises:
      HansaError: the disk refuses.
    """
    write_whole(path, lambda file: write_arrays(file, schema.views(params)), sync=True)


def write_arrays(file: IO[bytes], arrays: Mapping[str, Vector]) -> None:
    """Writes arrays as `numpy.load` reads them; equal arrays give equal bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def _files(folder: Path) -> list[Path]:
    at = folder / FOLDER
    names = sorted(os.listdir(at)) if at.is_dir() else []  # noqa: PTH208  twice as fast
    return [at / name for name in names if name.startswith(_BEGINS) and name.endswith(_ENDS)]


def _load(path: Path) -> Checkpoint | None:
    """What a file holds; None if it is damaged."""
    try:
        with (
            explained(f"{path} cannot be read", path.parent),
            path.open("rb") as file,  # NumPy does not close what it cannot read
            np.load(file, allow_pickle=False) as arrays,
        ):
            text = arrays["state"].tobytes()
            numbers = json.loads(text)
            params: Vector = arrays["params"]
            server = tuple(arrays[f"server/{i}"] for i in range(len(numbers["server"])))
            flights = _flights_of(numbers, arrays)
            accepted = _accepted_of(numbers, arrays)
            whole = arrays["check"].tobytes() == hashlib.sha256(text).digest()
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if not whole or sha256(params) != numbers["model"]:
        return None
    if [sha256(vector) for vector in server] != numbers["server"]:
        return None
    if any(sha256(begun.params) != begun.model for _, begun in _begun(flights)):
        return None
    if _accepted_words(accepted) != {k: numbers[k] for k in ("accepted",) if k in numbers}:
        return None
    params.flags.writeable = False
    state = TrainState(
        round=numbers["round"],
        attempt=numbers["attempt"],
        params=params,
        model=numbers["model"],
        server=server,
        best=numbers["best"],
        stale=numbers["stale"],
        clip=numbers["clip"],
        flights=flights,
        standing=judged_of(numbers["standing"]) if "standing" in numbers else None,
        accepted=accepted,
    )
    return Checkpoint(state, numbers["records"])


def _begun(flights: Flights | None) -> tuple[tuple[int, Begun], ...]:
    return () if flights is None else flights.models


def _accepted_words(accepted: Accepted | None) -> dict[str, Any]:
    """What is gone back to, without the arrays, but for their SHA-256."""
    if accepted is None:
        return {}
    numbers = {
        "round": accepted.round,
        "model": sha256(accepted.params),
        "server": [sha256(vector) for vector in accepted.server],
        "clip": accepted.clip,
    }
    return {"accepted": numbers}


def _accepted_arrays(accepted: Accepted | None) -> dict[str, Vector]:
    if accepted is None:
        return {}
    server = {f"accepted/server/{i}": vector for i, vector in enumerate(accepted.server)}
    return {"accepted": accepted.params, **server}


def _accepted_of(numbers: Mapping[str, Any], arrays: Mapping[str, Vector]) -> Accepted | None:
    """What `_accepted_words` and `_accepted_arrays` wrote."""
    words = numbers.get("accepted")
    if words is None:
        return None
    params = arrays["accepted"]
    params.flags.writeable = False
    server = tuple(arrays[f"accepted/server/{i}"] for i in range(len(words["server"])))
    return Accepted(words["round"], params, words["model"], server, words["clip"])


def _flights_words(flights: Flights | None) -> dict[str, Any]:
    """Who is at work, without the models."""
    if flights is None:
        return {}
    at_work = [[f.client, f.round, f.attempt, f.ends, f.failure] for f in flights.flights]
    models = [[number, begun.model] for number, begun in flights.models]
    return {"flights": {"now": flights.now, "flights": at_work, "models": models}}


def _flights_of(numbers: Mapping[str, Any], arrays: Mapping[str, Vector]) -> Flights | None:
    """What `_flights_words` wrote, with the models."""
    words = numbers.get("flights")
    if words is None:
        return None
    models = []
    for number, model in words["models"]:
        params = arrays[f"begun/{number}"]
        params.flags.writeable = False
        models.append((number, Begun(params, model)))
    flights = tuple(Flight(*flight) for flight in words["flights"])
    return Flights(words["now"], flights, tuple(models))
