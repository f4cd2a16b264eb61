"""Checking what a scientist's machine handed in.

The coordinator compiles the plan from the words and the facts; it never imports a task.
"""

from __future__ import annotations

import json
import secrets

import numpy as np

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.rows import JobRow, Status
from hansa.core.plan import Plan
from hansa.errors import DigestMismatch, Refused
from hansa.submission import Submission, compile_submitted
from hansa.work.container import parse
from hansa.work.signature import signer_of


def accept(submission: Submission, blobs: Blobs, now: float) -> tuple[JobRow, Plan]:
    """Compiles a submission and checks everything that it names.

    Raises:
      PlanRefused: the job's parts do not fit.
      DigestMismatch: the sender compiled another plan.
      HansaError: a blob is missing or is not what the plan says.
    """
    plan = compile_submitted(submission.words, submission.facts)
    if plan.digest != submission.plan_digest:
        raise DigestMismatch(
            "the coordinator compiled another plan from this job than the sender",
            fix="submit with the coordinator's version of Hansa",
        )
    params = blobs.mapped(submission.initial_sha256, np.dtype("<f4"))
    if params.shape != (plan.task.schema.size,) or not np.isfinite(params).all():
        raise Refused(
            f"the initial parameters are not {plan.task.schema.size:,} finite numbers",
            fix="submit with the task's own initial parameters",
        )
    bundle = parse(blobs.get(submission.bundle_sha256))
    if bundle.digest != plan.task.digest:
        raise DigestMismatch(
            "the bundle is not the code that the plan names",
            fix="submit the job again from its folder as it is now",
        )
    signer_of(submission.bundle_signature, bundle.digest)
    row = JobRow(
        id=f"{plan.job.name}-{secrets.token_hex(4)}",
        name=plan.job.name,
        created=now,
        status=Status.SUBMITTED,
        words_json=submission.words,
        facts_json=submission.facts,
        plan_digest=plan.digest,
        bundle_sha256=submission.bundle_sha256,
        initial_sha256=submission.initial_sha256,
        bundle_signature=submission.bundle_signature,
        reason="",
    )
    return row, plan


def plan_of(row: JobRow) -> Plan:
    """The plan of a stored job.

    Raises:
      DigestMismatch: this version of Hansa compiles another plan than the one that was approved.
    """
    plan = compile_submitted(row.words_json, row.facts_json)
    if plan.digest != row.plan_digest:
        raise DigestMismatch(
            f"this version of Hansa compiles another plan from job '{row.id}'",
            fix="finish the job with the version that it was submitted to, or submit it again",
        )
    return plan


def arrives(row: JobRow) -> bool:
    """Whether a stored job's updates count in whichever round they arrive."""
    words = json.loads(row.words_json)
    return bool(words.get("cohort", {}).get("sampler") == "arrival")
