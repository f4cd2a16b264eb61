"""What a plan claims, in plain words, each sentence derived from a fact."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from hansa.core import events
from hansa.core.arrival import Buffer
from hansa.core.events import Event
from hansa.core.job import Job
from hansa.core.parts import Facts, Parts, Relation
from hansa.core.spec import Domain, Held, Reader

MANY = 10
"""Updates whose sum gave no picture away in our own attack (bench/inversion.py)."""

UNBOUNDED = "One bad client can move the result arbitrarily far: updates have no norm bound."


def claims_of(
    job: Job,
    parts: Parts,
    facts: Facts,
    quorum: int,
    event: Event,
    epsilon: float,
    accountant: str,
) -> tuple[str, ...]:
    """The sentences that `hansa plan` prints, in a fixed order."""
    return (
        *_readers(parts, facts),
        *_privacy(job, parts, facts, event, epsilon, accountant),
        _metrics(job, facts),
        _robustness(parts, facts),
        *_standing(job, parts, facts),
        *_rollback(job),
        *(stage.told(facts) for stage in parts.stages if isinstance(stage, Tells)),
        _exactness(parts, facts),
        *_arrivals(job, parts),
        f"A round counts with at least {quorum} updates of at most {parts.sampler.cap}; with fewer "
        "the model stays as it was.",
    )


def _arrivals(job: Job, parts: Parts) -> tuple[str, ...]:
    """What holds where a round is the updates that came first, also of older models."""
    buffer = Buffer.of(job)
    if buffer is None:
        return ()
    less = f"is multiplied by (1 + s)**-{buffer.exponent:g}"
    if not buffer.exponent:
        less = "counts like a fresh one"
    elif parts.aggregator.linear:
        less += ", and what the sum is divided by does not change: old updates make a step shorter"
    else:
        less += " before the rule looks at it, and is one client's like any other"
    most = f"; more than {buffer.oldest} rounds old it does not count" if buffer.oldest else ""
    return (
        f"Updates are not waited for: one from a model s rounds old {less}{most}. Metrics are of "
        "the models that the clients began with.",
        *(() if parts.aggregator.linear else (_QUICK.format(buffer.size),)),
    )


_QUICK = (
    "Who is quick can be in each round: all bad clients may be among its {} updates, a larger "
    "share of them than of all clients."
)


_TIMES = (
    "The order of arrivals is taken as given and is not hidden: what is stated holds if how long a "
    "client takes does not depend on its data, which nobody can check."
)
"""A client that is late because of its data changes who else is in a round."""


def sampling_words(parts: Parts, facts: Facts) -> str:
    """How clients are drawn, and their examples where that counts, as implemented."""
    if facts["delta"].reveals is None:
        return str(parts.sampler)
    return f"{parts.sampler}; batches: drawn example by example, and secret"


@runtime_checkable
class Hides(Protocol):
    """A stage that hides single updates, and says under which assumptions."""

    def promises(self, cohort: int, quorum: int) -> tuple[str, ...]:
        """What holds for cohorts between the quorum and the largest, in plain words."""


@runtime_checkable
class Tells(Protocol):
    """A stage about which a plan says more than its facts do."""

    def told(self, facts: Facts) -> str:
        """One sentence or more, in plain words."""


def _readers(parts: Parts, facts: Facts) -> tuple[str, ...]:
    if facts["delta"].reader is not Reader.SUM:
        if facts["delta"].reveals is not None:
            return (
                "The coordinator can read each client's update: what it may reveal of one training "
                "example is bounded below, what many examples of a client have in common is not.",
            )
        if facts["delta"].noise > 0:
            return (
                "The coordinator can read each client's update, which carries noise of the "
                "client's own: what it may reveal is bounded below.",
            )
        return (
            "The coordinator can read each client's update; an update may reveal training data "
            "to the coordinator.",
        )
    cohort, quorum = facts["weight"].cohort, facts["weight"].quorum  # of one sum, not of the round
    hiding = [stage for stage in parts.stages if isinstance(stage, Hides)]
    words = tuple(words for stage in hiding for words in stage.promises(cohort, quorum))
    words = words or (
        "The coordinator can read only the sum over the cohort, never one client's update.",
    )
    hidden = facts["delta"].noise > 0 or facts["delta"].reveals is not None
    return words if hidden else (*words, *_few(quorum))


def _few(quorum: int) -> tuple[str, ...]:
    """What masks alone do not hide; noise of the clients' own does."""
    if quorum >= MANY:
        return ()
    return (
        f"A sum may be of {quorum} updates, and a sum of fewer than {MANY} can still show examples "
        "of one client to the coordinator.",
    )


def _privacy(
    job: Job, parts: Parts, facts: Facts, event: Event, epsilon: float, accountant: str
) -> tuple[str, ...]:
    if not events.is_private(event):
        return ("No differential privacy: the model itself may reveal training data.",)
    if Buffer.of(job) is None:
        return _promised(job, parts, facts, epsilon, accountant)
    return (*_promised(job, parts, facts, epsilon, accountant), _TIMES)


