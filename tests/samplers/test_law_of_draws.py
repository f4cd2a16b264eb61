"""Whole cohorts are drawn by the law that a sampler claims: chi-square over all possible cohorts.

Frequencies of single clients are in the laws of all samplers; here joint draws count, which is what
amplification rests on. Each sampler's own law is accepted and a near miss of it rejected, so that
the test has power.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from hansa.core.keys import ReplayKey
from hansa.core.parts import ClientSampler
from hansa.samplers import Cyclic, Everyone, FixedSize, Known, Poisson

N, DRAWS = 5, 4000
NAMES = tuple("abcde")
COHORTS = [c for size in range(N + 1) for c in itertools.combinations(NAMES, size)]
Law = Callable[[tuple[str, ...]], float]
"""The probability of a cohort."""


def independent(rate: float, among: tuple[str, ...] = NAMES) -> Law:
    def law(cohort: tuple[str, ...]) -> float:
        if not set(cohort) <= set(among):
            return 0.0
        return rate ** len(cohort) * (1 - rate) ** (len(among) - len(cohort))

    return law


def fixed(size: int) -> Law:
    return lambda cohort: (len(cohort) == size) / math.comb(N, size)


def cut(rate: float, limit: int) -> Law:
    """Poisson, with larger draws cut to a random subset."""

    def law(cohort: tuple[str, ...]) -> float:
        if len(cohort) > limit:
            return 0.0
        if len(cohort) < limit:
            return independent(rate)(cohort)
        larger = stats.binom.sf(limit - 1, N, rate)
        return float(larger) / math.comb(N, limit)

    return law


def p_value(sampler: ClientSampler, law: Law, number: int) -> float:
    """Of the draws of round `number` under a law; 0 if something impossible was drawn."""
    key = ReplayKey.of_seed(41)
    counts = Counter(sampler.draw(NAMES, key.derive(i), number) for i in range(DRAWS))
    expected = {cohort: DRAWS * law(cohort) for cohort in COHORTS}
    assert sum(expected.values()) == pytest.approx(DRAWS), "no law"
    possible = [cohort for cohort in COHORTS if expected[cohort] > 0]
    if counts.keys() - set(possible):
        return 0.0
    if len(possible) == 1:
        return 1.0
    # Cohorts that are expected fewer than five times count together.
    rare = [cohort for cohort in possible if expected[cohort] < 5]
    usual = [cohort for cohort in possible if expected[cohort] >= 5]
    found = [counts[c] for c in usual] + ([sum(counts[c] for c in rare)] if rare else [])
    theirs = [expected[c] for c in usual] + ([sum(expected[c] for c in rare)] if rare else [])
    return float(stats.chisquare(np.array(found), np.array(theirs)).pvalue)


GROUP = Cyclic(2, N, seed=6).draw(NAMES, ReplayKey.of_seed(0), 1)
OTHER = tuple(name for name in NAMES if name not in GROUP)

ROWS: dict[str, tuple[ClientSampler, Law, Law]] = {
    "everyone": (Everyone(N), fixed(N), fixed(N - 1)),
    "poisson": (Poisson(0.3, N), independent(0.3), independent(0.27)),
    "poisson is not fixed": (Poisson(0.4, N), independent(0.4), cut(0.4, 3)),
    "cut": (Poisson(0.6, N, limit=3), cut(0.6, 3), independent(0.6)),
    "fixed": (FixedSize(2, N), fixed(2), fixed(3)),
    "fixed is not poisson": (FixedSize(2, N), fixed(2), independent(0.4)),
    "a group": (Cyclic(2, N, seed=6), independent(1.0, GROUP), independent(1.0, OTHER)),
    "a sample of a group": (
        Cyclic(2, N, 0.5, seed=6),
        independent(0.5, GROUP),
        independent(0.45, GROUP),
    ),
    "a sample of a group is not one of all": (
        Cyclic(2, N, 0.5, seed=6),
        independent(0.5, GROUP),
        independent(0.25),
    ),
    "known": (Known(Poisson(0.3, N)), independent(0.3), independent(0.33)),
}


@pytest.mark.parametrize("row", ROWS)
def test_cohorts_are_drawn_by_the_law_that_is_claimed(row):
    sampler, right, wrong = ROWS[row]
    assert p_value(sampler, right, number=1) > 1e-6
    assert p_value(sampler, wrong, number=1) < 1e-6, "the test has no power"
