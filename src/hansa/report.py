"""Plans and errors as people and scripts read them: plain words and plain JSON, no layout."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from hansa.core import canonical
from hansa.core.canonical import Json
from hansa.core.plan import Plan, Step
from hansa.core.spec import Domain, UpdateSpec
from hansa.errors import HansaError, JobError, JobRefused, PlanError, PlanRefused
from hansa.privacy.advice import advice_on
from hansa.privacy.audit_report import AuditReport
from hansa.privacy.statement import statement_of


@dataclass(frozen=True, slots=True)
class Problem:
    """One error.

    Attributes:
      part: what it is about: a part of the plan, or file and line; empty if it is about the whole.
      because: what is wrong.
      fix: what to do.
    """

    part: str
    because: str
    fix: str


def problems(error: Exception) -> tuple[Problem, ...]:
    """The reasons that an error holds, each apart."""
    match error:
        case JobRefused() | PlanRefused():
            return tuple(problem for inner in error.errors for problem in problems(inner))
        case PlanError():
            return (Problem(error.part, error.because, error.fix),)
        case JobError():
            place = f"{error.file}:{error.line}" if error.line else error.file
            return (Problem(place, error.message, error.fix),)
        case HansaError():
            return (Problem("", error.message, error.fix),)
        case _:
            return (
                Problem(
                    "",
                    f"Hansa itself failed: {type(error).__name__}: {error}",
                    "run the command again with --debug and report what it shows",
                ),
            )


def plan_json(plan: Plan, audit: AuditReport | None = None) -> dict[str, Json]:
    """A plan as one JSON object; `epsilon` and `delta` are null without differential privacy.

    Raises:
      Refused: the audit is of another plan, or it could not see.
    """
    advice = advice_on(plan)
    return {
        "job": plan.job.name,
        "digest": plan.digest,
        "task_digest": plan.task.digest,
        "trail": [{"part": step.part, "facts": canonical.plain(step.facts)} for step in plan.trail],
        "event": canonical.plain(plan.event),
        "relation": canonical.plain(plan.relation),
        "epsilon": plan.epsilon if math.isfinite(plan.epsilon) else None,
        "delta": plan.job.privacy.delta if math.isfinite(plan.epsilon) else None,
        "noise_multiplier": plan.job.privacy.noise_multiplier,
        "statement": statement_of(plan, audit=audit).to_json(),
        "advice": None if advice is None else advice.to_json(),
        "quorum": plan.quorum,
        "claims": list(plan.claims),
        "cost": canonical.plain(asdict(plan.cost)),
        "errors": [],
    }


def refusal_json(error: Exception) -> dict[str, Json]:
    """A refused plan as a JSON object with the keys of `plan_json`: all empty but `errors`."""
    return {
        "job": None,
        "digest": None,
        "task_digest": None,
        "trail": [],
        "event": None,
        "relation": None,
        "epsilon": None,
        "delta": None,
        "noise_multiplier": None,
        "statement": None,
        "advice": None,
        "quorum": None,
        "claims": [],
        "cost": None,
        "errors": [canonical.plain(asdict(problem)) for problem in problems(error)],
    }


def trail_words(trail: Sequence[Step]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each part of a trail, and what is known after it that was not known before.

    The last part is the mechanism: it changes no facts, but what leaves it is public.
    """
    before: Mapping[str, UpdateSpec] = {}
    for step in trail:
        told: dict[str, list[str]] = {}
        for name, spec in step.facts.items():
            words = ", ".join(_learned(before.get(name), spec)) if spec.size else ""
            if words:
                told.setdefault(words, []).append(name)
        lines = tuple(f"{', '.join(names)}: {words}" for words, names in told.items())
        last = step is trail[-1]
        yield part_words(step.part), lines or (("what leaves it is public",) if last else ())
        before = step.facts


def part_words(part: str) -> str:
    """A part without the spelling of Python: `Mean(divisor=fixed)`, and short numbers."""
    part = re.sub(r"<\w+\.(\w+): (?:'[^']*'|\"[^\"]*\")>", lambda m: m[1].lower(), part)
    return re.sub(r"\d+\.\d{6,}(?:e[+-]?\d+)?", lambda m: f"{float(m[0]):.4g}", part)


def size_words(count: int) -> str:
    """A number of bytes, in units of 1,000: `1.2 kB`."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.3g} {unit}"


def _learned(before: UpdateSpec | None, after: UpdateSpec) -> list[str]:
    """The facts of one segment that a part changed, in words."""
    if before is None:
        numbers = "1 number" if after.size == 1 else f"{after.size:,} numbers"
        return [numbers]
    words = []
    if after.weight != before.weight:
        words.append(f"a client counts for at most {after.weight:g}")
    if after.l2 != before.l2:
        words.append(f"norm at most {after.l2:.4g}")
    if after.held is not before.held:
        words.append(after.held.value)
    if after.domain is Domain.RING and before.domain is not Domain.RING:
        words.append(f"integers modulo 2**{after.bits} in steps of {after.quantum:.3g}")
    elif after.quantum != before.quantum:
        words.append(f"exact to {after.quantum:.3g}")
    if after.reader is not before.reader:
        words.append(after.reader.value)
    if after.noise != before.noise:
        words.append(f"each client adds noise of {after.noise:.3g}")
    if after.divisor is not before.divisor:
        words.append(f"divided by {after.divisor.value}")
    return words
