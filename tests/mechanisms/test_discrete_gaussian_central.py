"""The central discrete Gaussian: its grids, its sensitivities, its distribution, its epsilon."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hansa.core.events import (
    DiscreteGaussianSum,
    Event,
    Gaussian,
    NoOp,
    PoissonSampled,
    SelfComposed,
)
from hansa.core.job import Aggregation, Cohort, Privacy, Quantization
from hansa.core.keys import NoiseSource, ReplayKey
from hansa.core.parts import Relation
from hansa.core.spec import Divisor, Domain
from hansa.errors import PlanError, PlanRefused
from hansa.mechanisms.discrete import CentralDiscrete, one_release
from hansa.privacy import epsilon
from tests.laws.mechanisms import spec
from tests.support.toy import plan

KEY = ReplayKey.of_seed(0)
ONE = CentralDiscrete(1.5, 0.7)
RING: dict[str, Any] = {"domain": Domain.RING, "bits": 32, "quantum": 0.25}
ALIGNED = CentralDiscrete(1.5, 0.7, aligned=True)


def ratio(event: DiscreteGaussianSum) -> float:
    """Noise relative to the sensitivity."""
    return event.noise_parameter / event.sensitivity


@pytest.mark.parametrize(
    ("segment", "size", "multiplier"),
    [("delta", 5, 1.5), ("metrics", 5, 0.7), ("metrics", 0, None), ("weight", 1, None)],
)
@pytest.mark.parametrize("mechanism", [ONE, ALIGNED], ids=["floats", "ring"])
def test_the_table(mechanism, segment, size, multiplier):
    facts = spec(segment, size=size, **(RING if mechanism.aligned else {}))
    event = mechanism.infer(facts)
    assert mechanism.releases(facts) is (multiplier is not None)
    if multiplier is None:
        assert event == NoOp()
        return
    assert isinstance(event, DiscreteGaussianSum)
    assert (event.shares, event.size) == (1, size)
    assert ratio(event) == pytest.approx(multiplier, rel=1e-12)


@pytest.mark.parametrize(
    ("mechanism", "facts", "because", "fix"),
    [
        (ONE, spec(l2=math.inf), "the delta arbitrarily far", "privacy.clip"),
        (ONE, spec("metrics", l2=math.inf), "the metrics arbitrarily far", "metrics_clip"),
        (ONE, spec(l2=0.0), "arbitrarily far", "privacy.clip"),
        (ONE, spec(divisor=Divisor.REALISED), "realised count", "fixed divisor"),
        (ONE, spec("within", size=1), "adaptive norm bound", "clip_quantile"),
        (CentralDiscrete(0.0), spec(), "protects nobody", "noise_multiplier"),
        (CentralDiscrete(-1.0), spec(), "protects nobody", "noise_multiplier"),
        (CentralDiscrete(math.nan), spec(), "protects nobody", "noise_multiplier"),
        (CentralDiscrete(math.inf), spec(), "protects nobody", "noise_multiplier"),
        (CentralDiscrete(1.0, 0.0), spec("metrics"), "protects nobody", "metrics_noise"),
        (
            CentralDiscrete(1.0, aligned=True),
            spec(**{**RING, "quantum": 1e-13}),
            "cannot be drawn in steps",
            "quantization.step",
        ),
    ],
)
def test_what_cannot_be_released_is_refused(mechanism, facts, because, fix):
    with pytest.raises(PlanError, match=because) as caught:
        mechanism.infer(facts)
    assert fix in caught.value.fix


@pytest.mark.parametrize("relation", Relation)
def test_the_sensitivity_counts_the_relation_and_the_rounding(relation):
    twice = 2 if relation is Relation.REPLACE_ONE else 1
    facts = spec(size=10_000)
    sigma, sensitivity, grid = CentralDiscrete(1.5, relation=relation).scale(facts)
    assert sensitivity == pytest.approx(twice * 3.0 + 2 * grid * 100, rel=1e-12)
    assert sigma == pytest.approx(1.5 * sensitivity, rel=1e-12)
    assert math.log2(grid).is_integer()
    assert grid <= sigma * 2.0**-29
    ring = CentralDiscrete(1.5, relation=relation, aligned=True).scale(spec(**RING))
    assert ring == pytest.approx((1.5 * twice * 3.0, twice * 3.0, 0.25), rel=1e-12)


def test_a_ring_that_was_rotated_is_not_aligned():
    """Its sums lie between the steps of the ring: rounding them there would not be counted."""
    _, sensitivity, grid = ONE.scale(spec(**RING))
    assert grid < 1e-8
    assert sensitivity > 3.0


@pytest.mark.parametrize(("mechanism", "facts"), [(ONE, spec()), (ALIGNED, spec(**RING))])
def test_what_is_released_lies_on_the_grid(mechanism, facts):
    total = np.linspace(-3, 3, 1000)
    if mechanism.aligned:
        total = np.rint(total / 0.25) * 0.25
    _, _, grid = mechanism.scale(facts)
    released = mechanism.apply(total.copy(), facts, NoiseSource())
    assert all((Fraction(x) / Fraction(grid)).denominator == 1 for x in released.tolist())
    assert (released != total).any()


def test_two_neighbours_are_moved_apart_by_less_than_is_counted():
    """Without noise: sums that differ by l2, each rounded to the grid, in the worst direction."""
    facts = spec(size=4096, l2=1e-9, peak=1e-9, cohort=1)
    _, sensitivity, grid = ONE.scale(facts)
    base = (np.arange(4096) + 0.5) * grid
    step = 1e-9 / 64
    key = ReplayKey.of_seed(1)
    one = ONE.apply(base.copy(), facts, key)
    other = ONE.apply(base + step, facts, key)
    assert np.linalg.norm(other - one) <= sensitivity


def pmf(sigma: float, reach: int) -> np.ndarray:
    """N_Z(0, sigma**2) on -reach .. reach, by its definition."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def fits(drawn: np.ndarray, sigma: float) -> bool:
    reach = math.ceil(5 * sigma)
    steps = np.clip(drawn, -reach, reach).astype(int) + reach
    counts = np.bincount(steps, minlength=2 * reach + 1).astype(float)
    theirs = pmf(sigma, reach) * len(drawn)
    keep = theirs >= 5
    found = np.append(counts[keep], counts[~keep].sum())
    wanted = np.append(theirs[keep], theirs[~keep].sum())
    return bool(stats.chisquare(found, wanted * found.sum() / wanted.sum()).pvalue > 1e-6)


