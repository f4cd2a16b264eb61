"""A site's jobs: offers become accepted jobs with their task and data loaded and warm.

    offer ──► compile it ourselves ──► same digest? ──► bundle is what the plan names?
                                                               │
      accepted, task and data warm ◄── load ◄── policy says yes ◄──┘

Nothing of a bundle is imported, and no data are touched, before the policy has said yes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from hansa.core.contribute import Contribution, Purpose, RoundTask, contribute
from hansa.core.keys import NoiseSource, ReplayKey
from hansa.core.parts import Site, Split, Task
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.errors import ClientFailed, DigestMismatch, HansaError, PolicyRefused
from hansa.site.config import SiteConfig
from hansa.site.policy import Candidate, check_examples, judge, may_work_now
from hansa.site.spending import Spending
from hansa.submission import compile_submitted
from hansa.work.bundle import load_bundled_task
from hansa.work.container import parse, write
from hansa.work.per_example import refuse_what_mixes
from hansa.work.signature import signer_of


@dataclass(frozen=True, slots=True)
class Offer:
    """A job as the coordinator offers it.

    Attributes:
      job: identifier of the job.
      words: the job, canonical JSON.
      facts: the facts of its task, canonical JSON.
      plan_digest: the plan that the coordinator compiled.
      bundle: the task's code, as a bundle's bytes.
      signature: who signed the bundle, and how; empty if nobody did.
    """

    job: str
    words: str
    facts: str
    plan_digest: str
    bundle: bytes
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that this site takes part in, ready to work.

    Attributes:
      job: identifier of the job.
      plan: the plan as this site compiled it.
      task: the task's code, loaded.
      split: this site's data for it.
    """

    job: str
    plan: Plan
    task: Task
    split: Split


def accept(
    offer: Offer, site: str, federation: str, config: SiteConfig, spending: Spending
) -> Accepted:
    """Judges an offer and gets ready for its work.

    Raises:
      DigestMismatch: this site compiles another plan, or the bundle is not the plan's.
      PolicyRefused: the site's policy says no.
      IdentityError: the bundle's signature is not good.
      ClientFailed: the task cannot be loaded or cannot read this site's data.
      HansaError: the offer cannot be read, the plan is refused, or is not for so few examples.
    """
    plan = compile_submitted(offer.words, offer.facts)
    if plan.digest != offer.plan_digest:
        raise DigestMismatch(
            f"this site compiles plan {plan.digest[:16]} from the job, the coordinator "
            f"{offer.plan_digest[:16]!r}",
            fix="run the same version of Hansa on both sides; if they are, trust neither",
        )
    bundle = parse(offer.bundle)
    if bundle.digest != plan.task.digest:
        raise DigestMismatch(
            f"the task's code has digest {bundle.digest[:16]}, the plan names "
            f"{plan.task.digest[:16]}",
            fix="let the coordinator's administrator find out who changed the bundle",
        )
    signer = signer_of(offer.signature, bundle.digest)
    judge(config.policy, config.secure_aggregation, Candidate(federation, plan, signer))
    folder = config.folder / "bundles" / bundle.digest[:32]
    write(bundle, folder)
    task = load_bundled_task(folder, plan.job.task)
    _check_task(plan, task)
    split = _read_data(task, site, config)
    check_examples(config.policy.min_examples, plan, task, len(split.train))
    spending.admit(plan, len(split.train), offer.job)
    return Accepted(offer.job, plan, task, split)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the coordinator asks for in one round.

    Attributes:
      purpose: training or measuring.
      round: its number.
      attempt: of the try.
      params: (d,) float32 parameters to start from.
      model: SHA-256 of `params`.
      clip: norm bound of the round, where it adapts.
    """

    purpose: Purpose
    round: int
    attempt: int
    params: Vector = field(repr=False)
    model: str
    clip: float | None = None


def work(
    accepted: Accepted, site: str, asked: Asked, contribution: Contribution = contribute
) -> Vector:
    """Does the work of one round; returns the encoded update.

    Raises:
      ClientFailed: the task raised on this site's data; the cause is chained.
      PolicyRefused: a measurement is asked for, and the plan measures nothing.
    """
    if asked.purpose is Purpose.EVALUATE and not accepted.plan.measures:
        raise PolicyRefused(
            "the coordinator asks for a measurement, and by the plan no metrics leave the sites",
            fix="find out why the coordinator does not keep to the plan that it agreed on",
        )
    task = RoundTask(
        accepted.plan,
        asked.round,
        asked.attempt,
        asked.purpose,
        asked.params,
        asked.model,
        ReplayKey.of_seed(accepted.plan.job.seed),
        asked.clip,
    )
    try:
        return contribution(task, site, accepted.task, accepted.split, NoiseSource()).vector
    except HansaError:
        raise
    except Exception as error:
        raise ClientFailed(
            f"the task raised {type(error).__name__} in round {asked.round}",
            fix="see this site's log; run the task alone with `hansa simulate --debug-clients`",
        ) from error


def check_hours(config: SiteConfig, now: datetime) -> None:
    """Raises PolicyRefused outside of the hours in which this site works."""
    if not may_work_now(config.policy, now):
        raise PolicyRefused(
            f"it is {now:%H:%M} here, outside of policy.hours = '{config.policy.hours}'",
            fix="wait, or let the site's owner change the hours",
        )


def _check_task(plan: Plan, task: Task) -> None:
    if plan.job.privacy.unit == "example":
        refuse_what_mixes(task)
    if task.schema != plan.task.schema or tuple(task.metrics) != plan.task.metrics:
        raise DigestMismatch(
            "the task's model or metrics are not those of the plan",
            fix="submit the job again from the task as it is now",
        )


def _read_data(task: Task, site: str, config: SiteConfig) -> Split:
    try:
        return task.data(Site(site, {**config.data, "folder": str(config.folder)}))
    except HansaError:
        raise
    except Exception as error:
        raise ClientFailed(
            f"the task could not read this site's data ({type(error).__name__})",
            fix="see this site's log, and check [data] in site.toml",
        ) from error
