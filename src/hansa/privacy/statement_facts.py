"""From a plan's facts to the words of its privacy statement: each sentence from one fact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.core import events
from hansa.core.events import Event
from hansa.core.parts import Correlated
from hansa.core.spec import Reader
from hansa.privacy.statement_parts import Generation, MakesNoise, TrustModel, Trusts

if TYPE_CHECKING:
    from hansa.core.plan import Plan

NO_NOISE = "none: no noise is added"
UNKNOWN = "not known"
WEAK = 10.0
"""Epsilon above which a bound says little: what the tier for data about people refuses."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Against whom a guarantee holds.

    Attributes:
      model: central, distributed, local, example, none or unknown.
      adds: who adds the noise.
      sees: who sees what before it.
    """

    model: str
    adds: str
    sees: str


@dataclass(frozen=True, slots=True)
class UnknownGeneration:
    """Noise of a part that does not say how it makes it."""

    sampler: str
    grid: float = 0.0
    exact: bool | None = None


# ------------------------------------------------------------------ who, and from what


def unit_of(plan: Plan) -> str:
    """Whose data are hidden."""
    return {
        "client": "one client: all the data of one site or device",
        "example": "one example of one client's training data",
    }[plan.job.privacy.unit]


def trust_of(plan: Plan) -> Trust:
    """Who adds the noise, and who sees what before; unknown where the facts do not decide it."""
    sums = plan.facts["delta"].reader is Reader.SUM
    if not plan.private:
        return Trust("none", "nobody", _sees(sums=sums))
    match _model(plan):
        case "central":
            return Trust(
                "central", "the coordinator, to the sum, before it is released", _sees(sums=sums)
            )
        case "distributed":
            return Trust(
                "distributed",
                "each client adds a share before its update is masked",
                "nobody but the client itself; clients who collude know their own shares: "
                f"{plan.parts.mechanism}",
            )
        case "local":
            return Trust(
                "local",
                "each client, to its own update before it leaves",
                "nobody but the client itself",
            )
        case "example":
            return Trust(
                "example",
                "each client, while it trains on its own data",
                f"the client sees its own data; of what it sends, {_sees(sums=sums)}",
            )
    return Trust("unknown", f"not known: {plan.parts.mechanism}", _sees(sums=sums))


def _model(plan: Plan) -> TrustModel | None:
    """What the mechanism says; else what follows from where noise is in the facts."""
    mechanism, delta = plan.parts.mechanism, plan.facts["delta"]
    if isinstance(mechanism, Trusts):
        return mechanism.trust_model
    if delta.noise == 0:
        return "central"  # nothing was added before the gate, so the gate adds it
    return "local" if delta.reader is Reader.EACH else None


def generation_of(plan: Plan) -> Generation | UnknownGeneration:
    """How the noise on the delta is made, in the words of the part that makes it."""
    spec, mechanism = plan.facts["delta"], plan.parts.mechanism
    if isinstance(mechanism, MakesNoise):
        return mechanism.generation(spec)
    for stage in plan.parts.stages:
        if spec.noise > 0 and isinstance(stage, MakesNoise):
            return stage.generation(spec)
    return UnknownGeneration(f"{UNKNOWN}: {type(mechanism).__name__} does not say")


def entropy_of(plan: Plan) -> str:
    """Where random bits come from in a federation: the engine of a simulation replays them."""
    system = "the operating system's entropy (os.urandom)"
    whose = "the coordinator's machine" if trust_of(plan).model == "central" else "each client"
    if isinstance(plan.parts.mechanism, Correlated):
        return (
            f"a secret 32-byte key of the run from {system} on {whose}, expanded by SHAKE-256 "
            "(FIPS 202)"
        )
    return f"{system} of {whose}, fresh for every draw"


def _sees(*, sums: bool) -> str:
    if sums:
        return "the coordinator sees the sum over the cohort, and no single update"
    return "the coordinator sees the update of each client"


# ------------------------------------------------------------------ what is covered


def scope_of(plan: Plan) -> tuple[str, ...]:
    """What the guarantee covers and what it leaves out."""
    if not plan.private:
        return ("Nothing is covered.",)
    privacy = plan.job.privacy
    metrics = (
        "Covered: the metric values of every round, with noise of their own that is counted in."
        if plan.measures
        else "No metrics leave the clients."
    )
    if plan.adapts is not None:
        clip = f"Covered: the norm bound, which adapts ({plan.adapts}), and its noisy count."
    elif privacy.clip:
        clip = (
            f"The norm bound {privacy.clip:g} is fixed in the job: not covered if it was chosen by "
            "looking at the data."
        )
    else:
        clip = (
            "The mechanism says how one unit's influence is bounded; the job names no norm bound."
        )
    tuned = (
        "Covered: the choice of the best among repeated runs."
        if _holds(plan.event, events.RepeatAndSelect)
        else "Not covered: settings that were tuned on the same data."
    )
    return (
        f"Covered: the models of all rounds together, {plan.charges:,} releases at most.",
        metrics,
        clip,
        tuned,
        "Not covered: how many rounds counted, when they ran, and who took part.",
        "Not covered: other jobs on the same data; their epsilons add up.",
        "Not covered: what people who work with the data at a site can see there.",
    )


def hazards_of(plan: Plan, exact: bool | None) -> tuple[str, ...]:
    """What a reader must know who relies on the guarantee, or on its absence."""
    if not plan.private:
        return (
            "The released models may reveal training data, single examples included.",
            *(["Metric values are released without noise."] if plan.measures else []),
            *_visible(plan),
        )
    return (
        *_group(plan),
        *_strength(plan),
        *_sampled(plan),
        *_void(plan),
        *_stops(plan),
        *_visible(plan),
        *_numbers(exact),
        "A simulation draws its noise from the job's seed, so that it can be repeated: whoever "
        "knows the seed can subtract it. This statement is about a federation.",
        "Side channels are not covered: how long training takes, and network traffic. Updates have "
        "the same size whatever the data.",
    )


def _group(plan: Plan) -> tuple[str, ...]:
    if plan.job.privacy.unit == "client":
        return (
            "A person whose data are at k clients is hidden less well: by group privacy at most k "
            "times epsilon, at a larger delta. A person at one client is hidden at least as well "
            "as the client.",
        )
    return (
        "A person with k examples is hidden less well: by group privacy at most k times epsilon, "
        "at a larger delta. A whole site is not hidden.",
    )


def _strength(plan: Plan) -> tuple[str, ...]:
    """Epsilon and delta against what is usual."""
    delta, population = plan.job.privacy.delta, plan.parts.sampler.population
    found = []
    if plan.epsilon > WEAK:
        found.append(
            f"Epsilon is above {WEAK:g}: the bound is weak by itself, since probabilities may "
            f"change by a factor of {_factor(plan.epsilon)}."
        )
    if plan.job.privacy.unit == "example":
        found.append(
            "Delta should be well below one by the number of a client's examples, which the plan "
            "does not know: a client refuses only where it is not below that."
        )
    elif population > 1 and delta > population**-1.1:
        found.append(
            f"Delta is above N**-1.1 for N = {population:,} clients, which is the usual limit."
        )
    return tuple(found)


def _factor(epsilon: float) -> str:
    return f"{math.exp(epsilon):.2g}" if epsilon < 100 else "more than 1e43"


def _sampled(plan: Plan) -> tuple[str, ...]:
    sampled = (
        events.PoissonSampled,
        events.SampledWithoutReplacement,
        events.SampledWithReplacement,
        events.TruncatedSubsampledGaussian,
    )
    if not _holds(plan.event, *sampled):
        return ()
    if trust_of(plan).model == "example":
        return (
            "The sampling is counted on: the guarantee holds against those who cannot tell which "
            "examples were in a batch. Nobody but the client can.",
        )
    knows = (
        " The coordinator knows it, so against the coordinator the guarantee without sampling "
        "holds, which is weaker."
        if trust_of(plan).model in ("distributed", "local")
        else ""
    )
    return (
        "The sampling is counted on: the guarantee holds against those who cannot tell who took "
        f"part in a round.{knows}",
    )


def _void(plan: Plan) -> tuple[str, ...]:
    model = trust_of(plan).model
    if model == "example":
        return ("Who took part, and how many training examples a client has, can be known.",)
    if model in ("distributed", "local"):
        return ("The coordinator knows who took part: their data are hidden, not their presence.",)
    return (
        f"Whether a round had the {plan.quorum} updates that make it count can be seen, without "
        "noise.",
    )


def _stops(plan: Plan) -> tuple[str, ...]:
    if not plan.job.rounds.patience:
        return ()
    return (
        "Training may stop early by its own results: quote the epsilon of the whole plan, not that "
        "of the rounds that ran.",
    )


def _visible(plan: Plan) -> tuple[str, ...]:
    weight = plan.facts["weight"]
    if weight.reader is Reader.EACH and weight.peak > 0 and _counts_examples(plan):
        return ("The coordinator reads how many examples each client counts for.",)
    return ()


def _counts_examples(plan: Plan) -> bool:
    return plan.job.aggregation.weighting == "examples"


def _numbers(exact: bool | None) -> tuple[str, ...]:
    if exact is None:
        return (
            "How the noise is computed is not known here: take floating point and a weak generator "
            "for possible.",
        )
    if exact:
        return ()
    return (
        "Noise is computed in floating point and rounded to the grid: its tails end, and its "
        "distribution is very near the one that is counted, not exactly it.",
    )


def _holds(event: Event, *kinds: type[Event]) -> bool:
    if isinstance(event, kinds):
        return True
    if isinstance(event, events.Composed):
        return any(_holds(part, *kinds) for part in event.events)
    inner = getattr(event, "event", None)
    return inner is not None and _holds(inner, *kinds)
