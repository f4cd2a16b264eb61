"""What an audit found, what follows from it, and its form as JSON.

It is apart from the attacks, so that whoever shows a result needs none of what makes one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from hansa.core.canonical import Json
from hansa.errors import Refused

LEAST_POWER = 5.0
"""An audit that shows no more than this epsilon where there is no noise cannot see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """An attack on a job's own plan, with noise and without.

    Attributes:
      job: its name.
      plan_digest: SHA-256 of the whole job's plan, all rounds of it: what the result is of.
      hansa: version of Hansa whose code was attacked.
      date: when the attack ended, UTC, ISO 8601.
      seed: of canaries and coins.
      mechanism: that was attacked, in its own words.
      unit: what a canary is: client or example.
      relation: the two datasets that are compared.
      sampling: how cohorts are drawn.
      accountant: that counted the claim; empty without one.
      rounds: that were attacked.
      rounds_of_job: that the job declares.
      delta: of the claim; 1e-5 where there is none.
      epsilon_of_job: what the plan claims for all rounds; inf without differential privacy.
      epsilon_claimed: what it claims for the attacked rounds, with the same noise.
      epsilon_lower_bound: what the attack shows (one-run bound); holds with the confidence.
      epsilon_lower_bound_noise_off: the same without noise, at `delta_noise_off`.
      epsilon_ceiling: what the bound would be if all guesses had been right.
      canaries: coins that the bound counts.
      guesses: of the rule that gave the bound.
      correct: right ones of them.
      confidence: of the bound.
      delta_noise_off: the smaller of delta and 1e-5: without noise nothing holds at any delta.
      canaries_seen: coins that were tossed; the second opinions use all of them.
      epsilon_gaussian_dp: second opinion that counts where `gaussian` is true; at 99.999 %.
      epsilon_clopper_pearson: second opinion, at the confidence.
      epsilon_two_gaussians: an estimate, no bound.
      gaussian: whether the claim is that of Gaussian noise without sampling, so that
        `epsilon_gaussian_dp` must not exceed it either.
      seconds: that the audit took.
    """

    job: str
    plan_digest: str
    hansa: str
    date: str
    seed: int
    mechanism: str
    unit: str
    relation: str
    sampling: str
    accountant: str
    rounds: int
    rounds_of_job: int
    delta: float
    epsilon_of_job: float
    epsilon_claimed: float
    epsilon_lower_bound: float
    epsilon_lower_bound_noise_off: float
    epsilon_ceiling: float
    canaries: int
    guesses: int
    correct: int
    confidence: float
    delta_noise_off: float
    canaries_seen: int
    epsilon_gaussian_dp: float
    epsilon_clopper_pearson: float
    epsilon_two_gaussians: float
    gaussian: bool
    seconds: float

    @property
    def sees(self) -> bool:
        """Whether the attack finds a leak where there is one."""
        return self.epsilon_lower_bound_noise_off > LEAST_POWER

    @property
    def exceeds(self) -> bool:
        """Whether the attack shows more than is claimed."""
        shown = [self.epsilon_lower_bound]
        if self.gaussian:
            shown.append(self.epsilon_gaussian_dp)
        return max(shown) > self.epsilon_claimed

    @property
    def passed(self) -> bool:
        """Whether the attack can see, and shows no more than is claimed."""
        return self.sees and not self.exceeds

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.exceeds:
            return (
                "FAILED: the attack shows more than the plan claims; something does not do what "
                "the plan says"
            )
        if not self.sees:
            return (
                "FAILED: the audit cannot see; without noise it shows "
                f"{self.epsilon_lower_bound_noise_off:.3g}, and it must show more than "
                f"{LEAST_POWER:g}"
            )
        if math.isinf(self.epsilon_claimed):
            return "PASSED: nothing is claimed, and this is what an attacker gets"
        return "PASSED: the attack sees, and shows no more than the plan claims"

    def json(self) -> dict[str, Json]:
        """All figures and the verdict as one JSON object; null where a number is infinite."""
        told: dict[str, Json] = {
            name: None if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(self).items()
        }
        return {**told, "passed": self.passed, "verdict": self.verdict}


def report_of_json(value: object) -> AuditReport:
    """Reads a result back; what follows from its figures must be what it says.

    Raises:
      Refused: it is no result of an audit, one of another version of Hansa, or it contradicts
        itself.
    """
    if not isinstance(value, Mapping):
        raise _no_result("it is no JSON object")
    names = {f.name for f in fields(AuditReport)}
    if value.keys() != names | {"passed", "verdict"}:
        wrong = sorted(map(str, value.keys() ^ (names | {"passed", "verdict"})))
        raise _no_result(f"it lacks or adds {', '.join(wrong)}")
    report = AuditReport(
        **{f.name: _figure(f.name, str(f.type), value) for f in fields(AuditReport)}
    )
    contradiction = _contradiction(report)
    if contradiction or report.json() != value:
        raise _no_result(contradiction or "its verdict does not follow from its figures")
    return report


def _figure(name: str, kind: str, value: Mapping[str, Any]) -> Any:
    found: Any = value[name]
    if kind == "float":
        if found is None:
            return math.inf
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            return float(found)
    elif type(found).__name__ == kind:
        return found
    raise _no_result(f"{name} is {found!r}")


def _contradiction(report: AuditReport) -> str:
    """What cannot be; empty if all can."""
    shown = (report.epsilon_lower_bound, report.epsilon_lower_bound_noise_off)
    try:
        when = datetime.fromisoformat(report.date)
    except ValueError:
        when = None
    rules = {
        "its date is none": when is not None and when.tzinfo is not None,
        "its rounds cannot be": 1 <= report.rounds <= report.rounds_of_job,
        "its canaries cannot be": 0 <= report.correct <= report.guesses <= report.canaries
        and 1 <= report.canaries <= report.canaries_seen,
        "its confidence is not between 0 and 1": 0 < report.confidence < 1,
        "its delta is not between 0 and 1": 0 < report.delta < 1,
        "its bounds cannot be": all(0 <= bound < math.inf for bound in shown)
        and report.epsilon_gaussian_dp >= 0,
        "a part claims more than the whole": 0
        <= report.epsilon_claimed
        <= report.epsilon_of_job * (1 + 1e-6),
    }
    return next((words for words, holds in rules.items() if not holds), "")


def _no_result(why: str) -> Refused:
    return Refused(
        f"this is no result of a privacy audit: {why}",
        fix="audit again with this version of Hansa: hansa audit privacy JOB --output FILE",
    )
