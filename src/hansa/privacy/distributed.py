"""What a sum reveals into which each client put its own discrete Gaussian noise.

Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
Secure Aggregation", ICML 2021, arXiv 2102.06387. In integer steps: s for the parameter of one
share of noise, n for the shares, d for the size, D for the L2 sensitivity, a for the Renyi order,

    tau   = 10 * sum over k = 1 .. n - 1 of exp(-2 pi**2 s**2 k / (k + 1))
    D2    = D / (sqrt(n) s)          D1 = min(sqrt(d), D) * D2
    RDP(a) = min( a D2**2 / 2 + tau d,
                  a / 2 * (D2**2 + 2 D1 tau + tau**2 d),
                  a / 2 * (D2 + sqrt(d) tau)**2 )

tau is how far a sum of n discrete Gaussians is from one. A single share (n = 1) is one exactly
(Canonne, Kamath and Steinke, NeurIPS 2020). More shares than are counted on are independent noise
on top, which is post-processing, so the bound for the fewest holds for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hansa.core.events import (
    Composed,
    DiscreteGaussianSum,
    Event,
    PoissonSampled,
    RepeatAndSelect,
    SampledWithoutReplacement,
    SampledWithReplacement,
    SelfComposed,
    repeat,
)
from hansa.core.parts import Relation
from hansa.errors import HansaError
from hansa.figures import round_up, step_up

ORDERS = tuple(range(2, 257))
"""Renyi orders: whole ones without a gap, as the bound for a sample needs all orders below."""

BETA = math.exp(-0.5)
"""Share of the roundings that may be drawn again, at most; Kairouz et al., section 4.2."""

HEADROOM = 4.0
"""Standard deviations of a coordinate of the sum that the ring holds in Kairouz et al."""

Curve: TypeAlias = NDArray[np.float64]
"""(len(ORDERS),) Renyi divergences, by order."""

Theirs: TypeAlias = Callable[[Event, Sequence[float]], Curve]
"""The curve of an event that dp-accounting knows."""


# ------------------------------------------------------------------ the accounting


def holds_discrete_sum(event: Event) -> bool:
    """Whether any part of an event is a `DiscreteGaussianSum`."""
    match event:
        case DiscreteGaussianSum():
            return True
        case Composed(parts):
            return any(holds_discrete_sum(part) for part in parts)
        case (
            SelfComposed(event=inner)
            | PoissonSampled(event=inner)
            | SampledWithReplacement(event=inner)
            | SampledWithoutReplacement(event=inner)
            | RepeatAndSelect(event=inner)
        ):
            return holds_discrete_sum(inner)
        case _:
            return False


def why_unknown(
    event: Event, relation: Relation, theirs: Callable[[Event], str | None]
) -> str | None:
    """Why an event that holds a `DiscreteGaussianSum` cannot be counted; None if it can.

    Args:
      event: the event.
      relation: the two datasets that are compared.
      theirs: why dp-accounting does not know a part of it; None if it does.
    """
    if not holds_discrete_sum(event):
        return theirs(event)
    match event:
        case DiscreteGaussianSum():
            return None
        case SelfComposed(event=inner):
            return why_unknown(inner, relation, theirs)
        case Composed(parts):
            reasons = [why_unknown(part, relation, theirs) for part in parts]
            return next((reason for reason in reasons if reason is not None), None)
        case PoissonSampled(event=inner) if relation is not Relation.REPLACE_ONE:
            if _sampled(inner):
                return "no bound is known for a sample of a sample"
            return why_unknown(inner, relation, theirs)
        case _:
            return (
                f"no bound for discrete noise is known for {type(event).__name__} under the "
                f"relation '{relation.value}'; it is known for Poisson sampling and for none"
            )


def curve(event: Event, theirs: Theirs) -> Curve:
    """The Renyi divergence of an event at all `ORDERS`; `why_unknown` says which it covers."""
    if not holds_discrete_sum(event):
        return theirs(event, ORDERS)
    match event:
        case DiscreteGaussianSum():
            return np.array([divergence(event, order) for order in ORDERS])
        case SelfComposed(inner, count):
            return count * curve(inner, theirs)
        case Composed(parts):
            return sum((curve(part, theirs) for part in parts), np.zeros(len(ORDERS)))
        case PoissonSampled(rate, inner):
            return amplified(curve(inner, theirs), rate)
        case _:
            raise HansaError(
                f"no bound is known for {type(event).__name__} of discrete noise",
                fix="use Poisson sampling, or everyone in each round",
            )


def divergence(event: DiscreteGaussianSum, order: float) -> float:
    """RDP(a) as above: an upper bound on the Renyi divergence of that order."""
    if not (event.noise_parameter > 0 and event.shares >= 1):
        return math.inf
    apart = event.sensitivity / (math.sqrt(event.shares) * event.noise_parameter)
    # Integers are at most their squares, so the L1 distance is at most the L2 distance squared.
    apart_l1 = min(math.sqrt(event.size), event.sensitivity) * apart
    far = tau(event.noise_parameter, event.shares)
    return min(
        order / 2 * apart**2 + far * event.size,
        order / 2 * (apart**2 + 2 * apart_l1 * far + far**2 * event.size),
        order / 2 * (apart + math.sqrt(event.size) * far) ** 2,
    )


def tau(noise_parameter: float, shares: int) -> float:
    """How far a sum of discrete Gaussians is from one discrete Gaussian, per coordinate."""
    k = np.arange(1, shares, dtype=np.float64)
    return float(10 * np.exp(-2 * (math.pi * noise_parameter) ** 2 * k / (k + 1)).sum())


def amplified(inner: Curve, rate: float) -> Curve:
    """The curve of a mechanism that runs on a Poisson sample (Zhu and Wang, ICML 2019, theorem 5).

    Looser than what is known for continuous Gaussian noise, and valid for any mechanism.

    Args:
      inner: its curve on the whole data.
      rate: the probability of taking part.
    """
    if rate >= 1:
        return inner
    if rate <= 0:
        return np.zeros_like(inner)
    # Taking part less often never costs more, but the bound is loose.
    found = [_amplified(inner, rate, order) for order in ORDERS]
    return np.array([min(pair) for pair in zip(found, inner.tolist(), strict=True)])


def _amplified(inner: Curve, rate: float, order: int) -> float:
    stay, go = math.log1p(-rate), math.log(rate)
    whole = np.arange(2, order + 1, dtype=np.float64)
    terms = _log_binomials(order)[2:] + (order - whole) * stay + whole * go
    terms += (whole - 1) * inner[: order - 1]
    terms[1:] += math.log(3)
    # Orders 0 and 1 together: (1 - q)**(a - 1) * (a q - q + 1).
    first = (order - 1) * stay + math.log1p((order - 1) * rate)
    return float(np.logaddexp.reduce(np.concatenate([[first], terms]))) / (order - 1)


def _log_binomials(n: int) -> NDArray[np.float64]:
    factorials = np.array([math.lgamma(k + 1) for k in range(n + 1)])
    return np.asarray(factorials[-1] - factorials - factorials[::-1], np.float64)


def _sampled(event: Event) -> bool:
    match event:
        case SelfComposed(event=inner):
            return _sampled(inner)
        case Composed(parts):
            return any(_sampled(part) for part in parts)
        case PoissonSampled() | SampledWithReplacement() | SampledWithoutReplacement():
            return True
        case _:
            return False


# ------------------------------------------------------------------ the numbers of a mechanism


def rounded_norm(norm: float, size: int) -> float:
    """B_r: the L2 norm, in steps, that conditional rounding keeps a vector of `norm` steps to.

    Kairouz et al., proposition 4.2: a rounding is within it with probability 1 - BETA or more.
    """
    always = norm + math.sqrt(size)
    usually = norm**2 + size / 4 + math.sqrt(-2 * math.log(BETA)) * (norm + math.sqrt(size) / 2)
    return min(always, math.sqrt(usually))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One job's release, as far as it decides how much noise a client must add.

    Attributes:
      norm: L2 bound of one client's clipped and weighted delta, in model units.
      size: its number of coordinates.
      cohort: most clients summed in one round.
      shares: fewest shares of noise in a sum that is unmasked, without those of colluding clients.
      bits: modulus 2**bits.
      rounds: releases of the job.
      rate: probability of taking part, by Poisson sampling; 1 = everyone.
      headroom: standard deviations of a coordinate of the sum that the ring holds.
      spread: how much more than 1 / size of the norm's square a rotated coordinate may hold.
      neighbours: 2 where neighbours differ by a replaced client, else 1.
    """

    norm: float
    size: int
    cohort: int
    shares: int
    bits: int
    rounds: int
    rate: float = 1.0
    headroom: float = HEADROOM
    spread: float = 1.0
    neighbours: int = 1

    def step(self, sigma: float) -> float:
        """The grid for noise of deviation `sigma`, in model units; inf if the ring is too small.

            gamma = 2 k sqrt(rho c**2 n**2 / d + n sigma**2) / sqrt(2**(2 b) - n k**2)

        k deviations of a coordinate of the sum, with its noise and its rounding, fill the ring.
        """
        k, n = self.headroom, self.cohort
        room = 4.0**self.bits - n * k**2
        if room <= 0:
            return math.inf
        variance = self.spread * (self.norm * n) ** 2 / self.size + n * sigma**2
        return 2 * k * math.sqrt(variance / room)

    def event(self, sigma: float, step: float) -> Event:
        """What the whole job reveals with such noise on such a grid."""
        one = DiscreteGaussianSum(
            noise_parameter=sigma / step,
            shares=self.shares,
            sensitivity=self.neighbours * rounded_norm(self.norm / step, self.size),
            size=self.size,
        )
        return repeat(one if self.rate >= 1 else PoissonSampled(self.rate, one), self.rounds)


