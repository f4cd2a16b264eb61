"""A lower bound on epsilon from a single run (Steinke, Nasr and Jagielski, NeurIPS 2023).

Each of m canaries is put in or left out by its own fair coin. Afterwards somebody who saw what was
released guesses the coins, and may abstain. Under (epsilon, delta)-differential privacy v or more
of r guesses are right with a probability of at most

    q     = e^epsilon / (1 + e^epsilon)
    beta  = P[Bin(r, q) >= v]
    alpha = max over i = 1 .. v of (P[Bin(r, q) >= v - i] - beta) / i
    p     = min(1, beta + 2 m delta alpha)

(arXiv 2305.08846). The bound is the largest epsilon that is rejected: p <= 1 - confidence.
Several independent runs on disjoint canaries are one run of a mechanism with the same guarantee
(parallel composition), so their guesses are pooled.

| guesses                        | bound                                          |
|--------------------------------|------------------------------------------------|
| none, or no better than a coin | 0                                              |
| all right                      | finite: what so many guesses can show          |
| m > 1 / (20 delta)             | the term in delta swallows most of it          |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hansa.errors import HansaError

Floats = NDArray[np.float64]
Coins = NDArray[np.bool_]


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """How probable so many right guesses are at most, if the guarantee holds.

    Args:
      canaries: coins that were tossed, m; abstained ones count.
      guesses: r.
      correct: v.
      epsilon: of the guarantee that is doubted.
      delta: of the same.

    Raises:
      HansaError: the numbers contradict each other.
    """
    from scipy.stats import binom

    if not 0 <= correct <= guesses <= canaries or not 0 <= delta < 1:
        raise HansaError(
            f"{correct} of {guesses} guesses about {canaries} canaries at delta {delta:g} "
            "cannot be",
            fix="give 0 <= correct <= guesses <= canaries, and a delta from 0 to below 1",
        )
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(binom.sf(correct - 1, guesses, q))
    if not delta or not correct:
        return beta
    fewer = np.arange(1, correct + 1)
    alpha = float(np.max((binom.sf(correct - fewer - 1, guesses, q) - beta) / fewer))
    return min(1.0, beta + 2 * canaries * delta * max(alpha, 0.0))


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95
) -> float:
    """The largest epsilon that the guesses reject; 0 if they reject none.

    Args:
      canaries: coins that were tossed, m.
      guesses: r, chosen without a look at the coins.
      correct: v.
      delta: of the guarantee that is doubted.
      confidence: with which the bound holds.

    Raises:
      HansaError: the numbers contradict each other.
    """
    from scipy.optimize import brentq

    def rest(epsilon: float) -> float:
        return (1 - confidence) - p_value(canaries, guesses, correct, epsilon, delta)

    if rest(0.0) <= 0:
        return 0.0
    above = 1.0
    while rest(above) > 0:
        above *= 2
    return float(brentq(rest, 0.0, above, xtol=1e-6))


@dataclass(frozen=True, slots=True)
class Rule:
    """How many canaries are guessed: those with the highest scores are in, with the lowest out.

    Attributes:
      inside: share of the canaries that is guessed in.
      outside: share that is guessed out.
    """

    inside: float
    outside: float

    def guess(self, scores: Floats, coins: Coins) -> tuple[int, int]:
        """The number of guesses and of right ones.

        Args:
          scores: (m,) higher for canaries that seem to be in.
          coins: (m,) true where a canary was in.
        """
        order = np.argsort(scores, kind="stable")
        most, least = int(self.inside * len(order)), int(self.outside * len(order))
        found = int(coins[order[len(order) - most :]].sum()) + int((~coins[order[:least]]).sum())
        return most + least, found


@dataclass(frozen=True, slots=True)
class Threshold:
    """All canaries are guessed: those with a score above 0 are in."""

    def guess(self, scores: Floats, coins: Coins) -> tuple[int, int]:
        """The number of guesses and of right ones."""
        return len(scores), int(((scores > 0) == coins).sum())


RULES = (
    Threshold(),
    Rule(1 / 8, 1 / 8),
    Rule(1 / 32, 1 / 32),
    Rule(3 / 8, 0.0),
    Rule(1 / 16, 0.0),
)
"""Rules that are tried, all of them, each at its share of the confidence (Bonferroni)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound and where it comes from.

    Attributes:
      epsilon: the bound.
      canaries: m.
      guesses: r of the rule that gave it.
      correct: v of that rule.
      ceiling: the bound if every rule's guesses had been right: more cannot be seen.
    """

    epsilon: float
    canaries: int
    guesses: int
    correct: int
    ceiling: float


def bound(
    scores: Floats,
    coins: Coins,
    delta: float,
    confidence: float = 0.95,
    rules: Sequence[Rule | Threshold] = RULES,
) -> Bound:
    """The best bound of several rules, which holds with the confidence for all of them together.

    Args:
      scores: (m,) higher for canaries that seem to be in.
      coins: (m,) true where a canary was in.
      delta: of the guarantee that is doubted.
      confidence: of the result; each rule is held to 1 - (1 - confidence) / number of rules.
      rules: that were fixed before the scores were seen.
    """
    each = 1 - (1 - confidence) / len(rules)
    found, ceiling = [], 0.0
    for rule in rules:
        guesses, correct = rule.guess(scores, coins)
        epsilon = epsilon_lower_bound(len(scores), guesses, correct, delta, each)
        perfect = epsilon_lower_bound(len(scores), guesses, guesses, delta, each)
        found.append((epsilon, guesses, correct))
        ceiling = max(ceiling, perfect)
    epsilon, guesses, correct = max(found)
    return Bound(epsilon, len(scores), guesses, correct, ceiling)
