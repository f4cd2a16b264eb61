"""Adapters of a frozen language model among mailboxes, beside all mails in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.worked.measure import everybody, federated, joined, measured, pooled
from hansa.core.job import Job, Rounds
from hansa.core.parts import Examples
from hansa.examples.lora.job import lora_job
from hansa.examples.lora.task import Spam
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of, load_task


def run(*, quick: bool) -> dict[str, Any]:
    """Loss and accuracy on the mails that are held out, and what travels."""
    job = lora_job()
    job = replace(job, rounds=Rounds(count=1)) if quick else job
    splits, task = everybody(job), load_task(job)
    train, held_out = (
        joined([getattr(split, part) for split in splits]) for part in ("train", "test")
    )
    cost = compile_plan(job, facts_of(job, task)).cost
    first = measured(task, task.initial(job.seed), held_out)
    trained = federated(job, held_out, splits)
    return {
        "clients": len(splits),
        "rounds": job.rounds.count,
        "bytes_down": cost.down_bytes,
        "bytes_up": cost.up_bytes,
        "bytes_of_the_whole_model": _whole(),
        "held_out": len(held_out),
        "always_wanted": round(float((held_out.targets == 0).mean()), 4),
        "before": first,
        "federated": trained.plain(),
        "folders": _folders(job, held_out),
        "pooled": pooled(job, train, held_out, trained.seen).plain(),
    }


def _folders(like: Job, held_out: Examples) -> dict[str, Any]:
    """The same among the corpus's folders, on the same mails."""
    job = replace(lora_job(folders=True), rounds=like.rounds)
    return federated(job, held_out, everybody(job)).plain()


def _whole() -> int:
    """Bytes of an update if all weights travelled: what is trained and what is frozen."""
    module = Spam().model()
    return 4 * sum(array.numel() for array in (*module.parameters(), *module.buffers()))
