"""Epsilon: the table of events, joint Gaussians, and who counts what."""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from dp_accounting import dp_event

from hansa.core import events
from hansa.core.events import (
    Composed,
    DiscreteGaussianSum,
    Gaussian,
    Laplace,
    MixtureOfGaussians,
    PoissonSampled,
    RepeatAndSelect,
    SampledWithoutReplacement,
    SelfComposed,
    SingleEpochTreeAggregation,
    TruncatedSubsampledGaussian,
    ZCDp,
    repeat,
)
from hansa.core.parts import Relation
from hansa.errors import HansaError
from hansa.privacy import epsilon
from hansa.privacy.accountants import (
    DP_ACCOUNTING,
    RELATIONS,
    DpAccounting,
    best_accountant,
    to_dp_accounting,
)
from hansa.privacy.joint import joint
from hansa.samplers import Everyone, FixedSize, Poisson
from tests.core.test_events import ONE_OF_EACH

ADD, REPLACE, ZERO = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE, Relation.ZERO_OUT


def sampled(rate: float, noise: float, rounds: int) -> events.Event:
    return repeat(PoissonSampled(rate, Gaussian(noise)), rounds)


def without(population: int, size: int, noise: float, rounds: int) -> events.Event:
    return repeat(SampledWithoutReplacement(population, size, Gaussian(noise)), rounds)


# ------------------------------------------------------------------ the table


OURS = {"DiscreteGaussianSum"}
"""Events that dp-accounting has no word for: see `test_distributed_accounting`."""


def test_every_event_of_ours_is_one_of_theirs_but_one():
    assert set(DP_ACCOUNTING) == set(events.KINDS) - OURS


def test_every_event_of_theirs_is_one_of_ours_or_is_left_out_on_purpose():
    theirs = {name for name in dir(dp_event) if name.endswith("DpEvent")}
    left_out = {
        "DpEvent",  # the base class
        "UnsupportedDpEvent",  # for what nobody can account
    }
    assert theirs - left_out == set(DP_ACCOUNTING.values())


@pytest.mark.parametrize(
    "event",
    [event for event in ONE_OF_EACH if type(event).__name__ not in OURS],
    ids=lambda e: type(e).__name__,
)
def test_fields_go_over_by_name_and_come_back(event):
    """Their own named tuple of fields, read back into our event, gives the same event."""
    theirs = to_dp_accounting(event)

    def back(value: Any) -> Any:
        if isinstance(value, dp_event.DpEvent):
            name = next(n for n, t in DP_ACCOUNTING.items() if t == type(value).__name__)
            names = [a.name for a in value.__attrs_attrs__]
            return events.KINDS[name](**{n: back(getattr(value, n)) for n in names})
        return tuple(back(v) for v in value) if isinstance(value, list) else value

    found = back(theirs)
    if isinstance(event, SelfComposed):  # its Gaussians are stated as the one that they are
        assert found.event.event.noise_multiplier == pytest.approx((1 + 0.25) ** -0.5)
    else:
        assert found == event


# ------------------------------------------------------------------ joint Gaussians


@pytest.mark.parametrize(
    ("event", "noise"),
    [
        (Gaussian(3.0), 3.0),
        (Composed((Gaussian(3.0), Gaussian(4.0))), (1 / 9 + 1 / 16) ** -0.5),
        (SelfComposed(Gaussian(3.0), 9), 1.0),
        (Composed((SelfComposed(Gaussian(2.0), 4), Gaussian(1.0))), 2**-0.5),
    ],
)
def test_gaussians_from_one_sample_are_one_gaussian(event, noise):
    found = joint(event)
    assert found is not None
    assert found.noise_multiplier == pytest.approx(noise)
    apart, together = epsilon(event, 1e-5), epsilon(Gaussian(noise), 1e-5)
    assert apart == pytest.approx(together, rel=1e-3)


@pytest.mark.parametrize(
    "event", [Laplace(1.0), Composed((Gaussian(1.0), Laplace(1.0))), SelfComposed(Laplace(1.0), 2)]
)
def test_anything_else_is_not(event):
    assert joint(event) is None


