"""What a plan's noise does to its model, in numbers, and what to do where it destroys it.

In units of the norm bound C, for a model of d parameters and T rounds of plain averaging:

    s          standard deviation of the noise on the mean, in each coordinate
    r          s sqrt(d): its norm; the mean of the updates has at most norm 1
    sqrt(T)/r  signal to noise at best: T rounds move the model by at most T, if all updates have
               the largest norm and one direction; the noise alone moves it by about sqrt(T) r

| verdict | when            | because                                                             |
|---------|-----------------|---------------------------------------------------------------------|
| quiet   | r <= 1          | no round's noise is longer than what the clients may agree on       |
| loud    | 1 < r < sqrt(T) | one round shows nothing; what many rounds agree on can survive      |
| drowned | r >= sqrt(T)    | over the whole job, noise moves the model farther than updates can  |

Real updates agree less and are shorter than their bound, so a verdict is never too pessimistic.
An adaptive server optimizer scales signal and noise alike, coordinate by coordinate.

Everything is computed from the plan. Epsilons beside the plan's own are upper bounds by Renyi
divergence, which is fast, and are marked as approximate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum

from hansa.core import events
from hansa.core.canonical import Json
from hansa.core.events import Event, Gaussian
from hansa.core.parts import Correlated
from hansa.core.plan import Plan
from hansa.core.spec import Reader
from hansa.privacy.accountants import DpAccounting
from hansa.privacy.advice_examples import advice_for_examples
from hansa.privacy.statement_facts import trust_of
from hansa.privacy.statement_parts import Scaled
from hansa.work.dpsgd import DpSgd

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Numbers of rounds in the table, relative to the plan's."""

USELESS = 30.0
"""Epsilon above which there is no point in naming it: probabilities change by more than 1e13."""


class Verdict(Enum):
    """What the noise does."""

    QUIET = "quiet"
    LOUD = "loud"
    DROWNED = "drowned"


@dataclass(frozen=True, slots=True)
class Costs:
    """Epsilon of another number of rounds, with the noise as planned.

    Attributes:
      rounds: how many.
      epsilon: at the plan's delta; None where no accountant is fast enough or knows the event.
      approximate: whether it is an upper bound by another accountant than the plan's.
    """

    rounds: int
    epsilon: float | None
    approximate: bool


@dataclass(frozen=True, slots=True)
class Loudness:
    """The noise of one round beside what it is to hide; lengths are in norm bounds C.

    Attributes:
      on_sum: standard deviation on the sum, in each coordinate.
      on_mean: the same on the mean.
      length: norm of the noise on the mean, r.
      best: signal to noise over all rounds at best, sqrt(T) / r.
      verdict: what follows.
    """

    on_sum: float
    on_mean: float
    length: float
    best: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Advice:
    """What a private plan's numbers mean for its model.

    Attributes:
      rounds: epsilon against rounds.
      noise: of one round; None where it cannot be told from the plan.
      words: sentences: what will happen, and each alternative with its numbers.
    """

    rounds: tuple[Costs, ...]
    noise: Loudness | None
    words: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        noise = None if self.noise is None else asdict(self.noise)
        if noise is not None and self.noise is not None:
            noise["verdict"] = self.noise.verdict.value
        return {
            "rounds": [asdict(row) for row in self.rounds],
            "noise": noise,
            "words": list(self.words),
        }


def advice_on(plan: Plan) -> Advice | None:
    """Advice on a plan; None without differential privacy."""
    if not plan.private or not math.isfinite(plan.epsilon):
        return None
    noise = loudness(plan)
    return Advice(_rounds(plan), noise, _said(plan, noise))


def loudness(plan: Plan) -> Loudness | None:
    """How loud one round is; None where noise is not added to sums of clients, round by round."""
    privacy, delta, sampler = plan.job.privacy, plan.facts["delta"], plan.parts.sampler
    bound = 1.0 if plan.adapts is not None else privacy.clip
    if privacy.unit != "client" or isinstance(plan.parts.mechanism, Correlated) or not bound:
        return None
    if delta.noise > 0:
        on_sum = delta.noise * math.sqrt(sampler.expected)
    elif isinstance(plan.parts.mechanism, Scaled):
        on_sum = plan.parts.mechanism.scale(delta)[0]
    else:
        return None
    on_mean = on_sum / (sampler.expected * delta.weight * bound)
    length = on_mean * math.sqrt(delta.size)
    best = math.sqrt(plan.job.rounds.count) / length
    return Loudness(on_sum / (delta.weight * bound), on_mean, length, best, _verdict(length, best))


