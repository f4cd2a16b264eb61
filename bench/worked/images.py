"""MNIST on a thousand devices, alike and not alike, beside all images in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.worked.measure import everybody, federated, joined, pooled
from hansa.core.job import Rounds
from hansa.examples.images.job import devices_job


def run(*, quick: bool) -> dict[str, Any]:
    """Accuracy on the makers' 10,000 test images."""
    rounds = Rounds(count=3 if quick else devices_job().rounds.count)
    found: dict[str, Any] = {}
    for name, iid in (("iid", True), ("dirichlet", False)):
        job = replace(devices_job(iid=iid), rounds=rounds)
        splits = everybody(job)
        held_out = joined([split.test for split in splits])
        trained = federated(job, held_out, splits)
        found[name] = trained.plain()
        if iid:
            train = joined([split.train for split in splits])
            found["pooled"] = pooled(job, train, held_out, trained.seen).plain()
    return {"clients": 1000, "rounds": rounds.count, **found}