def _promised(
    job: Job, parts: Parts, facts: Facts, epsilon: float, accountant: str
) -> tuple[str, ...]:
    """What a mechanism hides, of whom and from whom."""
    privacy, sampler, delta = job.privacy, parts.sampler, facts["delta"]
    if privacy.mechanism == "local":
        return _local(job, parts, facts, epsilon, accountant)
    if delta.reveals is not None:
        return _example(job, parts, facts, epsilon, accountant)
    if delta.noise > 0:
        return _distributed(job, parts, facts, epsilon, accountant)
    neighbours = 2.0 if sampler.relation is Relation.REPLACE_ONE else 1.0
    sigma = privacy.noise_multiplier * neighbours * delta.l2
    mean = sigma / (sampler.expected * delta.weight)
    unit = privacy.clip if parts.adapts is None else 1.0
    return (
        f"Differential privacy of the released models: epsilon {epsilon:.4g} at delta "
        f"{privacy.delta:g}; unit: one {privacy.unit}; relation: {sampler.relation.value}; "
        f"sampling: {sampling_words(parts, facts)}; accountant: {accountant}; trust model: "
        f"central, the coordinator adds the noise and {_before(facts)}.",
        f"The noise on the mean has a standard deviation of "
        f"{mean / unit:.3g} clip norms in each coordinate.",
        *_adaptive(parts),
        "Not hidden: whether a round had enough updates to count.",
    )


def _adaptive(parts: Parts) -> tuple[str, ...]:
    if parts.adapts is None:
        return ()
    return (
        f"The norm bound adapts: {parts.adapts}; how many are within it is counted with noise, and "
        "both together cost what is stated.",
    )


def _distributed(
    job: Job, parts: Parts, facts: Facts, epsilon: float, accountant: str
) -> tuple[str, ...]:
    """What holds where the clients add the noise themselves."""
    privacy, sampler, delta = job.privacy, parts.sampler, facts["delta"]
    sampling = sampling_words(parts, facts)
    mean = delta.noise * math.sqrt(sampler.expected) / (sampler.expected * delta.weight)
    return (
        f"Differential privacy of each round's sum, hence of the models: epsilon {epsilon:.4g} at "
        f"delta {privacy.delta:g}; unit: the data of one {privacy.unit}; relation: "
        f"{sampler.relation.value}; sampling: {sampling}; accountant: {accountant}; "
        f"trust model: distributed, {parts.mechanism}.",
        f"The noise on the mean has a standard deviation of {mean / privacy.clip:.3g} clip norms "
        "in each coordinate, if all answer.",
        "Not hidden: who took part.",
    )


DROWNED = 10.0
"""Noise of so many times the largest mean there can be is warned of."""


def _local(
    job: Job, parts: Parts, facts: Facts, epsilon: float, accountant: str
) -> tuple[str, ...]:
    """What holds where each client hides its data in its own update."""
    privacy, sampler, delta = job.privacy, parts.sampler, facts["delta"]
    turns = sampler.participations(job.rounds.count)
    mean = delta.noise / math.sqrt(max(sampler.expected, 1.0)) / privacy.clip
    # The norm of d independent normal numbers is about sqrt(d) deviations; a mean of clipped deltas
    # has at most the clip norm.
    norm = mean * math.sqrt(delta.size)
    drowned = (
        f"Warning: the norm of the noise on the mean is about {norm:.3g} clip norms, that of the "
        "mean itself at most 1: one round teaches next to nothing, and a model may never learn.",
    )
    return (
        "Differential privacy of all that one client sends, towards the coordinator and everybody "
        f"else: epsilon {epsilon:.4g} at delta {privacy.delta:g} for its {turns:,} updates of this "
        f"job together; unit: all data of one {privacy.unit}; relation: {sampler.relation.value}; "
        f"sampling: {sampling_words(parts, facts)}; accountant: {accountant}; trust model: "
        f"{parts.mechanism}.",
        "Robust rules, masks and everything else that is done with the updates costs no privacy.",
        f"The noise of one client has a standard deviation of {delta.noise / privacy.clip:.3g} "
        f"clip norms in each coordinate, the noise on the mean of n clients that over sqrt(n): "
        f"{mean:.3g} for {sampler.expected:g} clients.",
        *(drowned if norm > DROWNED else ()),
        "Not hidden: who took part.",
    )


def _example(
    job: Job, parts: Parts, facts: Facts, epsilon: float, accountant: str
) -> tuple[str, ...]:
    """What holds where each client hides its single examples while it trains."""
    privacy, sampler = job.privacy, parts.sampler
    turns = sampler.participations(job.rounds.count)
    found = (
        "Each client finds its rate and its noise from the number of its examples, so that this "
        "holds for all of them.",
    )
    return (
        "Differential privacy of all that one client sends, towards the coordinator and everybody "
        f"else: epsilon {epsilon:.4g} at delta {privacy.delta:g} at most for its {turns:,} updates "
        "of this job together; unit: one training example of one client; relation: "
        f"{sampler.relation.value}; sampling: {sampling_words(parts, facts)}; accountant: "
        f"{accountant}; trust model: {parts.mechanism}.",
        *(found if privacy.epsilon else ()),
        "The coordinator cannot see what noise a client added, nor what other jobs cost the same "
        "examples: each client counts that itself.",
        f"A client with fewer than {privacy.examples:,} training examples takes no part.",
        "Not hidden: who took part, how many training examples a client has, and what many of them "
        "have in common. A person with several examples is hidden less well.",
    )


