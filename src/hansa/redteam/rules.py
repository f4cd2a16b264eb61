"""A job under another rule, and the rule of a plan as a function, for attacks that adapt to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args, get_type_hints

import numpy as np

from hansa.aggregators.agnostic import Agnostic
from hansa.aggregators.linear import Mean
from hansa.aggregators.robust import FLTrust
from hansa.aggregators.robust.kept import KeepsRows
from hansa.assembly import BY_COORDINATE, adaptive, clip_of
from hansa.attacks.adaptive import Rule
from hansa.attacks.updates import Array
from hansa.core.job import Aggregation, Job
from hansa.core.plan import Plan
from hansa.core.spec import Domain, Reader
from hansa.errors import Refused
from hansa.jobfile.rules import COUNTING
from hansa.nearest import suggest

OWN = "own"
"""The job's own rule, with all of its own words."""

MEAN = "mean"
"""What every defence is compared with."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a rule is called in a job.

    Attributes:
      rule: of `aggregation.rule`.
      mixing: of `aggregation.mixing`.
    """

    rule: str
    mixing: str = "none"

    def __str__(self) -> str:
        return self.rule if self.mixing == "none" else f"{self.mixing}+{self.rule}"

    @classmethod
    def read(cls, text: str) -> Words:
        """From `dnc`, or `nearest+trimmed_mean` with what is mixed before it.

        Raises:
          Refused: there is no such rule.
        """
        mixing, plus, rule = text.rpartition("+")
        known, mixes = _choices("rule"), _choices("mixing")
        if rule not in known:
            raise Refused(f"there is no rule '{rule}'", fix=suggest(rule, known, "rules"))
        if plus and mixing not in mixes:
            raise Refused(
                f"nothing called '{mixing}' comes before a rule",
                fix=suggest(mixing, mixes, "words before a rule"),
            )
        return cls(rule, mixing or "none")


def words_of(job: Job) -> Words:
    """The rule that a job has."""
    return Words(job.aggregation.rule, job.aggregation.mixing)


def under(job: Job, words: Words, bad: float | None = None) -> Job:
    """The job under another rule; all else is as it was, but for what that rule excludes.

    Groups of masked sums are for rules by coordinate, and a standing for rules that keep updates.

    Args:
      job: the job.
      words: the rule.
      bad: share that the rule is told may be bad; the job's own if it is left out.
    """
    own = job.aggregation
    told = own.bad if bad is None else bad
    counts = words.rule in COUNTING or words.mixing == "nearest"
    changed: dict[str, Any] = {
        "rule": words.rule,
        "mixing": words.mixing,
        "bad": told if counts else Aggregation().bad,
        "trim": told if words.rule == "trimmed_mean" else Aggregation().trim,
        "tail": own.tail if words.rule == "agnostic" else Aggregation().tail,
        "fairness": own.fairness if words.rule == "mean" else 0.0,
        "trusted": own.trusted if words.rule == "fltrust" else "",
    }
    masks, defend = job.secure_aggregation, job.defend
    if words.rule not in BY_COORDINATE or words.mixing != "none":
        masks = replace(masks, groups=0)
    if words.rule in ("mean", "agnostic"):
        defend = replace(defend, standing=False)
    return replace(
        job,
        aggregation=replace(own, **changed),
        secure_aggregation=masks,
        defend=defend,
    )


def rule_of(plan: Plan) -> Rule | None:
    """What a plan's aggregator makes of (n, d) updates, each once: what an adaptive attack knows.

    Updates are cut to the norm bound first, as the clients' own clip and the check of it do.
    Where a mean weighs clients by their examples, the attack takes them for equal. None where
    updates are not looked at one by one: under masks, quantized, in groups, beside a trusted one,
    by their losses, or with a norm bound that adapts.
    """
    delta, aggregator = plan.facts["delta"], plan.parts.aggregator
    if delta.reader is not Reader.EACH or delta.domain is not Domain.REAL or adaptive(plan.job):
        return None
    clip = clip_of(plan.job)
    if isinstance(aggregator, Mean):
        return lambda rows: _cut(rows, clip).mean(axis=0, dtype=np.float64)
    if not isinstance(aggregator, KeepsRows) or isinstance(aggregator, (FLTrust, Agnostic)):
        return None

    def centre(rows: Array) -> Array:
        named = [(f"{number:09d}", row) for number, row in enumerate(_cut(rows, clip))]
        found = np.zeros(rows.shape[1], np.float64)
        aggregator.fill(found, named, 1.0)
        return found

    return centre


def _cut(rows: Array, clip: float) -> Array:
    """A float32 copy whose rows are no longer than the bound; 0: no bound."""
    copied = np.array(rows, np.float32)
    if not clip:
        return copied
    norms = np.linalg.norm(copied.astype(np.float64), axis=1)
    factors = np.minimum(1.0, clip / np.maximum(norms, 1e-300))
    copied *= factors[:, np.newaxis]
    return copied


def _choices(word: str) -> tuple[str, ...]:
    """The words that `[aggregation]` knows for a key."""
    return tuple(get_args(get_type_hints(Aggregation)[word]))
