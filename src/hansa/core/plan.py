"""The plan check: a job is proved to fit by running its parts over facts instead of data.

    job words ──► parts ──► infer, part by part, segment by segment ──► facts at the gate
                                │ every reason why not is collected           │
                                ▼                                             ▼
                          PlanRefused                 Plan: trail, event, claims, cost, digest

The number that passes the check is the number that calibrates the noise: the mechanism is handed
the same `UpdateSpec` at plan time and at run time. Engines accept nothing but a `Plan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa.core import canonical, checks, events
from hansa.core.claims import claims_of
from hansa.core.events import Event
from hansa.core.job import Job, TaskFacts
from hansa.core.metrics import Floats, values
from hansa.core.parts import (
    Accountant,
    Adapts,
    Aggregator,
    ClientSampler,
    ClientWork,
    Correlated,
    Facts,
    Mechanism,
    Parts,
    Protects,
    Relation,
    Stage,
)
from hansa.core.spec import Domain, UpdateSpec
from hansa.core.vector import Layout
from hansa.errors import PlanError, PlanRefused

FORMAT = 8
"""Version of what a digest covers. Sites of different formats cannot agree and say so."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round costs, predicted.

    Attributes:
      down_bytes: from the coordinator to each client.
      up_bytes: from each client to the coordinator.
      coordinator_bytes: memory that the coordinator needs above its idle size.
    """

    down_bytes: int
    up_bytes: int
    coordinator_bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the trail: a part, and the facts of each segment after it."""

    part: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Plan:
    """A job whose parts were proved to fit.

    Attributes:
      job: the job, with every number filled in.
      task: what is known of the task.
      parts: the parts that run.
      layout: segments of a training update.
      facts: facts of each segment of what the mechanism is given.
      quorum: fewest updates that make a round.
      trail: the proof, part by part.
      round_event: what one training round reveals.
      event: what the whole job reveals.
      relation: the two datasets that the event compares.
      epsilon: of the whole job at `job.privacy.delta`; inf without differential privacy. Where each
        client has a noise of its own, no client's is larger.
      claims: what holds, in plain words.
      cost: what a round costs.
      digest: SHA-256 over all that sites approve.
    """

    job: Job
    task: TaskFacts
    parts: Parts
    layout: Layout
    facts: Facts
    quorum: int
    trail: tuple[Step, ...]
    round_event: Event
    event: Event
    relation: Relation
    epsilon: float
    claims: tuple[str, ...]
    cost: Cost
    digest: str = field(default="")

    def charge(self, number: int) -> Event:
        """What release number `number`, from 0, adds to what the releases before it revealed.

        Nothing if nobody can have taken part once more often than before. Noise that is shared by
        all rounds of a client is counted as a whole only, so the whole is spent with the first.
        """
        mechanism = self.parts.mechanism
        if isinstance(mechanism, Correlated) and not mechanism.orthogonal:
            return self.event if number == 0 else events.NoOp()
        often = self.parts.sampler.participations
        return self.round_event if often(number + 1) > often(number) else events.NoOp()

    @property
    def private(self) -> bool:
        """Whether what is released carries a differential-privacy guarantee."""
        return events.is_private(self.event)

    @property
    def charges(self) -> int:
        """How many releases that cost privacy the job declares: what its own budget covers."""
        return self.parts.sampler.participations(releases(self.job))

    @property
    def adapts(self) -> Adapts | None:
        """The stage whose norm bound adapts, if there is one."""
        return self.parts.adapts

    @property
    def measures(self) -> bool:
        """Whether metric sums leave the clients."""
        return self.facts["metrics"].size > 0

    def metric_values(self, sums: Floats) -> dict[str, float | None]:
        """Values of the training loss and of the task's metrics from added-up sums."""
        if not len(sums):
            return {}
        train_loss = float(sums[0] / sums[1]) if sums[1] > 0 else None
        return {"train_loss": train_loss, **values(self.task.metrics, sums[2:])}


