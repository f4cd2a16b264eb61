"""Epsilon: reference values, and the table of events."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from dp_accounting import dp_event

from hansa.core import events
from hansa.core.events import (
    Composed,
    Gaussian,
    Laplace,
    PoissonSampled,
    SampledWithoutReplacement,
    SelfComposed,
    SingleEpochTreeAggregation,
    ZCDp,
    repeat,
)
from hansa.core.parts import Relation
from hansa.errors import HansaError
from hansa.privacy import epsilon
from hansa.privacy.accountants import (
    DP_ACCOUNTING,
    DpAccounting,
    best_accountant,
    to_dp_accounting,
)
from hansa.privacy.joint import joint
from tests.core.test_events import ONE_OF_EACH

ADD, REPLACE = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE


def sampled(rate: float, noise: float, rounds: int) -> events.Event:
    return repeat(PoissonSampled(rate, Gaussian(noise)), rounds)


def without(population: int, size: int, noise: float, rounds: int) -> events.Event:
    return repeat(SampledWithoutReplacement(population, size, Gaussian(noise)), rounds)


@pytest.mark.parametrize(
    ("event", "delta", "rdp", "pld"),
    [
        (sampled(0.01, 1.0, 1000), 1e-5, 2.1014, 1.8282),
        (repeat(Gaussian(8.0), 50), 1e-5, 4.1057, 3.7965),
        (repeat(Gaussian(20.0), 100), 1e-5, 2.1657, 1.9931),
        (sampled(0.001, 0.8, 2000), 1e-7, 1.8117, 0.8071),
    ],
)
def test_reference_values(event, delta, rdp, pld):
    assert epsilon(event, delta, "rdp") == pytest.approx(rdp, abs=1e-3)
    assert epsilon(event, delta) == pytest.approx(pld, abs=1e-3)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (without(60_000, 256, 1.12, 14_063), 5.1535),
        (without(10_000, 100, 1.0, 1000), 3.5761),
    ],
)
def test_reference_values_without_replacement(event, expected):
    assert epsilon(event, 1e-5, "rdp", REPLACE) == pytest.approx(expected, abs=1e-3)


def test_reference_value_of_zero_concentrated_privacy():
    assert epsilon(ZCDp(0.81), 1e-10, "rdp") == pytest.approx(8.9223, abs=1e-3)


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
        "RepeatAndSelectDpEvent",  # hyper-parameter search, which jobs do not do
        "MixtureOfGaussiansDpEvent",  # several units of one group, which jobs do not sample
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
    ],
)
def test_the_tighter_accountant_that_knows_the_event(event, relation, method):
    assert best_accountant(event, relation).method == method


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (without(100, 10, 1.0, 3), ADD),
        (SingleEpochTreeAggregation(1.0, 4), ADD),
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


def test_no_noise_has_no_epsilon():
    assert math.isinf(epsilon(Gaussian(0.0), 1e-5))
    assert math.isinf(epsilon(Gaussian(0.0), 1e-5, "rdp"))
