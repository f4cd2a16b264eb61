"""Handing in a job: what a scientist's machine sends, and how both sides read it.

A submission is the job's words, the facts of its task, the bundle of task code and the initial
parameters. Words and facts are canonical JSON; whoever gets them compiles the plan again and
compares the digest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hansa.core import canonical
from hansa.core.job import Job, TaskFacts, facts_of_json
from hansa.core.plan import Plan
from hansa.core.vector import sha256
from hansa.errors import HansaError
from hansa.jobfile import job_from_words, job_to_words
from hansa.recipes import compile_plan
from hansa.remote import Remote
from hansa.work.bundle import facts_of, load_task, pack
from hansa.work.signature import sign_bundle


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it is sent; the bundle and the parameters are sent apart, as blobs.

    Attributes:
      words: the job in canonical JSON.
      facts: the facts of the task in canonical JSON.
      plan_digest: the plan that the sender compiled.
      bundle_sha256: the task's code, as a bundle's bytes.
      initial_sha256: the initial parameters, little-endian float32.
      bundle_signature: who signed the bundle, and how; empty if nobody did.
    """

    words: str
    facts: str
    plan_digest: str
    bundle_sha256: str
    initial_sha256: str
    bundle_signature: str = ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that the coordinator took.

    Attributes:
      job: its identifier there.
      plan: the plan as this machine compiled it.
    """

    job: str
    plan: Plan


def submit(job: Job, remote: Remote, signing_key: Path | None = None) -> Submitted:
    """Builds the task's model once, compiles the plan, and hands everything in.

    Args:
      job: what to run.
      remote: the coordinator.
      signing_key: file with a key to sign the task's bundle with.

    Raises:
      PlanRefused: the job's parts do not fit; nothing was sent.
      HansaError: the task cannot be loaded, or the coordinator refused.
    """
    task = load_task(job)
    plan = compile_plan(job, facts_of(job, task))
    bundle = pack(job).to_bytes()
    params = task.initial(job.seed).astype("<f4", copy=False)
    code, initial = hashlib.sha256(bundle).hexdigest(), sha256(params)
    remote.put_blob(code, bundle)
    remote.put_blob(initial, params.data.cast("B"))
    submission = Submission(
        words=canonical.dumps(job_to_words(plan.job)),
        facts=canonical.dumps(plan.task),
        plan_digest=plan.digest,
        bundle_sha256=code,
        initial_sha256=initial,
        bundle_signature=sign_bundle(plan.task.digest, signing_key) if signing_key else "",
    )
    return Submitted(str(remote.submit(asdict(submission))["job"]), plan)


def compile_submitted(words: str, facts: str) -> Plan:
    """The plan of a job and a task that came as canonical JSON.

    Raises:
      HansaError: the JSON is none, or the job is refused.
    """
    return compile_plan(read_words(words), read_facts(facts))


def read_words(words: str) -> Job:
    """A job from canonical JSON."""
    return job_from_words(_object(words, "the job"))


def read_facts(facts: str) -> TaskFacts:
    """The facts of a task from canonical JSON."""
    return facts_of_json(_object(facts, "the facts of the task"))


def _object(text: str, what: str) -> dict[str, canonical.Json]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HansaError(f"{what} is no JSON", fix="send canonical JSON") from error
    if not isinstance(value, dict):
        raise HansaError(f"{what} is no JSON object", fix="send canonical JSON")
    return value