def _before(facts: Facts) -> str:
    if facts["delta"].reader is Reader.SUM:
        return "sees the sum before it"
    return "sees updates before it"


def _metrics(job: Job, facts: Facts) -> str:
    if facts["metrics"].size == 0:
        return "No metrics leave the sites: measured values would reveal data without noise."
    if job.privacy.metrics_clip > 0:
        return "Metric sums leave the sites clipped, and are released with noise of their own."
    who = "over the cohort" if facts["metrics"].reader is Reader.SUM else "of each client"
    bound = facts["metrics"].l2
    clipped = "" if math.isinf(bound) else f", scaled down to norm {bound:.4g} where they exceed it"
    return f"Metric sums {who} reach the coordinator{clipped}, without noise."


def _robustness(parts: Parts, facts: Facts) -> str:
    delta = facts["delta"]
    if not parts.aggregator.linear:
        return f"Bad clients: {parts.aggregator}."
    if math.isinf(delta.l2):
        return UNBOUNDED
    unit = " norm bounds" if parts.adapts is not None else ""
    if delta.held is Held.HONEST or delta.reader is Reader.SUM:
        return "The norm bound holds for honest clients only; a bad client can exceed it."
    return (
        f"One bad client can move the sum by at most {delta.l2:.4g}{unit}: the coordinator checks "
        "the bound on every update."
    )


def _standing(job: Job, parts: Parts, facts: Facts) -> tuple[str, ...]:
    """What is remembered of single clients, who can see it, and that no epsilon covers it."""
    if parts.judge is None:
        return ()
    hidden = facts["delta"].noise > 0 or facts["delta"].reveals is not None
    covered = (
        "They follow from updates that carry the client's own noise, and tell no more than those."
        if hidden
        else "No epsilon covers them."
    )
    if facts["delta"].reader is Reader.SUM:
        return _standing_of_groups(covered)
    trusted = job.aggregation.trusted
    beside = (
        f", and against that of '{trusted}', which is trusted and has no score," if trusted else ""
    )
    return (
        "Standing: each round the coordinator scores the length and direction of each client's "
        f"update against the others'{beside} and remembers it. Who goes on standing out counts "
        "half, then nothing, and is told so; only a person expels.",
        "Scores tell something of a client's data. They stay at the coordinator: in its store, its "
        f"audit trail and its operators' tables. {covered}",
    )


def _rollback(job: Job) -> tuple[str, ...]:
    """When a model is taken back, what that costs, and what it does not see."""
    tolerance, every = job.defend.rollback, job.evaluate_every
    if not tolerance:
        return ()
    often = "each round" if every == 1 else f"every {every} rounds"
    noise = ", noise on the metrics" if job.privacy.metrics_clip else ""
    cost = (
        "That follows from released metrics alone, so it costs no privacy; what the discarded "
        "rounds cost stays spent. "
        if job.privacy.metrics_clip
        else ""
    )
    return (
        f"Rollback: {often}, the {job.rounds.watch} of the model that the round started from is "
        f"held to the best so far. If it is worse by more than {tolerance:g}, or no finite number, "
        "the model is discarded with what the round trained, and the next round starts from the "
        f"last accepted one: up to {every + 1} rounds of training at once. The last model is held "
        "to the same.",
        f"{cost}It undoes a ruined model, not a backdoor, nor changes within {tolerance:g}. "
        f"Another cohort{noise} or clients that lie about their held-out examples can reject a "
        "good model, or keep a bad one.",
    )


def _standing_of_groups(covered: str) -> tuple[str, ...]:
    """What is remembered where only sums of groups can be read."""
    return (
        "Standing: each round the coordinator scores the sum of each group against the others', "
        "and estimates from the groups of many rounds which clients make theirs stand out. Who "
        "goes on doing so is watched, which changes nothing in a sum, then not asked any more, "
        "and is told so; only a person expels.",
        "Scores and estimates are computed from the sums of groups, which the coordinator reads "
        "anyway, and tell no more than all these sums together; sums of different rounds are of "
        "different updates. They stay at the coordinator: in its store, its audit trail and its "
        f"operators' tables. {covered}",
    )


def _exactness(parts: Parts, facts: Facts) -> str:
    delta = facts["delta"]
    if not parts.aggregator.linear:
        return "The result depends on the set of updates alone, not on their order."
    if delta.domain is Domain.RING:
        return f"Sums are exact: integers modulo 2**{delta.bits}, the same bits in any order."
    return f"Sums are exact on a grid of {delta.quantum:.3g}: the same bits in any order."