def test_the_noise_on_a_coarse_ring_is_the_discrete_gaussian():
    """Noise of 1.5 steps, where a rounded normal is another distribution."""
    facts = spec(size=200_000, l2=1.0, peak=1.0, domain=Domain.RING, bits=32, quantum=1.0)
    drawn = ALIGNED.apply(np.zeros(200_000), facts, NoiseSource())
    assert fits(drawn, 1.5)
    assert not fits(drawn, 1.5 * 1.03), "the test has no power"
    assert not fits(drawn, 1.5 / 1.03), "the test has no power"
    normal = np.rint(np.random.default_rng(0).normal(0, 1.5, 200_000))
    assert not fits(normal, 1.5), "the test has no power"


@pytest.mark.parametrize(("z", "coarser"), [(2.0, 0.05), (8.0, 1e-3), (20.0, 1e-3)])
def test_epsilon_is_that_of_normal_noise_by_the_same_accountant(z, coarser):
    """Whole Renyi orders are a coarse grid where epsilon is large."""
    discrete, normal = SelfComposed(one_release(z), 50), SelfComposed(Gaussian(z), 50)
    theirs = epsilon(normal, 1e-5, "rdp")
    assert theirs * (1 - 1e-9) <= epsilon(discrete, 1e-5, "rdp") <= theirs * (1 + coarser)
    assert epsilon(discrete, 1e-5, "rdp") >= epsilon(normal, 1e-5)


@pytest.mark.parametrize(
    ("rate", "z", "rounds", "normal", "discrete"),
    [(1.0, 8.0, 50, 3.7965, 4.1057), (0.1, 1.0, 200, 9.9713, 13.5340)],
)
def test_the_figures_of_the_docstring(rate, z, rounds, normal, discrete):
    """4.1057 and 3.7965 are the acceptance numbers of full rounds with RDP and PLD."""

    def of(event: Event) -> Event:
        return SelfComposed(event if rate == 1 else PoissonSampled(rate, event), rounds)

    assert epsilon(of(Gaussian(z)), 1e-5) == pytest.approx(normal, abs=1e-3)
    assert epsilon(of(one_release(z)), 1e-5, "rdp") == pytest.approx(discrete, abs=1e-3)


def test_the_event_of_calibration_is_that_of_the_plan():
    """Whatever the grid: equal ratios are equal divergences."""
    for mechanism, facts in ((ONE, spec(size=5)), (ALIGNED, spec(size=5, **RING))):
        planned = SelfComposed(mechanism.infer(facts), 20)
        assert epsilon(planned, 1e-5, "rdp") == pytest.approx(
            epsilon(SelfComposed(one_release(1.5), 20), 1e-5, "rdp"), rel=1e-9
        )


def test_segments_draw_different_noise_from_the_same_key():
    zeros = np.zeros(100)
    one, other = (
        CentralDiscrete(1.0, 1.0).apply(zeros.copy(), spec(segment, size=100), KEY)
        for segment in ("delta", "metrics")
    )
    assert (one != other).any()


WORDS: dict[str, Any] = {
    "privacy": Privacy(mechanism="discrete", clip=1.0, epsilon=8.0, delta=1e-5),
    "aggregation": Aggregation(weighting="uniform"),
}


@pytest.mark.parametrize(
    ("words", "aligned"),
    [
        ({}, False),
        ({"quantization": Quantization(step=1e-3)}, True),
        ({"quantization": Quantization(step=1e-3, rotate=True)}, False),
        ({"cohort": Cohort(population=6, sampler="poisson", rate=0.5)}, False),
        ({"cohort": Cohort(population=6, sampler="cyclic", separation=2)}, False),
    ],
)
def test_a_job_keeps_its_epsilon(words, aligned):
    found = plan(**{**WORDS, **words})
    assert isinstance(found.parts.mechanism, CentralDiscrete)
    assert found.parts.mechanism.aligned is aligned
    assert 7.9 < found.epsilon <= 8.0
    assert any("RDP of dp-accounting" in c and "central" in c for c in found.claims)


@pytest.mark.parametrize(
    "cohort",
    [
        Cohort(population=6, sampler="fixed", size=4),
        Cohort(population=200, sampler="poisson", rate=0.1, cap=60),
    ],
)
def test_sampling_without_a_known_bound_is_refused(cohort):
    with pytest.raises(PlanRefused) as caught:
        plan(**WORDS, cohort=cohort)
    assert all(error.fix for error in caught.value.errors)