def test_no_noise_is_no_noise():
    assert joint(Composed((Gaussian(0.0), Gaussian(1.0)))) == Gaussian(0.0)


def test_sampling_a_delta_and_its_metrics_can_be_counted_by_both():
    event = repeat(PoissonSampled(0.05, Composed((Gaussian(1.0), Gaussian(4.0)))), 50)
    one = repeat(PoissonSampled(0.05, Gaussian((1 + 1 / 16) ** -0.5)), 50)
    assert epsilon(event, 1e-5) == pytest.approx(epsilon(one, 1e-5))
    assert epsilon(event, 1e-5, "rdp") == pytest.approx(epsilon(one, 1e-5, "rdp"))


# ------------------------------------------------------------------ which one


@pytest.mark.parametrize(
    ("event", "relation", "method"),
    [
        (sampled(0.1, 1.0, 3), ADD, "pld"),
        (without(100, 10, 1.0, 3), REPLACE, "rdp"),
        (ZCDp(0.5), ADD, "rdp"),
        (Gaussian(1.0), REPLACE, "pld"),
        (sampled(0.1, 1.0, 3), ZERO, "pld"),
        (SingleEpochTreeAggregation(1.0, 4), ZERO, "rdp"),
        (RepeatAndSelect(sampled(0.1, 4.0, 3), 5.0, 1.0), ADD, "rdp"),
        (MixtureOfGaussians(2.0, (0.0, 1.0), (0.9, 0.1)), ADD, "pld"),
    ],
)
def test_the_tighter_accountant_that_knows_the_event(event, relation, method):
    assert best_accountant(event, relation).method == method


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (without(100, 10, 1.0, 3), ADD),
        (without(100, 10, 1.0, 3), ZERO),
        (SingleEpochTreeAggregation(1.0, 4), ADD),
        (MixtureOfGaussians(2.0, (0.0, 1.0), (0.9, 0.1)), REPLACE),
        (RepeatAndSelect(DiscreteGaussianSum(8.0, 10, 3.5, 100), 5.0, 1.0), ADD),
        (PoissonSampled(0.1, ZCDp(1.0)), ADD),
    ],
)
def test_what_neither_knows_is_refused(event, relation):
    with pytest.raises(HansaError, match="no accountant knows"):
        best_accountant(event, relation)
    assert "does not know" in str(DpAccounting("rdp").unsupported(event, relation))


def test_a_name_is_what_claims_say():
    assert DpAccounting("pld").name == str(DpAccounting("pld")) == "PLD of dp-accounting 0.6.0"


def test_counting_leaves_the_logs_of_others_alone(caplog):
    logger = logging.getLogger("absl")
    before = logger.level
    epsilon(repeat(PoissonSampled(0.1, Gaussian(1.01)), 20), 1e-5, "rdp")
    assert logger.level == before
    assert not [r for r in caplog.records if r.name == "absl"]


def test_counting_in_several_threads_is_as_quiet(caplog):
    """Renyi orders that do not converge are left out, which nobody need be told."""
    noises = [0.6 + number / 100 for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda noise: epsilon(PoissonSampled(0.266667, Gaussian(noise)), 1e-5, "rdp"),
                noises,
            )
        )
    assert not caplog.records


def test_no_noise_has_no_epsilon():
    assert math.isinf(epsilon(Gaussian(0.0), 1e-5))
    assert math.isinf(epsilon(Gaussian(0.0), 1e-5, "rdp"))


# ------------------------------------------------------------------ relations


@pytest.mark.parametrize(
    "event",
    [Gaussian(2.0), repeat(Gaussian(20.0), 9), PoissonSampled(1.0, Gaussian(2.0))],
    ids=["one", "nine", "sampled with certainty"],
)
def test_noise_is_relative_to_the_sensitivity_under_every_relation(event):
    """So a release without sampling costs the same, whoever counts, whatever is compared."""
    assert epsilon(event, 1e-5, "pld", REPLACE) == pytest.approx(epsilon(event, 1e-5), rel=1e-3)
    if not isinstance(event, PoissonSampled):
        assert epsilon(event, 1e-5, "rdp", REPLACE) == epsilon(event, 1e-5, "rdp")