def check(
    job: Job,
    parts: Parts,
    task: TaskFacts,
    accountant: Accountant,
    extra: Sequence[PlanError] = (),
) -> Plan:
    """Proves that the parts fit, or says everything that is wrong.

    Args:
      job: the job, with every number filled in.
      parts: the parts that its words stand for.
      task: what is known of the task.
      accountant: what epsilon is counted with.
      extra: what was found wrong before, to be told together with the rest.

    Raises:
      PlanRefused: holds one `PlanError` per reason.
    """
    errors = list(extra)
    sampler, mechanism = parts.sampler, parts.mechanism
    with_metrics = not _noisy(mechanism) or job.privacy.metrics_clip > 0
    layout = task.layout(with_metrics=with_metrics, with_within=parts.adapts is not None)
    quorum = quorum_of(job, sampler)
    _try(errors, sampler.check)
    errors += checks.order(parts.stages)
    errors += checks.numbers(job, sampler.cap, quorum)
    errors += checks.metrics(job, task, with_metrics=with_metrics)
    errors += checks.rollback(job, task, with_metrics=with_metrics)

    groups = job.secure_aggregation.groups or 1
    together, fewest = max(-(-sampler.cap // groups), 1), quorum // groups
    facts: dict[str, UpdateSpec] = {
        s.name: UpdateSpec(
            segment=s.name,
            size=s.size,
            cohort=together,
            quorum=fewest,
            reveals=_revealed(parts.algorithm.work, s.name),
        )
        for s in layout.segments
    }
    trail = [Step(repr(parts.algorithm.work), dict(facts))]
    inferring: tuple[Stage | Aggregator, ...] = (*parts.stages, parts.aggregator)
    for part in inferring:
        for name, spec in facts.items():
            facts[name] = _infer(errors, part, spec)
        trail.append(Step(repr(part), dict(facts)))

    round_event = _amplified(errors, parts, _release(errors, mechanism, facts))
    trail.append(Step(repr(mechanism), dict(facts)))
    event = whole_job(job, sampler, round_event)
    epsilon = _epsilon(errors, job, event, parts, accountant)
    if errors:
        raise PlanRefused(_distinct(errors))

    counted_by = accountant.name if math.isfinite(epsilon) else ""
    return _sealed(
        Plan(
            job=job,
            task=task,
            parts=parts,
            layout=layout,
            facts=facts,
            quorum=quorum,
            trail=tuple(trail),
            round_event=round_event,
            event=event,
            relation=sampler.relation,
            epsilon=epsilon,
            claims=claims_of(job, parts, facts, quorum, event, epsilon, counted_by),
            cost=_cost(task, layout, facts, parts.aggregator, groups),
        )
    )


def quorum_of(job: Job, sampler: ClientSampler) -> int:
    """Fewest updates that make a round: what the job says, or more than half of the expected.

    A buffer is full or it is none.
    """
    if job.cohort.sampler == "arrival":
        return job.rounds.quorum or sampler.cap
    return job.rounds.quorum or int(sampler.expected // 2) + 1


def releases(job: Job) -> int:
    """Rounds, and one more for the last measurement where metrics are released with noise."""
    return job.rounds.count + (1 if job.privacy.metrics_clip > 0 else 0)


def whole_job(job: Job, sampler: ClientSampler, round_event: Event) -> Event:
    """What all releases of a job reveal together, to a client that took part as often as it can.

    Charging the last measurement like a whole round is an upper bound: its cohort is drawn in
    the same way, and it releases the metrics and no delta.
    """
    return events.repeat(round_event, sampler.participations(releases(job)))


def _noisy(mechanism: Mechanism) -> bool:
    probe = UpdateSpec(size=1, cohort=1, l2=1.0, peak=1.0, weight=1.0)
    try:
        return events.is_private(mechanism.infer(probe))
    except PlanError:
        return True


def _revealed(work: ClientWork[Any], segment: str) -> Event | None:
    """What a client's work says that its delta tells of one example."""
    return work.reveals if segment == "delta" and isinstance(work, Protects) else None


def _infer(errors: list[PlanError], part: Stage | Aggregator, spec: UpdateSpec) -> UpdateSpec:
    try:
        return part.infer(spec)
    except PlanError as error:
        errors.append(error)
        return spec


def _try(errors: list[PlanError], check: Callable[[], None]) -> None:
    try:
        check()
    except PlanError as error:
        errors.append(error)


def _amplified(errors: list[PlanError], parts: Parts, event: Event) -> Event:
    sampler, mechanism = parts.sampler, parts.mechanism
    try:
        amplified = sampler.amplify(event)
        if amplified != event and isinstance(mechanism, Correlated) and not mechanism.orthogonal:
            raise PlanError(
                mechanism,
                "its noise is shared by all rounds of a client, so that sampling amplifies nothing",
                'set cohort.sampler = "everyone", or "cyclic" with privacy.matrix = "banded"',
            )
    except PlanError as error:
        errors.append(error)
        return events.NonPrivate()
    return amplified


def _release(errors: list[PlanError], mechanism: Mechanism, facts: Facts) -> Event:
    revealed: list[Event] = []
    for spec in facts.values():
        try:
            revealed.append(mechanism.infer(spec))
        except PlanError as error:
            errors.append(error)
    return events.compose(*revealed)


def _epsilon(
    errors: list[PlanError], job: Job, event: Event, parts: Parts, accountant: Accountant
) -> float:
    relation = parts.sampler.relation
    if not events.is_private(event) or isinstance(event, events.NoOp):
        return math.inf
    if parts.mechanism.relation is not relation:
        errors.append(
            PlanError(
                parts.mechanism,
                f"its noise is scaled for '{parts.mechanism.relation.value}', but the sampler's "
                f"amplification holds for '{relation.value}'",
                "scale the noise for the sampler's relation",
            )
        )
        return math.inf
    reason = accountant.unsupported(event, relation)
    if reason is not None:
        errors.append(
            PlanError(
                accountant.name, f"cannot account for this job: {reason}", "use another sampler"
            )
        )
        return math.inf
    if errors or not 0 < job.privacy.delta < 1:
        return math.inf  # nothing is promised, and impossible numbers cannot be counted with
    epsilon = accountant.epsilon(event, job.privacy.delta, relation)
    if job.privacy.epsilon and epsilon > job.privacy.epsilon * (1 + 1e-6):
        errors.append(
            PlanError(
                parts.mechanism,
                f"this noise gives epsilon {epsilon:.4g} at delta {job.privacy.delta:g} (unit: one "
                f"{job.privacy.unit}), the job promises {job.privacy.epsilon:g}",
                "leave privacy.noise_multiplier out, so that it is found from epsilon",
            )
        )
    # Clients with more examples have noise of their own, made for the promise: it is what holds.
    return max(epsilon, job.privacy.epsilon) if job.privacy.unit == "example" else epsilon


def _cost(
    task: TaskFacts, layout: Layout, facts: Facts, aggregator: Aggregator, groups: int
) -> Cost:
    delta = facts["delta"]
    width = delta.bits // 8 if delta.domain is Domain.RING else 4
    model, update = 4 * task.schema.size, width * layout.size
    exact = (4 if delta.domain is Domain.RING else 8) * layout.size
    held = exact if aggregator.linear else exact + _kept(delta.cohort, groups) * 4 * layout.size
    return Cost(
        down_bytes=model,
        up_bytes=update,
        coordinator_bytes=model + held + 4 * layout.size,
    )


def _kept(cohort: int, groups: int) -> int:
    """Vectors that a rule keeps which looks at each: one a client, or one a group."""
    return groups if groups > 1 else cohort


def _distinct(errors: list[PlanError]) -> list[PlanError]:
    """Drops what several segments said in the same words."""
    return list({(e.part, e.because): e for e in errors}.values())


def _sealed(plan: Plan) -> Plan:
    covered = {
        "format": FORMAT,
        "job": plan.job,
        "task": plan.task,
        "trail": plan.trail,
        "event": plan.event,
        "relation": plan.relation,
        "quorum": plan.quorum,
    }
    return Plan(
        **{name: getattr(plan, name) for name in Plan.__slots__ if name != "digest"},
        digest=canonical.digest(covered),
    )