def _verdict(length: float, best: float) -> Verdict:
    if best <= 1:
        return Verdict.DROWNED
    return Verdict.QUIET if length <= 1 else Verdict.LOUD


# ------------------------------------------------------------------ epsilon against rounds


def _rounds(plan: Plan) -> tuple[Costs, ...]:
    counts = {max(round(plan.job.rounds.count * factor), 1) for factor in FACTORS}
    return tuple(_costs(plan, count) for count in sorted(counts))


def _costs(plan: Plan, count: int) -> Costs:
    planned = plan.job.rounds.count
    if count == planned:
        return Costs(count, plan.epsilon, approximate=False)
    if isinstance(plan.parts.mechanism, Correlated):
        return Costs(count, None, approximate=False)  # its noise is made for the planned rounds
    more = plan.charges - plan.parts.sampler.participations(planned)  # the last measurement
    often = plan.parts.sampler.participations(count) + more
    event = events.repeat(plan.round_event, often)
    return Costs(count, _upper_bound(plan, event), approximate=True)


def _upper_bound(plan: Plan, event: Event) -> float | None:
    """Epsilon by Renyi divergence, at the plan's delta; None if it is not known."""
    accountant = DpAccounting("rdp")
    if accountant.unsupported(event, plan.relation) is not None:
        return None
    epsilon = accountant.epsilon(event, plan.job.privacy.delta, plan.relation)
    return epsilon if math.isfinite(epsilon) else None


# ------------------------------------------------------------------ words


def _said(plan: Plan, noise: Loudness | None) -> tuple[str, ...]:
    work = plan.parts.algorithm.work
    if isinstance(work, DpSgd):
        return advice_for_examples(plan, work)
    return (_unknown(plan),) if noise is None else _words(plan, noise)


def _unknown(plan: Plan) -> str:
    if isinstance(plan.parts.mechanism, Correlated):
        return (
            "The noise is correlated over rounds and cancels in the model: noise of one round says "
            "little about it, and is not compared with updates here."
        )
    return (
        "The noise is not added to sums of clients' updates by this plan's mechanism in a way that "
        "can be compared with them: try `hansa simulate`."
    )


def _words(plan: Plan, noise: Loudness) -> tuple[str, ...]:
    rounds = plan.job.rounds.count
    if noise.verdict is Verdict.QUIET:
        return (
            f"The noise of a round is {noise.length:.2g} norm bounds long; the mean of the updates "
            "is at most 1 long, if all clients agree.",
            *_light(plan),
        )
    told = (
        f"The noise of a round is {noise.length:.3g} norm bounds long; the mean of the updates is "
        "at most 1 long, if all clients agree. "
    )
    apart = f"Over all {rounds:,} rounds, noise moves the model by about "
    apart += f"{math.sqrt(rounds) * noise.length:.3g}, and updates by at most {rounds:,}"
    if noise.verdict is Verdict.DROWNED:
        told += f"{apart}: this setting will destroy the model."
    else:
        told += (
            f"{apart}, in norm bounds: no round shows much by itself, and what many rounds agree "
            "on can survive."
        )
    return (told, *_alternatives(plan, noise), *_light(plan))


def _alternatives(plan: Plan, noise: Loudness) -> tuple[str, ...]:
    return (
        *_clients(plan, noise),
        *_fewer_rounds(plan, noise),
        *_epsilon(plan, noise),
        *_smaller(plan, noise),
        *_example(plan),
    )


def _clients(plan: Plan, noise: Loudness) -> tuple[str, ...]:
    """The noise on the sum does not grow with the clients; where each adds its own, by the root."""
    population = plan.parts.sampler.population
    power = 0.5 if trust_of(plan).model == "local" else 1.0
    enough = math.ceil(population * noise.length ** (1 / power))
    many = noise.on_mean / 10**power
    rate = "" if plan.parts.sampler.expected >= population else ", drawn at the same rate"
    return (
        f"More clients: with {10 * population:,} instead of {population:,}{rate}, the same epsilon "
        f"would leave noise of about {many:.2g} norm bounds in each coordinate "
        f"instead of {noise.on_mean:.2g}; with {enough:,}, the noise would be as long as 1 norm "
        "bound.",
    )


