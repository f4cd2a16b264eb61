"""Next characters among the roles of Shakespeare's plays, beside all text in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bench.worked.measure import everybody, federated, joined, pooled
from hansa.core.job import Rounds
from hansa.examples.shakespeare.job import shakespeare_job


def run(*, quick: bool) -> dict[str, Any]:
    """Accuracy on the held-out characters of all roles."""
    job = shakespeare_job()
    job = replace(job, rounds=Rounds(count=3)) if quick else job
    splits = everybody(job)
    train, held_out = (
        joined([getattr(split, part) for split in splits]) for part in ("train", "test")
    )
    trained = federated(job, held_out, splits)
    return {
        "clients": len(splits),
        "rounds": job.rounds.count,
        "held_out_characters": held_out.targets.size,
        "always_the_commonest": _commonest(train.targets, held_out.targets),
        "federated": trained.plain(),
        "pooled": pooled(job, train, held_out, trained.seen).plain(),
    }


def _commonest(train: Any, held_out: Any) -> float:
    """Accuracy of whoever says the commonest character whatever came before."""
    return round(float((held_out == np.bincount(train.ravel()).argmax()).mean()), 4)
