"""The differential-privacy statement: what a guarantee must say to mean something, as data.

After NIST SP 800-226, "Guidelines for Evaluating Differential Privacy Guarantees" (2025): unit of
privacy, privacy parameters, mechanism, trust model, what is and is not covered, and the hazards of
the implementation. An epsilon without these says nothing.

    Plan ──► statement_of ──► Statement ──► JSON | text | Markdown | HTML
               ▲
    Spent, AuditReport: what is known of a run and of an audit, "none yet" before there is one

Everything is derived from the plan and from what its parts say of themselves; nothing is typed by
hand. What a part does not say is stated as not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from typing import Any

from hansa.core import events
from hansa.core.canonical import Json
from hansa.core.claims import sampling_words
from hansa.core.events import Event
from hansa.core.parts import Correlated
from hansa.core.plan import Plan
from hansa.errors import HansaError
from hansa.privacy import statement_facts as facts
from hansa.privacy.accountants import best_accountant
from hansa.privacy.audit_report import AuditReport
from hansa.privacy.statement_audit import NO_AUDIT, REFUTED, Audited, audit_words, audited_of

FORMAT = 1
"""Version of the JSON; a reader of another version refuses."""

NO_LEDGER = "none yet: nothing has run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the ledger of one run holds.

    Attributes:
      run: identifier of the run.
      charges: the event of every charge that was set aside, whether its release was seen or not.
      rounds: training rounds that changed the model.
      measurements: measurements that were released apart from training rounds.
      head: hash of the ledger's last entry; empty if it has none.
      entries: how many entries the ledger has.
      final: whether the run has ended.
    """

    run: str
    charges: tuple[Event, ...]
    rounds: int
    measurements: int = 0
    head: str = ""
    entries: int = 0
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What one run released, and what that cost; upper bounds.

    Attributes:
      run: identifier of the run.
      final: whether the run has ended.
      rounds: training rounds that changed the model.
      measurements: measurements apart from them.
      charges: charges that cost privacy, void rounds included.
      declared: charges that the plan's epsilon covers.
      epsilon: of all charges at the plan's delta; None where there is no guarantee, or no
        accountant knows what was charged.
      ledger_entries: entries of the ledger.
      ledger_head: hash of the last one.
    """

    run: str
    final: bool
    rounds: int
    measurements: int
    charges: int
    declared: int
    epsilon: float | None
    ledger_entries: int
    ledger_head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """All that must be said with an epsilon.

    Attributes:
      format: version of this record.
      hansa: version of Hansa that made it.
      job: the job's name.
      plan_digest: SHA-256 over all that sites approve.
      private: whether there is a guarantee at all.
      unit: whose data are hidden.
      relation: the two datasets that are compared.
      epsilon: of the whole job; None without a guarantee.
      delta: probability with which epsilon may not hold; None without a guarantee.
      accountant: method and version.
      sampling: as it is implemented.
      rounds: releases that epsilon covers.
      mechanism: in its own words.
      noise_sampler: how samples are computed.
      noise_entropy: where random bits come from.
      noise_grid: step of the grid in model units; None if there is none or it is not known.
      noise_exact: whether samples have exactly the distribution that is counted; None: not known.
      trust_model: central, distributed, local, example, none or unknown.
      adds_noise: who adds the noise.
      sees_before: who sees what before the noise.
      scope: what the guarantee covers, and what it does not, sentence by sentence.
      hazards: what else a reader must know.
      released: what a run has released; None before one.
      audit: what an audit found, in words.
      audited: the same in figures; None without one.
    """

    format: int
    hansa: str
    job: str
    plan_digest: str
    private: bool
    unit: str
    relation: str
    epsilon: float | None
    delta: float | None
    accountant: str
    sampling: str
    rounds: int
    mechanism: str
    noise_sampler: str
    noise_entropy: str
    noise_grid: float | None
    noise_exact: bool | None
    trust_model: str
    adds_noise: str
    sees_before: str
    scope: tuple[str, ...]
    hazards: tuple[str, ...]
    released: Released | None
    audit: str
    audited: Audited | None

    @property
    def sentence(self) -> str:
        """The guarantee in one sentence, as it may be quoted."""
        if self.epsilon is None or self.delta is None:
            return "No differential privacy: the model itself may reveal training data."
        return (
            f"epsilon {self.epsilon:.4g} at delta {self.delta:g}; unit: {self.unit}; relation: "
            f"{self.relation}; sampling: {self.sampling}; accountant: {self.accountant}; "
            f"trust model: {self.trust_model}"
        )

    def to_json(self) -> dict[str, Json]:
        """As plain JSON; see docs/dp-statement.md."""
        return dict(asdict(self), scope=list(self.scope), hazards=list(self.hazards))


def statement_of(
    plan: Plan, *, ledger: Spent | None = None, audit: AuditReport | None = None
) -> Statement:
    """The statement of a plan, and of a run of it.

    Args:
      plan: what was proved.
      ledger: what a run has charged so far, if there is one.
      audit: what an audit of it found, if there was one.

    Raises:
      HansaError: the accountants do not confirm the plan's epsilon.
    """
    private = plan.private and math.isfinite(plan.epsilon)
    made, trust = facts.generation_of(plan), facts.trust_of(plan)
    statement = Statement(
        format=FORMAT,
        hansa=version("hansa"),
        job=plan.job.name,
        plan_digest=plan.digest,
        private=private,
        unit=facts.unit_of(plan) if private else "none: nothing is promised",
        relation=plan.relation.value if private else "none: nothing is promised",
        epsilon=plan.epsilon if private else None,
        delta=plan.job.privacy.delta if private else None,
        accountant=_accountant(plan) if private else "none: nothing is counted",
        sampling=sampling_words(plan.parts, plan.facts),
        rounds=plan.charges if private else plan.job.rounds.count,
        mechanism=str(plan.parts.mechanism),
        noise_sampler=made.sampler if private else facts.NO_NOISE,
        noise_entropy=facts.entropy_of(plan) if private else facts.NO_NOISE,
        noise_grid=(made.grid or None) if private else None,
        noise_exact=made.exact if private else None,
        trust_model=trust.model,
        adds_noise=trust.adds,
        sees_before=trust.sees,
        scope=facts.scope_of(plan),
        hazards=facts.hazards_of(plan, made.exact),
        released=None if ledger is None else _released(plan, ledger, private=private),
        audit=NO_AUDIT,
        audited=None,
    )
    return statement if audit is None else with_audit(statement, audit)


def with_audit(statement: Statement, report: AuditReport) -> Statement:
    """The statement with an audit's result; one that refutes the claim is its first hazard.

    Raises:
      Refused: the audit is of another plan, or it could not see.
    """
    found = audited_of(report, statement.plan_digest, statement.epsilon, statement.delta)
    hazards = tuple(hazard for hazard in statement.hazards if hazard != REFUTED)
    return replace(
        statement,
        audit=audit_words(found, statement.hansa),
        audited=found,
        hazards=(REFUTED, *hazards) if found.refuted else hazards,
    )


def of_json(value: Mapping[str, Any]) -> Statement:
    """Reads a statement back from JSON.

    Raises:
      HansaError: it is none, or one of another version.
    """
    if value.get("format") != FORMAT:
        raise HansaError(
            f"this is no privacy statement of format {FORMAT}",
            fix="read it with the version of Hansa that it names",
        )
    names = {f.name for f in fields(Statement)}
    if names != value.keys():
        raise HansaError(
            f"the privacy statement lacks or adds {sorted(names ^ value.keys())}",
            fix="ask for the statement again",
        )
    released, audited = value["released"], value["audited"]
    told = dict(value, scope=tuple(value["scope"]), hazards=tuple(value["hazards"]))
    told["released"] = None if released is None else Released(**released)
    told["audited"] = None if audited is None else Audited(**audited)
    if audited is not None and audited["plan_digest"] != value["plan_digest"]:
        raise HansaError(
            "the privacy statement shows an audit of another plan",
            fix="ask for the statement again",
        )
    return Statement(**told)


def _accountant(plan: Plan) -> str:
    """Who counted, by counting again."""
    accountant = best_accountant(plan.event, plan.relation)
    again = accountant.epsilon(plan.event, plan.job.privacy.delta, plan.relation)
    promised = (
        plan.job.privacy.unit == "example" and again < plan.epsilon <= plan.job.privacy.epsilon
    )
    if not promised and not math.isclose(again, plan.epsilon, rel_tol=1e-6):
        raise HansaError(
            f"{accountant.name} counts {again:.6g} where the plan says {plan.epsilon:.6g}",
            fix="compile the job again with this version of Hansa",
        )
    return accountant.name


def _released(plan: Plan, spent: Spent, *, private: bool) -> Released:
    costly = [e for e in spent.charges if not isinstance(e, events.NoOp)]
    return Released(
        run=spent.run,
        final=spent.final,
        rounds=spent.rounds,
        measurements=spent.measurements,
        charges=len(costly),
        declared=plan.charges,
        epsilon=_cost(plan, costly) if private else None,
        ledger_entries=spent.entries,
        ledger_head=spent.head or "none yet: nothing was charged",
    )


def _cost(plan: Plan, charges: Sequence[Event]) -> float | None:
    """Epsilon of all charges together at the plan's delta; None if nobody can count it."""
    if not charges:
        return 0.0
    mechanism = plan.parts.mechanism
    if isinstance(mechanism, Correlated) and not mechanism.orthogonal:  # counted only as a whole
        return plan.epsilon if len(charges) <= plan.charges else None
    counts = {event: charges.count(event) for event in dict.fromkeys(charges)}
    event = events.compose(*(events.repeat(e, n) for e, n in counts.items()))
    try:
        accountant = best_accountant(event, plan.relation)
        found = accountant.epsilon(event, plan.job.privacy.delta, plan.relation)
    except HansaError:
        return None
    return found if math.isfinite(found) else None
