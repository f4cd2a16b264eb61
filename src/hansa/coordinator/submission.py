"""What a scientist's machine hands in, and how the coordinator checks it.

A submission is the job's words, the facts of its task, the bundle of task code and the initial
parameters. The coordinator compiles the plan from the words and the facts; it never imports a task.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

import numpy as np

from hansa.coordinator.blobs import Blobs
from hansa.coordinator.rows import JobRow
from hansa.core import canonical
from hansa.core.job import Job, TaskFacts, facts_of_json
from hansa.core.plan import Plan
from hansa.core.vector import Vector, sha256
from hansa.errors import DigestMismatch, HansaError, Refused
from hansa.jobfile import job_from_words, job_to_words
from hansa.recipes import compile_plan


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it is sent; the bundle and the parameters are sent apart, as blobs.

    Attributes:
      words: the job in canonical JSON.
      facts: the facts of the task in canonical JSON.
      plan_digest: the plan that the sender compiled.
      bundle_sha256: the task's code; empty if the task is installed with Hansa.
      initial_sha256: the initial parameters, little-endian float32.
    """

    words: str
    facts: str
    plan_digest: str
    bundle_sha256: str
    initial_sha256: str


def submission_of(plan: Plan, params: Vector, bundle_sha256: str) -> Submission:
    """The submission of a compiled plan."""
    return Submission(
        words=canonical.dumps(job_to_words(plan.job)),
        facts=canonical.dumps(plan.task),
        plan_digest=plan.digest,
        bundle_sha256=bundle_sha256,
        initial_sha256=sha256(params),
    )


def accept(submission: Submission, blobs: Blobs, now: float) -> tuple[JobRow, Plan]:
    """Compiles a submission and checks everything that it names.

    Raises:
      PlanRefused: the job's parts do not fit.
      DigestMismatch: the sender compiled another plan.
      HansaError: a blob is missing or is not what the plan says.
    """
    plan = compile_words(submission.words, submission.facts)
    if plan.digest != submission.plan_digest:
        raise DigestMismatch(
            "the coordinator compiled another plan from this job than the sender",
            fix="submit with the coordinator's version of Hansa",
        )
    params = blobs.array(submission.initial_sha256, np.dtype("<f4"))
    if params.shape != (plan.task.schema.size,) or not np.isfinite(params).all():
        raise Refused(
            f"the initial parameters are not {plan.task.schema.size:,} finite numbers",
            fix="submit with the task's own initial parameters",
        )
    if submission.bundle_sha256:
        blobs.get(submission.bundle_sha256)
    row = JobRow(
        id=f"{plan.job.name}-{secrets.token_hex(4)}",
        name=plan.job.name,
        created=now,
        status="submitted",
        words_json=submission.words,
        facts_json=submission.facts,
        plan_digest=plan.digest,
        bundle_sha256=submission.bundle_sha256,
        initial_sha256=submission.initial_sha256,
        reason="",
    )
    return row, plan


def plan_of(row: JobRow) -> Plan:
    """The plan of a stored job.

    Raises:
      DigestMismatch: this version of Hansa compiles another plan than the one that was approved.
    """
    plan = compile_words(row.words_json, row.facts_json)
    if plan.digest != row.plan_digest:
        raise DigestMismatch(
            f"this version of Hansa compiles another plan from job '{row.id}'",
            fix="finish the job with the version that it was submitted to, or submit it again",
        )
    return plan


def compile_words(words: str, facts: str) -> Plan:
    """The plan of a job and a task in canonical JSON.

    Raises:
      HansaError: the JSON is none, or the job is refused.
    """
    job, task = read_words(words), read_facts(facts)
    return compile_plan(job, task)


def read_words(words: str) -> Job:
    """A job from canonical JSON."""
    return job_from_words(_object(words, "the job"))


def read_facts(facts: str) -> TaskFacts:
    """The facts of a task from canonical JSON."""
    return facts_of_json(_object(facts, "the facts of the task"))


def _object(text: str, what: str) -> dict[str, canonical.Json]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise HansaError(f"{what} is no JSON", fix="send canonical JSON") from error
    if not isinstance(value, dict):
        raise HansaError(f"{what} is no JSON object", fix="send canonical JSON")
    return value