def _fewer_rounds(plan: Plan, noise: Loudness) -> tuple[str, ...]:
    """Without sampling, the noise for an epsilon grows exactly with the root of the rounds."""
    rounds = plan.job.rounds.count
    fewer = max(rounds // 4, 1)
    if fewer == rounds or not _unsampled(plan.round_event):
        return ()
    factor = math.sqrt(fewer / rounds)
    return (
        f"Fewer rounds: {fewer:,} instead of {rounds:,} at the same epsilon would leave noise of "
        f"about {noise.on_mean * factor:.2g} norm bounds in each coordinate, "
        f"{noise.length * factor:.2g} long. It helps where {fewer:,} larger steps do as well; over "
        "the whole job, noise against updates stays as it is.",
    )


def _epsilon(plan: Plan, noise: Loudness) -> tuple[str, ...]:
    """What noise that is 1 long would cost."""
    louder = _scaled(plan.event, 1 / noise.length)
    price = None if louder is None else _upper_bound(plan, louder)
    if price is None:
        return ()
    costs = f"costs epsilon {price:.3g} by an upper bound, at the delta and unit of the plan"
    if price > USELESS:
        costs += ", which promises next to nothing"
    return (f"Larger epsilon: noise that is 1 norm bound long {costs}.",)


def _smaller(plan: Plan, noise: Loudness) -> tuple[str, ...]:
    size = plan.facts["delta"].size
    fewer = math.floor(size / noise.length**2)
    if fewer < 1:
        return ()
    return (
        f"Fewer parameters: with {fewer:,} of the {size:,} trained and the others fixed, the same "
        "noise would be 1 norm bound long.",
    )


def _example(plan: Plan) -> tuple[str, ...]:
    masked = plan.facts["delta"].reader is Reader.SUM
    hide = "keep secure aggregation" if masked else "use secure aggregation"
    return (
        'Another unit: unit = "example" with mechanism = "dpsgd" protects single examples inside '
        f"each site, where noise is averaged over its examples; {hide} against the coordinator. It "
        "promises less: one example, not all that a site holds.",
    )


def _light(plan: Plan) -> tuple[str, ...]:
    """A mean by a constant shrinks where clients weigh less than they may."""
    weight = plan.facts["delta"].weight
    if plan.job.aggregation.weighting != "examples" or not 1 < weight < math.inf:
        return ()
    return (
        f"A client counts for up to {weight:g} examples, and the noise is made for that: one with "
        f"half as many moves the mean half as far. Keep aggregation.max_weight near what clients "
        "have.",
    )


# ------------------------------------------------------------------ events


def _unsampled(event: Event) -> bool:
    return isinstance(event, (Gaussian, events.DiscreteGaussianSum)) or (
        isinstance(event, events.Composed) and all(_unsampled(part) for part in event.events)
    )


def _scaled(event: Event, factor: float) -> Event | None:
    """The same event with all its noise times `factor`; None where that is not known."""

    def inner(part: Event, put: Callable[[Event], Event]) -> Event | None:
        found = _scaled(part, factor)
        return None if found is None else put(found)

    match event:
        case Gaussian(noise):
            return Gaussian(noise * factor)
        case events.SelfComposed(part, count):
            return inner(part, lambda e: events.SelfComposed(e, count))
        case events.PoissonSampled(rate, part):
            return inner(part, lambda e: events.PoissonSampled(rate, e))
        case events.SampledWithoutReplacement(source, sample, part):
            return inner(part, lambda e: events.SampledWithoutReplacement(source, sample, e))
        case events.Composed(parts):
            found = [_scaled(part, factor) for part in parts]
            kept = tuple(part for part in found if part is not None)
            return events.Composed(kept) if len(kept) == len(parts) else None
        case events.DiscreteGaussianSum(noise, shares, sensitivity, size):
            return events.DiscreteGaussianSum(noise * factor, shares, sensitivity, size)
        case _:
            return None
