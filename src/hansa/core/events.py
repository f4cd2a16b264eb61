"""Privacy events: what a mechanism did to the data, in the words of `dp-accounting`.

Names and fields are those of `dp_accounting.*DpEvent` without the suffix; `DiscreteGaussianSum`
alone is ours. Events are data: they travel in plans and ledgers as JSON, and are read back through
the closed list below, never by importing a name that was found in a message.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from hansa.core.canonical import Json
from hansa.errors import HansaError


@dataclass(frozen=True, slots=True)
class NoOp:
    """Nothing about the data was revealed."""


@dataclass(frozen=True, slots=True)
class NonPrivate:
    """Something was revealed with no guarantee: epsilon is infinite."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Normal noise of standard deviation `noise_multiplier` times the L2 sensitivity."""

    noise_multiplier: float


@dataclass(frozen=True, slots=True)
class Laplace:
    """Laplace noise of scale `noise_multiplier` times the L1 sensitivity."""

    noise_multiplier: float


@dataclass(frozen=True, slots=True)
class DiscreteLaplace:
    """Discrete Laplace noise on an integer query of that sensitivity."""

    noise_parameter: float
    sensitivity: int


@dataclass(frozen=True, slots=True)
class DiscreteGaussianSum:
    """A sum of integer vectors in which several parties each hid discrete Gaussian noise.

    The one event that dp-accounting does not know (Kairouz, Liu and Steinke, ICML 2021).

    Attributes:
      noise_parameter: sigma of one share of noise, in integer steps.
      shares: how many independent shares the sum is sure to hold that nobody can subtract.
      sensitivity: L2 bound on what one unit changes, in integer steps.
      size: number of coordinates.
    """

    noise_parameter: float
    shares: int
    sensitivity: float
    size: int


@dataclass(frozen=True, slots=True)
class RandomizedResponse:
    """Randomized response over `num_buckets` answers."""

    noise_parameter: float
    num_buckets: int


@dataclass(frozen=True, slots=True)
class ZCDp:
    """Any mechanism that is (xi, rho)-zCDP."""

    rho: float
    xi: float = 0.0


@dataclass(frozen=True, slots=True)
class PoissonSampled:
    """Each unit took part independently with `sampling_probability`, then `event` ran."""

    sampling_probability: float
    event: Event


@dataclass(frozen=True, slots=True)
class SampledWithReplacement:
    """A fixed number of units was drawn with replacement, then `event` ran."""

    source_dataset_size: int
    sample_size: int
    event: Event


@dataclass(frozen=True, slots=True)
class SampledWithoutReplacement:
    """A fixed number of different units was drawn, then `event` ran."""

    source_dataset_size: int
    sample_size: int
    event: Event


@dataclass(frozen=True, slots=True)
class TruncatedSubsampledGaussian:
    """Poisson sampling cut off at `truncated_batch_size`, then Gaussian noise."""

    dataset_size: int
    sampling_probability: float
    truncated_batch_size: int
    noise_multiplier: float


@dataclass(frozen=True, slots=True)
class MixtureOfGaussians:
    """Normal noise on a sum that one unit moves by a random amount, or not at all.

    Without the unit: N(0, sd**2). With it: N(c, sd**2), where c is `sensitivities[i]` with
    probability `sampling_probs[i]` (Choquette-Choo et al., ICLR 2024, arXiv 2310.15526). It is what
    a group costs whose members are sampled one by one: see `hansa.privacy.groups`.
    """

    standard_deviation: float
    sensitivities: tuple[float, ...]
    sampling_probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SingleEpochTreeAggregation:
    """DP-FTRL by tree aggregation where each unit takes part once per tree."""

    noise_multiplier: float
    step_counts: int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SelfComposed:
    """`event` ran `count` times."""

    event: Event
    count: int


@dataclass(frozen=True, slots=True)
class RepeatAndSelect:
    """`event` ran a random number of times, and only the best of its results was released.

    What tuning costs that looks at the same data, if the number of runs is drawn from a truncated
    negative binomial distribution before the first one, and nothing of the others is told
    (Papernot and Steinke, ICLR 2022, arXiv 2110.03620, after Liu and Talwar, STOC 2019).

    Attributes:
      event: one run, together with the score that it is chosen by.
      mean: expected number of runs.
      shape: of the distribution: 1 = geometric, 0 = logarithmic, inf = Poisson.
    """

    event: Event
    mean: float
    shape: float


@dataclass(frozen=True, slots=True)
class Composed:
    """All of `events` ran."""

    events: tuple[Event, ...]


Event: TypeAlias = (
    NoOp
    | NonPrivate
    | Gaussian
    | Laplace
    | DiscreteLaplace
    | DiscreteGaussianSum
    | RandomizedResponse
    | ZCDp
    | PoissonSampled
    | SampledWithReplacement
    | SampledWithoutReplacement
    | TruncatedSubsampledGaussian
    | MixtureOfGaussians
    | SingleEpochTreeAggregation
    | RepeatAndSelect
    | SelfComposed
    | Composed
)

KINDS: Mapping[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        NoOp,
        NonPrivate,
        Gaussian,
        Laplace,
        DiscreteLaplace,
        DiscreteGaussianSum,
        RandomizedResponse,
        ZCDp,
        PoissonSampled,
        SampledWithReplacement,
        SampledWithoutReplacement,
        TruncatedSubsampledGaussian,
        MixtureOfGaussians,
        SingleEpochTreeAggregation,
        RepeatAndSelect,
        SelfComposed,
        Composed,
    )
}


def compose(*events: Event) -> Event:
    """All events together; those that reveal nothing are left out."""
    kept = tuple(e for e in events if not isinstance(e, NoOp))
    if not kept:
        return NoOp()
    return kept[0] if len(kept) == 1 else Composed(kept)


def repeat(event: Event, count: int) -> Event:
    """The same event `count` times."""
    if count <= 0 or isinstance(event, NoOp):
        return NoOp()
    return event if count == 1 else SelfComposed(event, count)


def is_private(event: Event) -> bool:
    """Whether the event has any finite guarantee."""
    match event:
        case NonPrivate():
            return False
        case Composed(events):
            return all(is_private(e) for e in events)
        case (
            SelfComposed(event=inner)
            | PoissonSampled(event=inner)
            | SampledWithReplacement(event=inner)
            | SampledWithoutReplacement(event=inner)
            | RepeatAndSelect(event=inner)
        ):
            return is_private(inner)
        case _:
            return True


def of_json(value: Json) -> Event:
    """Reads an event back from its canonical JSON form.

    Raises:
      HansaError: the value names no known event, or lacks or adds a field.
    """
    unknown = HansaError(
        f"{value!r} is not a privacy event", fix=f"use one of: {', '.join(sorted(KINDS))}"
    )
    if not isinstance(value, dict) or not isinstance(value.get("is"), str):
        raise unknown
    kind = KINDS.get(str(value["is"]))
    if kind is None or {f.name for f in dataclasses.fields(kind)} != value.keys() - {"is"}:
        raise unknown
    try:
        fields = {name: _field(item) for name, item in value.items() if name != "is"}
    except TypeError:
        raise unknown from None
    return kind(**fields)  # type: ignore[arg-type]  # the fields were matched by name above


def _field(value: Json) -> object:
    """An event, a number, or several of either.

    Raises:
      TypeError: the value is something else.
    """
    if isinstance(value, dict):
        return of_json(value)
    if isinstance(value, list):
        return tuple(_field(item) for item in value)
    if value == "inf":
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("an event holds numbers")
    return value