@pytest.mark.parametrize("method", ["pld", "rdp"])
def test_a_unit_zeroed_out_is_a_unit_less_where_nobody_counts_units(method):
    event = sampled(0.1, 2.0, 20)
    assert epsilon(event, 1e-5, method, ZERO) == pytest.approx(epsilon(event, 1e-5, method))


def test_discrete_noise_on_a_sample_is_counted_for_a_unit_zeroed_out():
    event = repeat(PoissonSampled(0.1, DiscreteGaussianSum(20.0, 12, 60.0, 1000)), 5)
    assert epsilon(event, 1e-5, "rdp", ZERO) == epsilon(event, 1e-5, "rdp")


def test_every_relation_is_one_of_theirs():
    from dp_accounting import NeighboringRelation

    assert set(RELATIONS) == set(Relation)
    assert set(RELATIONS.values()) == {relation.name for relation in NeighboringRelation}


SAMPLERS = [
    (Everyone(50), {ADD: "pld", REPLACE: "pld", ZERO: "pld"}),
    (Poisson(0.1, 50), {ADD: "pld", REPLACE: "pld", ZERO: "pld"}),
    (FixedSize(5, 50), {ADD: None, REPLACE: "rdp", ZERO: None}),
]


@pytest.mark.parametrize(("sampler", "known"), SAMPLERS, ids=lambda s: type(s).__name__)
def test_what_a_sampler_claims_is_counted_under_its_relation_and_no_bound_is_made_up(
    sampler, known
):
    event = sampler.amplify(Gaussian(2.0))
    assert known[sampler.relation] is not None
    for relation, method in known.items():
        if method is None:
            with pytest.raises(HansaError, match="no accountant knows"):
                best_accountant(event, relation)
        else:
            assert best_accountant(event, relation).method == method


def test_a_cut_draw_scales_like_the_others():
    """Its noise is relative to the sensitivity, too: more of it where a unit is replaced."""
    event = TruncatedSubsampledGaussian(100, 1.0, 100, 2.0)
    assert epsilon(event, 1e-5, "pld", REPLACE) == pytest.approx(
        epsilon(Gaussian(2.0), 1e-5), rel=2e-2
    )


# ------------------------------------------------------------------ estimates


@pytest.mark.parametrize("event", [sampled(0.1, 2.5, 50), sampled(0.03, 2.0, 90)])
def test_an_estimate_is_a_bound_above_epsilon_and_close(event):
    counter = DpAccounting("pld")
    fine = counter.epsilon(event, 1e-5, ADD)
    for grid, close in ((1e-3, 1e-3), (1e-2, 1e-1)):
        found = counter.estimate(event, 1e-5, ADD, grid)
        assert fine * (1 - 1e-9) <= found <= fine * (1 + close)
    assert counter.estimate(event, 1e-5, ADD, 1e-2) > fine, "the grid is used"
    rdp = DpAccounting("rdp")
    least = rdp.epsilon(event, 1e-5, ADD)
    assert least <= rdp.estimate(event, 1e-5, ADD, 1e-2) < 1.2 * least


def test_an_estimate_is_refused_like_an_epsilon():
    with pytest.raises(HansaError, match="does not know"):
        DpAccounting("pld").estimate(ZCDp(0.5), 1e-5, ADD, 1e-3)
    with pytest.raises(HansaError, match="no probability"):
        DpAccounting("pld").estimate(Gaussian(1.0), 0.0, ADD, 1e-3)


@pytest.mark.parametrize("sampled", [False, True])
def test_hardly_any_noise_needs_no_more_memory(sampled):
    """Epsilon of k Gaussians is mu**2 / 2 + mu * q(1 - delta) where delta is all in one tail.

    mu is sqrt(k) / z; a grid as fine as for small epsilons would take 30 GiB here.
    """
    one = Gaussian(0.01)
    event = SelfComposed(PoissonSampled(0.9, one) if sampled else one, 4)
    exact = 200.0**2 / 2 + 4.2649 * 200.0
    found = epsilon(event, 1e-5)
    assert found == pytest.approx(exact, rel=2e-2 if sampled else 1e-3)
    assert sampled or found >= exact * (1 - 1e-5), "a coarser grid still gives a bound"