def smallest_sigma(
    setting: Setting,
    epsilon: float,
    delta: float,
    epsilon_of: Callable[[Event, float], float],
    step_of: Callable[[float], float] | None = None,
) -> float:
    """The least noise per client, in model units, with which a job keeps (epsilon, delta).

    Six digits, rounded up, so that machines whose last bits differ find the same number.

    Args:
      setting: the job.
      epsilon: what may not be exceeded.
      delta: probability with which epsilon may not hold.
      epsilon_of: epsilon of an event at a delta, by an accountant that knows it.
      step_of: the grid for a sigma; `setting.step` if it is left out.

    Raises:
      HansaError: no noise is enough, on any grid that the ring allows.
    """
    grid = step_of or setting.step

    def enough(sigma: float) -> bool:
        step = grid(sigma)
        return math.isfinite(step) and epsilon_of(setting.event(sigma, step), delta) <= epsilon

    unit = setting.norm / math.sqrt(max(setting.shares, 1))
    high = unit
    while not enough(high):
        high *= 2
        if high > unit * 1e6:
            raise HansaError(
                f"no noise brings epsilon down to {epsilon:g} in {setting.bits} bits",
                fix="allow a larger epsilon, fewer rounds, more bits, or wait for more clients",
            )
    low = high / 2
    while enough(low):
        low, high = low / 2, low
        if high < unit * 1e-6:
            raise HansaError(f"epsilon stays below {epsilon:g} without noise", fix="ask for less")
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    sigma = round_up(high, 6)
    while not enough(sigma):  # where the grid of a rounded sigma is coarser
        sigma = step_up(sigma, 6)
    return sigma
